"""`dearlite batch SOURCE -o out.trec`."""

from __future__ import annotations

import sys
from typing import Any

import click

from dearlite.cli.options.run import check, collection_of, rerank, run_options
from dearlite.offline.run.results import RerankedRun


@click.command()
@run_options
@click.option(
    "--ray", "address", is_flag=False, flag_value="local", metavar="[ADDRESS]", help="As blocks on a Ray cluster."
)
@click.option("--actors", default="1", show_default=True, metavar="N|MIN-MAX", help="Ray: models held at once.")
@click.option("--actor-gpus", type=float, default=0.0, metavar="X", help="Ray: GPUs of each, instead of CPUs.")
@click.option("--block-queries", type=int, default=100, show_default=True, help="Ray: queries in a block.")
def command(address: str | None, actors: str, actor_gpus: float, block_queries: int, **given: Any) -> None:
    """Rerank a run of many queries; a run that is stopped goes on where it was.

    SOURCE is a folder with queries.jsonl, corpus.jsonl(.gz) and run.trec (BEIR's folders too), or the JSON that RankGPT
    and rank_llm publish; each of the files may be named instead. Without -o the TREC run goes to stdout.

    Every result is in a journal at once: after a kill, the same command goes on from it and says so. Results of another
    model, option or text are never taken.

    With --ray the work is cut into blocks for a Ray cluster (or a Ray of its own here), each model with --threads CPUs;
    SOURCE may then be a folder of JSON Lines or Parquet shards, and -o is a folder: a part file a block, and run.trec.
    """
    if address is not None:
        from dearlite.cli.batch_ray import rerank_blocks

        rerank_blocks(address, actors, actor_gpus, block_queries, given)
        return
    check(given)
    collection = collection_of(given)
    found = rerank(collection, given)
    if given["output"] is None:
        sys.stdout.writelines(found.lines())
        sys.stdout.flush()
    if not given["quiet"]:
        _report(found)


def _report(found: RerankedRun) -> None:
    if found.truncated:
        click.echo(f"dearlite: {found.truncated} of {found.collection.pairs} pairs did not fit and were cut", err=True)
    known = [f"{count} {where}" for count, where in ((found.resumed, "journal"), (found.cached, "cache")) if count]
    rate = f", {found.collection.pairs / found.seconds:.0f} pairs/s" if found.seconds else ""
    click.echo(
        f"{found.model} on {found.identity['device']} (sha256 {found.identity['sha256'][:12]}): {len(found.results)} "
        f"queries, {found.collection.pairs} pairs in {found.seconds:.1f} s{rate}"
        + (f" ({', '.join(known)})" if known else ""),
        err=True,
    )
