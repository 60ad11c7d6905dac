"""`dearlite batch SOURCE -o out.trec`."""

from __future__ import annotations

import click

from dearlite.cli.options.run import RunOptions, open_source, rerank, run_options
from dearlite.cli.options.types import ActorRange
from dearlite.cli.streams import check_stdout
from dearlite.errors import counted
from dearlite.offline.run.rerank_run import check_run_can_hold
from dearlite.offline.run.results import RerankedRun


@click.command()
@run_options
@click.option(
    "--ray",
    "address",
    is_flag=False,
    flag_value="local",
    metavar="[ADDRESS]",
    help="Run on the Ray cluster at ADDRESS; without ADDRESS on a Ray of this command, on this machine.",
)
@click.option(
    "--actors",
    type=ActorRange(),
    default="1",
    show_default=True,
    metavar="N|MIN-MAX",
    help="Ray: number of actors. Each holds the model.",
)
@click.option(
    "--actor-gpus",
    type=float,
    default=0.0,
    show_default=True,
    metavar="X",
    help="Ray: number of GPUs per actor; above 0 it replaces the CPUs.",
)
@click.option(
    "--block-queries",
    type=int,
    default=100,
    show_default=True,
    metavar="N",
    help="Ray: number of queries per block.",
)
def command(
    options: RunOptions, address: str | None, actors: tuple[int, int], actor_gpus: float, block_queries: int
) -> None:
    """Rerank a run of many queries. The same command resumes a run that was stopped.

    SOURCE is a folder with queries.jsonl, corpus.jsonl(.gz) and run.trec (BEIR's folders too), a JSON file in the
    format of RankGPT or rank_llm, or a dataset of ir_datasets, such as irds:beir/nfcorpus/test. --queries, --corpus and
    --run replace a file of the folder. With --queries FILE and no run, SOURCE are files of documents, as for rerank,
    and every document is ranked for every query. Without -o the TREC run is written to stdout.

    Every result is written to a journal at once. After a kill the same command resumes from it and reports so. It never
    uses results of another model, option or text.

    --ray divides the work into blocks for a Ray cluster; each actor uses --threads CPUs. SOURCE may then be a folder of
    JSON Lines or Parquet shards, and -o is a folder, which gets one part file per block and run.trec.
    """
    if address is not None:
        from dearlite.cli.batch_ray import rerank_blocks

        rerank_blocks(options, address=address, actors=actors, gpus=actor_gpus, block_queries=block_queries)
        return
    options.check_outputs({}, {})
    if options.files.output is None:
        check_stdout()
    collection = open_source(options)
    check_run_can_hold(collection)
    reranked = rerank(collection, options)
    if options.files.output is None:
        reranked.write_trec("-")
    if not options.quiet:
        _print_summary(reranked)


def _print_summary(reranked: RerankedRun) -> None:
    pairs, scored, seconds = reranked.collection.pairs, reranked.scored, reranked.seconds_now
    if reranked.truncated:
        verb, past = ("is", "was") if reranked.truncated == 1 else ("are", "were")
        click.echo(
            f"dearlite: {reranked.truncated} of {counted(pairs, 'pair')} {verb} longer than the model's input and "
            f"{past} truncated",
            err=True,
        )
    sources = (("journal", reranked.resumed), ("cache", reranked.cached))
    reused = ", ".join(f"{count} {source}" for source, count in sources if count)
    rate = f", {scored / seconds:.0f} pairs/s" if seconds else ""
    work = f"{counted(pairs, 'pair')} in {seconds:.1f} s{rate}"
    if reused:
        work = f"{counted(pairs, 'pair')} ({reused}), {scored} now in {seconds:.1f} s{rate}"
    identity = reranked.identity
    click.echo(
        f"{reranked.model} on {identity['device']} (sha256 {identity['sha256'][:12]}): "
        f"{counted(len(reranked.results), 'query', 'queries')}, {work}",
        err=True,
    )
