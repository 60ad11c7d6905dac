"""`dearlite eval SOURCE`: a reranked run, measured beside the first stage and other runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import click

from dearlite.cli.options.run import RunOptions, open_source, rerank, run_options
from dearlite.cli.streams import check_stdout, has_stdout
from dearlite.errors import UsageError, need
from dearlite.files.targets import ending_of, leads_to_stdout
from dearlite.files.writing import write_text
from dearlite.offline.evaluation.evaluation import Evaluation
from dearlite.offline.evaluation.measures import TIES
from dearlite.offline.run.results import RerankedRun

_ENDINGS = {
    "--json": ("json",),
    "--csv": ("csv",),
    "--latex": ("tex", "latex", "txt"),
    "--per-query": ("csv",),
    "--report": ("html", "htm"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """The files that an evaluation is written to, "-" for stdout, None for none."""

    json: str | None
    csv: str | None
    latex: str | None
    per_query: str | None
    report: str | None

    def paths(self) -> dict[str, str]:
        """Option -> path of each file that is written."""
        paths = {
            "--json": self.json,
            "--csv": self.csv,
            "--latex": self.latex,
            "--per-query": self.per_query,
            "--report": self.report,
        }
        return {option: path for option, path in paths.items() if path is not None}

    def check_endings(self) -> None:
        """Raises UsageError for a file whose ending is that of another format."""
        for option, path in self.paths().items():
            ending_of(path, _ENDINGS[option], remedy=f", each also .gz, for {option}")


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
@click.option("--latex", metavar="FILE", help="LaTeX file of the table to write, for booktabs; - is stdout.")
@run_options
@click.pass_obj
def command(
    command_line: str | None,
    *,
    options: RunOptions,
    qrels: str | None,
    measures: tuple[str, ...],
    ties: str,
    scored: str | None,
    baselines: tuple[str, ...],
    suite: str | None,
    report: str | None,
    json: str | None,
    csv: str | None,
    per_query: str | None,
    latex: str | None,
) -> None:
    """Rerank a run as batch does, and measure it beside the first stage and other runs.

    The measures are those of trec_eval, computed by ir-measures. Queries that are judged but missing in a run count as
    zero. Every other run is compared query by query; p values are those of a paired randomisation test with Holm's
    correction.
    """
    need("ir_measures", extra="eval")
    reports = Reports(json=json, csv=csv, latex=latex, per_query=per_query, report=report)
    if suite is not None:
        from dearlite.cli.eval_suite import evaluate_suite

        single = {"--qrels": qrels, "--scored": scored, "--baseline": baselines or None}
        named = [*reports.paths(), *(option for option, value in single.items() if value is not None)]
        if refused := [option for option in named if option != "--json"]:
            raise UsageError(f"{refused[0]} is for one collection: give its folder, without --suite")
        evaluate_suite(suite, options, measures=measures, ties=ties, json=json, command=command_line or "")
        return
    runs = [_parse_baseline(text) for text in baselines]
    if scored is not None:
        options.files.refuse_any("--scored")
    reports.check_endings()
    inputs = {"--qrels": qrels, "--scored": scored, "--baseline": [run.path for run in runs]}
    options.check_outputs(reports.paths(), inputs)
    if not reports.paths():
        check_stdout()
    if len({run.name for run in runs}) < len(runs):
        raise UsageError("two baselines have one name: give them names, --baseline NAME=FILE")
    from dearlite.offline.evaluation.assess import EvaluationOptions, prepare
    from dearlite.offline.evaluation.measures import check_measures

    evaluation_options = EvaluationOptions(
        qrels=qrels,
        baselines={run.name: run.path for run in runs},
        seconds={run.name: run.seconds for run in runs if run.seconds is not None},
        measures=check_measures(measures or None),
        ties=ties,
        command=command_line or "",
        skip_bad=options.source.skip_bad,
    )
    collection = open_source(replace(options.source, qrels=qrels))
    assessment = prepare(collection, evaluation_options)
    result = rerank(collection, options) if scored is None else scored
    evaluation = assessment.of(result)
    _write_reports(evaluation, reports)
    if "-" in reports.paths().values() and not options.quiet:  # the table, which has the notes, is not printed
        printed = {*collection.notes, *result.notes} if isinstance(result, RerankedRun) else set()
        for note in evaluation.notes:
            if note not in printed:
                click.echo(f"dearlite: {note}", err=True)


@dataclass(frozen=True, slots=True)
class Baseline:
    """One --baseline: the name and the file of a run, and its time per query if that is given."""

    name: str
    path: str
    seconds: float | None


def _parse_baseline(text: str) -> Baseline:
    """The run that `[NAME=]FILE[@S]` names; the path of an existing file is used unchanged. Raises UsageError."""
    name, path, seconds = Path(text).name, text, None
    if not Path(path).exists():
        head, at, tail = path.rpartition("@")
        if at:
            try:
                path, seconds = head, float(tail)
            except ValueError:
                raise UsageError(f"--baseline {text}: {tail!r} is no number of seconds (NAME=FILE@SECONDS)") from None
            name = Path(path).name
    if not Path(path).exists() and "=" in path:
        name, _, path = path.partition("=")
    if not Path(path).is_file():
        raise UsageError(f"--baseline {text}: no such file {path}")
    return Baseline(name, path, seconds)


def _write_reports(evaluation: Evaluation, reports: Reports) -> None:
    """Writes the files, and the table to stdout if no file is stdout."""
    from dearlite.render import evaluation as render

    if reports.json is not None:
        write_text(reports.json, render.evaluation_json(evaluation), json=True)
    if reports.csv is not None:
        write_text(reports.csv, render.evaluation_csv(evaluation))
    if reports.per_query is not None:
        write_text(reports.per_query, render.per_query_csv(evaluation))
    if reports.latex is not None:
        write_text(reports.latex, render.evaluation_latex(evaluation))
    if reports.report is not None:
        from dearlite.render.report import report_html

        write_text(reports.report, report_html(evaluation))
    if has_stdout() and not any(map(leads_to_stdout, reports.paths().values())):
        render.print_evaluation(evaluation)
