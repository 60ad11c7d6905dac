"""`dearlite eval SOURCE`: a reranked run, measured beside the first stage and other runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from dearlite.cli.options import run as run_options
from dearlite.errors import UsageError, need
from dearlite.files.writing import check_output, whole_file
from dearlite.offline.evaluation.measures import TIES

_OUTPUTS = ("json", "csv", "latex", "per_query", "report")


@click.command()
@run_options.run_options
@click.option(
    "--qrels", metavar="FILE", help="The judgements: TREC's four columns, or BEIR's three. [default: SOURCE's]"
)
@click.option("--measures", metavar="NAMES", help="As ir-measures names them: 'nDCG@10 RR(rel=2)@10 AP'.")
@click.option(
    "--ties", type=click.Choice(TIES), default=TIES[0], show_default=True, help="Equal scores: by rank, or by id."
)
@click.option("--scored", metavar="FILE", help="A run that was reranked before: no model is loaded.")
@click.option(
    "--baseline", "baselines", multiple=True, metavar="[NAME=]FILE[@S]", help="Another run, S seconds a query."
)
@click.option(
    "--suite", metavar="NAME", help="A published evaluation (dear): SOURCE holds the folders of its collections."
)
@click.option("--report", metavar="FILE", help="One self-contained HTML page.")
@click.option("--json", metavar="FILE", help="Everything that was measured, - for stdout.")
@click.option("--csv", metavar="FILE", help="The table, a row a system.")
@click.option("--per-query", metavar="FILE", help="CSV: a row a query.")
@click.option("--latex", metavar="FILE", help="The table for a paper (booktabs).")
def command(
    qrels: str | None,
    measures: str | None,
    ties: str,
    scored: str | None,
    baselines: tuple[str, ...],
    suite: str | None,
    **given: Any,
) -> None:
    """Rerank a run, as batch does, and measure it beside the first stage and other runs.

    The measures are trec_eval's, through ir-measures. Queries that the judgements name and a run lacks count as zero.
    Each other run is compared query by query; p values are of a paired randomisation test, with Holm's correction.
    """
    outputs: dict[str, str | None] = {name: given.pop(name) for name in _OUTPUTS}
    need("ir_measures", extra="eval")
    if suite is not None:
        from dearlite.cli.eval_suite import evaluate_suite

        if refused := [f"--{name.replace('_', '-')}" for name, value in outputs.items() if value and name != "json"]:
            raise UsageError(f"{refused[0]} is for one collection: give its folder, without --suite")
        evaluate_suite(suite, given, measures, ties, outputs["json"])
        return
    run_options.check(given)
    for path in outputs.values():
        check_output(path)
    others = dict(map(_baseline, baselines))
    if len(others) < len(baselines):
        raise UsageError("two baselines have one name: give them names, --baseline NAME=FILE")
    from dearlite.offline.evaluation.assess import EvaluationOptions, check_measures, evaluate

    names = check_measures(measures)
    collection = run_options.collection_of(given, qrels)
    result = run_options.rerank(collection, given) if scored is None else scored
    options = EvaluationOptions(
        qrels=qrels,
        baselines={name: path for name, (path, _) in others.items()},
        seconds={name: seconds for name, (_, seconds) in others.items() if seconds is not None},
        measures=names,
        ties=ties,
        command=click.get_current_context().obj or "",
    )
    evaluation = evaluate(collection, result, options)
    from dearlite.render import evaluation as render

    _write(outputs["json"], render.evaluation_json(evaluation) if outputs["json"] else "")
    _write(outputs["csv"], render.evaluation_csv(evaluation) if outputs["csv"] else "")
    _write(outputs["per_query"], render.per_query_csv(evaluation) if outputs["per_query"] else "")
    _write(outputs["latex"], render.evaluation_latex(evaluation) if outputs["latex"] else "")
    if outputs["report"]:
        from dearlite.render.report import report_html

        _write(outputs["report"], report_html(evaluation))
    if "-" not in outputs.values():
        render.print_evaluation(evaluation)


def _baseline(text: str) -> tuple[str, tuple[str, float | None]]:
    """Name, file and seconds a query of one --baseline; a path that exists is taken whole."""
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
    return name, (path, seconds)


def _write(path: str | None, text: str) -> None:
    if path == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
    elif path is not None:
        with whole_file(Path(path)) as stream:
            stream.write(text)
