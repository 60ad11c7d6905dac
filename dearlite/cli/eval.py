"""`dearlite eval`: a reranked run measured beside its first stage and other runs, or existing runs alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click

from dearlite.cli.eval_reports import Reports, write_reports
from dearlite.cli.eval_runs import check_options, files_of, measure_runs, parse_run, runs_of
from dearlite.cli.options.run import RunOptions, open_source, rerank, run_options
from dearlite.cli.streams import check_stdout
from dearlite.errors import UsageError, need, printable
from dearlite.offline.evaluation.assess import EvaluationOptions, prepare
from dearlite.offline.evaluation.comparisons import TESTS, Statistics
from dearlite.offline.evaluation.evaluation import Evaluation
from dearlite.offline.evaluation.measures import TIES, check_measures


@click.command()
@click.option(
    "--qrels",
    metavar="FILE",
    help="Judgements: TREC's four columns, BEIR's three, CSV, JSON or Parquet. [default: those of SOURCE]",
)
@click.option(
    "--measures",
    multiple=True,
    metavar="NAMES",
    help="Measures by their names in ir-measures or trec_eval, such as 'nDCG@10 RR(rel=2)@10 map'. May be repeated. "
    "[default: nDCG@1, @5, @10, RR@10, AP, R@10, R@100]",
)
@click.option(
    "--ties",
    type=click.Choice(TIES),
    default=TIES[0],
    show_default=True,
    help="Order of documents with equal scores: their rank in the run, or their id as in trec_eval.",
)
@click.option("--all-pairs", is_flag=True, help="Compare each two runs, not the last or reranked one with each other.")
@click.option(
    "--test",
    type=click.Choice(list(TESTS)),
    default="randomisation",
    show_default=True,
    help="Test of the differences by query, paired and two-sided.",
)
@click.option(
    "--confidence",
    type=float,
    metavar="SHARE",
    help="Bootstrap confidence intervals of means and differences, such as 0.95. [default: none]",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, metavar="N", help="Seed of the test and of the bootstrap."
)
@click.option("--scored", metavar="FILE", help="Measure this run, which was reranked before, and load no model.")
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    metavar="[NAME=]FILE[@S]",
    help="Another run to compare with; S is its time per query in seconds. May be repeated.",
)
@click.option(
    "--suite",
    metavar="NAME",
    help="Run a published evaluation (dear); SOURCE is the folder that holds the folders of its collections.",
)
@click.option("--report", metavar="FILE", help="HTML report to write, a single page without other files.")
@click.option("--json", metavar="FILE", help="JSON file of all results to write; - is stdout.")
@click.option("--csv", metavar="FILE", help="CSV file of the table to write, one row per run; - is stdout.")
@click.option(
    "--per-query", metavar="FILE", help="CSV file of the values per query to write, one row per query; - is stdout."
)
@click.option(
    "--per-query-long",
    metavar="FILE",
    help="CSV file of the same in long form to write: qid,measure,value,run; - is stdout.",
)
@click.option(
    "--plot",
    metavar="FILE",
    help="Plot of the values per query to write, as .svg or .png: a scatter and the differences, for each other run.",
)
@click.option("--latex", metavar="FILE", help="LaTeX file of the table to write, for booktabs; - is stdout.")
@run_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    options: RunOptions,
    qrels: str | None,
    measures: tuple[str, ...],
    ties: str,
    all_pairs: bool,
    test: str,
    confidence: float | None,
    seed: int,
    scored: str | None,
    baselines: tuple[str, ...],
    suite: str | None,
    report: str | None,
    json: str | None,
    csv: str | None,
    per_query: str | None,
    per_query_long: str | None,
    plot: str | None,
    latex: str | None,
) -> None:
    """Rerank a run as batch does, and measure it beside the first stage and other runs; or measure existing runs.

    `dearlite eval --qrels FILE RUN...` compares runs that exist, and needs neither texts nor a model; each RUN is
    [NAME=]FILE[@SECONDS], and the last is compared with the others. `dearlite eval SOURCE RUN...` takes the judgements
    of a folder or of a dataset of ir_datasets, such as irds:beir/nfcorpus/test.

    The measures are those of trec_eval, computed by ir-measures. Queries that are judged but missing in a run count as
    zero. Every other run is compared query by query; p values are those of a paired test with Holm's correction.
    """
    need("ir_measures", extra="eval")
    command_line = ctx.obj or ""
    statistics = Statistics(test=test, confidence=confidence, all_pairs=all_pairs, seed=seed)
    reports = Reports(
        json=json,
        csv=csv,
        latex=latex,
        per_query=per_query,
        per_query_long=per_query_long,
        report=report,
        plot=plot,
    )
    if suite is not None:
        from dearlite.cli.eval_suite import evaluate_suite

        single = {"--qrels": qrels, "--scored": scored, "--baseline": baselines, "RUN": options.sources[1:]}
        named = [*reports.paths(), *(option for option, value in single.items() if value)]
        if refused := [option for option in named if option != "--json"]:
            raise UsageError(f"{refused[0]} is for one collection: give its folder, without --suite")
        chosen = EvaluationOptions(measures=measures, ties=ties, command=command_line, statistics=statistics)
        evaluate_suite(suite, options, chosen, json=json)
        return
    runs = [parse_run(text, "--baseline ") for text in baselines]
    existing = runs_of(options, qrels=qrels, scored=scored)
    if existing is not None:
        check_options(ctx)
    if scored is not None:
        options.files.refuse_any("--scored")
    reports.check_endings()
    inputs: dict[str, Any] = {"--qrels": qrels, "--scored": scored, "--baseline": [run.path for run in runs]}
    if existing is not None:
        inputs["RUN"] = files_of(existing)
    options.check_outputs(reports.paths(), inputs)
    if not reports.paths():
        check_stdout()
    if len({run.name for run in runs}) < len(runs):
        raise UsageError("two baselines have one name: give them names, --baseline NAME=FILE")
    evaluation_options = EvaluationOptions(
        qrels=qrels,
        baselines={run.name: run.path for run in runs},
        seconds={run.name: run.seconds for run in runs if run.seconds is not None},
        measures=check_measures(measures or None),
        ties=ties,
        command=command_line,
        skip_bad=options.source.skip_bad,
        statistics=statistics,
    )
    if existing is not None:
        evaluation = measure_runs(existing, evaluation_options, scored=scored)
        printed: Sequence[str] = []
    else:
        evaluation, printed = _measure(options, evaluation_options, scored)
    write_reports(evaluation, reports)
    if "-" in reports.paths().values() and not options.quiet:  # the table, which has the notes, is not printed
        for note in evaluation.notes:
            if note not in printed:
                click.echo(f"dearlite: {printable(note)}", err=True)


def _measure(
    options: RunOptions, evaluation_options: EvaluationOptions, scored: str | None
) -> tuple[Evaluation, Sequence[str]]:
    """The evaluation of SOURCE, reranked unless its reranked run is `scored`; and the notes that are on stderr."""
    collection = open_source(replace(options, source=replace(options.source, qrels=evaluation_options.qrels)))
    assessment = prepare(collection, evaluation_options)
    if scored is not None:
        return assessment.of(scored), []
    reranked = rerank(collection, options)
    return assessment.of(reranked), [*collection.notes, *reranked.notes]
