"""Evaluations as tables: for a terminal, for a notebook, as JSON, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import sys
from html import escape

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dearlite.files.json_text import json_text
from dearlite.offline.evaluation.evaluation import Evaluation, System
from dearlite.render.snippet import plain

SIGNIFICANT = 0.05
_PIPE_WIDTH = 200
_LATEX = {char: f"\\{char}" for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def print_evaluation(evaluation: Evaluation) -> None:
    """Prints the table, the comparison with each other run, and the notes to stdout."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    console.print(evaluation_table(evaluation))
    for line in difference_lines(evaluation):
        console.print(Text(plain(line)), soft_wrap=not sys.stdout.isatty())
    for note in evaluation.notes:
        console.print(Text(f"note: {plain(note)}", style="dim"), soft_wrap=not sys.stdout.isatty())


def evaluation_table(evaluation: Evaluation) -> Table:
    """A rich Table with one row per system; the best measured value of each column is bold."""
    queries = len(evaluation.qrels)
    table = Table(
        box=SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
        title=Text(f"{plain(evaluation.name)}, {queries} queries"),
    )
    table.add_column("", overflow="fold")
    for measure in evaluation.measures:
        table.add_column(measure, justify="right", no_wrap=True)
    timed = any(system.seconds_per_query is not None for system in evaluation.systems)
    if timed:
        table.add_column("s/query", justify="right", no_wrap=True)
        table.add_column("tokens/s", justify="right", no_wrap=True)
    best = best_values(evaluation)
    for system in evaluation.systems:
        name = Text(plain(system.name), style="bold" if system.name == evaluation.subject else "")
        if system.role == "published":
            name.append(" (published)")
        cells = [_cell(evaluation, system, measure, best) for measure in evaluation.measures]
        if timed:
            cells += [Text(number(system.seconds_per_query, 3)), Text(number(system.tokens_per_second, 0))]
        table.add_row(name, *cells, style="dim" if system.role == "published" else "")
    return table


def difference_lines(evaluation: Evaluation) -> list[str]:
    """One line per comparison of the subject with another run in the main measure, and a line on the test."""
    measure, lines = evaluation.main_measure, []
    for baseline in dict.fromkeys(comparison.baseline for comparison in evaluation.comparisons):
        result = evaluation.comparison(baseline, measure)
        assert result is not None
        lines.append(
            f"{measure} of {evaluation.subject} against {baseline}: {result.delta:+.4f} "
            f"(better {result.wins}, same {result.ties}, worse {result.losses} queries; p {p_text(result.p_holm)})"
        )
    if lines:
        lines.append(
            "† p below 0.05; p: paired randomisation test over queries, two-sided, Holm's correction over the runs"
        )
    return lines


def best_values(evaluation: Evaluation) -> dict[str, float]:
    """The highest mean of each measure, without published rows."""
    runs = [system.name for system in evaluation.systems if system.run is not None]
    return {measure: max(evaluation.values[name][measure] for name in runs) for measure in evaluation.measures}


def is_significant(evaluation: Evaluation, system: System, measure: str) -> bool:
    """True if the subject differs significantly from `system` in `measure` (p below SIGNIFICANT)."""
    comparison = evaluation.comparison(system.name, measure)
    return comparison is not None and comparison.p_holm < SIGNIFICANT


def p_text(p: float) -> str:
    """A p value with three decimals, or "<0.001"."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def number(value: float | None, digits: int) -> str:
    """`value` with `digits` decimals; None gives an empty string."""
    return "" if value is None else f"{value:.{digits}f}"


def evaluation_json(evaluation: Evaluation) -> str:
    """The evaluation without its texts (`Evaluation.to_dict`), as JSON."""
    return json_text(evaluation.to_dict(), indent=2) + "\n"


def evaluation_csv(evaluation: Evaluation) -> str:
    """The table as CSV, one row per system."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["system", "role", *evaluation.measures, "seconds_per_query", "tokens_per_second"])
    for system in evaluation.systems:
        values = [evaluation.values[system.name].get(measure) for measure in evaluation.measures]
        cells = [number(value, 6) for value in values]
        rows.writerow(
            [system.name, system.role, *cells, number(system.seconds_per_query, 6), number(system.tokens_per_second, 1)]
        )
    return out.getvalue()


def per_query_csv(evaluation: Evaluation) -> str:
    """CSV with one row per query and one column per system and measure."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    columns = [(system, measure) for system in evaluation.per_query for measure in evaluation.measures]
    rows.writerow(["query_id", *(f"{system} {measure}" for system, measure in columns)])
    for query_id in evaluation.qrels:
        values = (evaluation.per_query[system][measure][query_id] for system, measure in columns)
        rows.writerow([query_id, *(f"{value:.6f}" for value in values)])
    return out.getvalue()


def evaluation_latex(evaluation: Evaluation) -> str:
    """A booktabs table in percent, counts as they are; the best values are bold.

    A dagger: the subject differs significantly.
    """
    best = best_values(evaluation)
    lines = [
        f"% {evaluation.name}: {len(evaluation.qrels)} queries".replace("\n", " "),
        rf"\begin{{tabular}}{{l{'r' * len(evaluation.measures)}}}",
        r"\toprule",
        " & ".join(["System", *map(_latex, evaluation.measures)]) + r" \\",
        r"\midrule",
    ]
    for system in evaluation.systems:
        cells = [_latex(plain(system.name))]
        for measure in evaluation.measures:
            value = evaluation.values[system.name].get(measure)
            is_count = measure.startswith("Num")  # NumRet, NumRel, NumQ
            text = "--" if value is None else f"{value:.0f}" if is_count else f"{100 * value:.2f}"
            if system.run is not None and value == best[measure]:
                text = rf"\textbf{{{text}}}"
            cells.append(text + (r"$^\dagger$" if is_significant(evaluation, system, measure) else ""))
        lines.append(" & ".join(cells) + r" \\")
    lines += [
        r"\bottomrule",
        r"\end{tabular}",
        rf"% $\dagger$: differs from {evaluation.subject}, p < {SIGNIFICANT}, "
        "paired randomisation test, Holm's correction".replace("\n", " "),
    ]
    return "\n".join(lines) + "\n"


def evaluation_html(evaluation: Evaluation) -> str:
    """The table as HTML, for a notebook."""
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *evaluation.measures))
    rows = []
    for system in evaluation.systems:
        values = [evaluation.values[system.name].get(measure) for measure in evaluation.measures]
        cells = "".join(f"<td>{number(value, 4)}</td>" for value in values)
        rows.append(f"<tr><th style='text-align:left'>{escape(plain(system.name))}</th>{cells}</tr>")
    lines = "".join(f"<div>{escape(plain(line))}</div>" for line in (*difference_lines(evaluation), *evaluation.notes))
    caption = f"<caption>{escape(plain(evaluation.name))}, {len(evaluation.qrels)} queries</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table><small>{lines}</small>"


def _cell(evaluation: Evaluation, system: System, measure: str, best: dict[str, float]) -> Text:
    value = evaluation.values[system.name].get(measure)
    bold = system.run is not None and value is not None and value == best[measure]
    text = Text(number(value, 4), style="bold" if bold else "")
    return text.append("†" if is_significant(evaluation, system, measure) else " ")


def _latex(text: str) -> str:
    return "".join(_LATEX.get(char, char) for char in text)
