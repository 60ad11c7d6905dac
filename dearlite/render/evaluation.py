"""Evaluations as tables: for a terminal, for a notebook, as JSON, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from dearlite.errors import counted
from dearlite.files.json_text import json_text
from dearlite.offline.evaluation.comparisons import TESTS
from dearlite.offline.evaluation.evaluation import Evaluation, System
from dearlite.render.console import console_of
from dearlite.render.snippet import plain

SIGNIFICANT = 0.05
_PIPE_WIDTH = 200
_TEXT_WIDTH = 80
_NAME_WIDTH = 24  # of names that are not folded, on the narrowest terminal
_LATEX = {char: f"\\{char}" for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def print_evaluation(evaluation: Evaluation) -> None:
    """Prints the table, the comparisons, and the notes to stdout."""
    console = console_of(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    _print(evaluation, console, soft_wrap=not sys.stdout.isatty())


def evaluation_text(evaluation: Evaluation) -> str:
    """The table, the comparisons and the notes as plain text of at most 80 columns, for `print`."""
    console = console_of(io.StringIO(), width=_TEXT_WIDTH, color_system=None, no_color=True)
    _print(evaluation, console, soft_wrap=False)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().split("\n")).rstrip()


def _print(evaluation: Evaluation, console: Console, *, soft_wrap: bool) -> None:
    console.print(evaluation_tables(evaluation))
    for line in difference_lines(evaluation):
        console.print(Text(plain(line)), soft_wrap=soft_wrap)
    for note in evaluation.notes:
        console.print(Text(f"note: {plain(note)}", style="dim"), soft_wrap=soft_wrap)


@dataclass(frozen=True, slots=True)
class EvaluationTables:
    """The table of an evaluation for rich: on a narrow terminal, several below each other, each with all names."""

    evaluation: Evaluation

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The title and the tables, as wide as the console at most."""
        evaluation = self.evaluation
        yield Text(f"{plain(evaluation.name)}, {_queries(len(evaluation.qrels))}", style="italic")
        columns = _columns(evaluation)
        names = [_name(evaluation, system) for system in evaluation.systems]
        width = min(max(name.cell_len for name in names), max(_NAME_WIDTH, options.max_width // 3))
        for part in _parts(columns, options.max_width - width - 2):
            table = Table(box=SIMPLE_HEAD, pad_edge=False)
            table.add_column("", overflow="fold", width=width)
            for column in part:
                table.add_column(column.head, justify="right", no_wrap=True)
            for row, system in enumerate(evaluation.systems):
                style = "dim" if system.role == "published" else ""
                table.add_row(names[row], *(column.cells[row] for column in part), style=style)
            yield table


def evaluation_tables(evaluation: Evaluation) -> EvaluationTables:
    """One row per system; the best measured value of each column is bold."""
    return EvaluationTables(evaluation)


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table: its head, and a cell for each system."""

    head: str
    cells: Sequence[Text]

    @property
    def width(self) -> int:
        """The width with the space between two columns."""
        return max(len(self.head), *(cell.cell_len for cell in self.cells)) + 3


def _columns(evaluation: Evaluation) -> list[_Column]:
    best, systems = best_values(evaluation), evaluation.systems
    columns = [
        _Column(measure, [_cell(evaluation, system, measure, best) for system in systems])
        for measure in evaluation.measures
    ]
    if any(system.seconds_per_query is not None for system in systems):
        columns.append(_Column("s/query", [Text(number(system.seconds_per_query, 3)) for system in systems]))
    if any(system.tokens_per_second is not None for system in systems):
        columns.append(_Column("tokens/s", [Text(number(system.tokens_per_second, 0)) for system in systems]))
    return columns


def _parts(columns: Sequence[_Column], room: int) -> list[list[_Column]]:
    """The columns in groups that fit into `room`; each has one column at least."""
    parts: list[list[_Column]] = [[]]
    for column in columns:
        if parts[-1] and sum(other.width for other in parts[-1]) + column.width > room:
            parts.append([])
        parts[-1].append(column)
    return parts


def _name(evaluation: Evaluation, system: System) -> Text:
    name = Text(plain(system.name), style="bold" if system.name == evaluation.subject else "")
    return name.append(" (published)") if system.role == "published" else name


def difference_lines(evaluation: Evaluation) -> list[str]:
    """One line per comparison and interval in the main measure, and a line on the test."""
    measure, lines = evaluation.main_measure, []
    for system, intervals in evaluation.intervals.items():
        if measure in intervals:
            lines.append(f"{measure} of {system}: {evaluation.values[system][measure]:.4f}{_ends(intervals[measure])}")
    for result in evaluation.comparisons:
        if result.measure == measure:
            lines.append(
                f"{measure} of {result.subject} against {result.baseline}: {result.delta:+.4f}"
                f"{_ends(result.interval, signed=True)} (better {result.wins}, same {result.ties}, worse "
                f"{_queries(result.losses)}; p {p_text(result.p_holm)})"
            )
    if evaluation.comparisons:
        dagger = f" against {evaluation.subject}" if evaluation.statistics.all_pairs else ""
        lines.append(f"† p below 0.05{dagger}; {evaluation.statistics.sentence()}")
    return lines


def _ends(interval: tuple[float, float] | None, *, signed: bool = False) -> str:
    """The ends of an interval in brackets; nothing for None."""
    if interval is None:
        return ""
    return " [{:+.4f}, {:+.4f}]".format(*interval) if signed else " [{:.4f}, {:.4f}]".format(*interval)


def _queries(count: int) -> str:
    """A number of queries in words. Example: 1 -> "1 query"."""
    return f"{count} {'query' if count == 1 else 'queries'}"


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
    rows = csv.writer(_Lines(out), lineterminator="\r\n")
    with_intervals = [name for name in evaluation.measures if name in next(iter(evaluation.intervals.values()), {})]
    ends = [f"{name} {end}" for name in with_intervals for end in ("low", "high")]
    rows.writerow(["system", "role", *evaluation.measures, *ends, "seconds_per_query", "tokens_per_second"])
    for system in evaluation.systems:
        values = [evaluation.values[system.name].get(measure) for measure in evaluation.measures]
        cells = [number(value, 6) for value in values]
        for name in with_intervals:
            cells += [number(end, 6) for end in evaluation.intervals.get(system.name, {}).get(name, (None, None))]
        rows.writerow(
            [system.name, system.role, *cells, number(system.seconds_per_query, 6), number(system.tokens_per_second, 1)]
        )
    return out.getvalue()


class _Lines:
    """Rows that end with a line feed, of a writer that ends them with both: it quotes cells with either of the two."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, row: str) -> int:
        """Writes one row."""
        return self._out.write(row.removesuffix("\r\n") + "\n")


def per_query_csv(evaluation: Evaluation) -> str:
    """CSV with one row per query and one column per system and measure."""
    out = io.StringIO()
    rows = csv.writer(_Lines(out), lineterminator="\r\n")
    columns = [(system, measure) for system in evaluation.per_query for measure in evaluation.measures]
    rows.writerow(["query_id", *(f"{system} {measure}" for system, measure in columns)])
    for query_id in evaluation.qrels:
        values = (evaluation.per_query[system][measure][query_id] for system, measure in columns)
        rows.writerow([query_id, *(f"{value:.6f}" for value in values)])
    return out.getvalue()


def per_query_long_csv(evaluation: Evaluation) -> str:
    """CSV with one row per run, measure and query: qid, measure, value, run."""
    out = io.StringIO()
    rows = csv.writer(_Lines(out), lineterminator="\r\n")
    rows.writerow(["qid", "measure", "value", "run"])
    for system, measures in evaluation.per_query.items():
        for measure, values in measures.items():
            rows.writerows([query_id, measure, f"{value:.6f}", system] for query_id, value in values.items())
    return out.getvalue()


def evaluation_latex(evaluation: Evaluation) -> str:
    """A booktabs table in percent, counts as they are; the best values are bold.

    A dagger: the subject differs significantly.
    """
    best = best_values(evaluation)
    lines = [
        f"% {evaluation.name}: {counted(len(evaluation.qrels), 'query')}".replace("\n", " "),
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
        f"{TESTS[evaluation.statistics.test]}, Holm's correction".replace("\n", " "),
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
    caption = f"<caption>{escape(plain(evaluation.name))}, {counted(len(evaluation.qrels), 'query')}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table><small>{lines}</small>"


def _cell(evaluation: Evaluation, system: System, measure: str, best: dict[str, float]) -> Text:
    value = evaluation.values[system.name].get(measure)
    bold = system.run is not None and value is not None and value == best[measure]
    text = Text(number(value, 4), style="bold" if bold else "")
    return text.append("†" if is_significant(evaluation, system, measure) else " ")


def _latex(text: str) -> str:
    return "".join(_LATEX.get(char, char) for char in text)
