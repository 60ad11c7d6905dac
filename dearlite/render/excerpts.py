"""Passages of files with the lines around them, as in grep: `12:` for a line of the passage, `11-` for another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TextIO

from rich.console import Console
from rich.text import Text

from dearlite.ranking import Hit, Ranking
from dearlite.render.console import console_of
from dearlite.render.scale import scale_of
from dearlite.render.snippet import plain, query_terms, term_spans
from dearlite.render.table import more_passages, place_text, ranking_title


class _Line(Protocol):
    """A line with its number, its text, and True if it is of the passage."""

    @property
    def number(self) -> int | None: ...
    @property
    def text(self) -> str: ...
    @property
    def inside(self) -> bool: ...


LinesOf = Callable[[Hit], Sequence[_Line]]


def print_excerpts(ranking: Ranking, lines_of: LinesOf, stream: TextIO) -> None:
    """Prints `ranking` to `stream`: for each hit a line with rank, score and place, and its `lines_of`."""
    _print(console_of(stream), ranking, lines_of)


def excerpts_text(ranking: Ranking, lines_of: LinesOf, stream: TextIO) -> str:
    """The text that `print_excerpts` prints, with the escape codes of the terminal that `stream` is."""
    console = console_of(stream)
    with console.capture() as capture:
        _print(console, ranking, lines_of)
    return capture.get()


def _print(console: Console, ranking: Ranking, lines_of: LinesOf) -> None:
    terms, scale = query_terms(ranking.query), scale_of(ranking)
    console.print(ranking_title(ranking))
    console.print()
    for hit in ranking:
        head = Text.assemble((f"{hit.rank}. ", "bold"), place_text(hit), f"  {scale.name} {scale.number(hit)}")
        head.append(f"  {plain(hit.title)}" if hit.title else "", style="dim")
        if hit.more:
            head.append(f"  [{more_passages(hit)}]", style="dim")
        console.print(head, soft_wrap=True)
        for line in lines_of(hit):
            number = "" if line.number is None else f"{line.number}{':' if line.inside else '-'}"
            indent = len(line.text) - len(line.text.lstrip())
            text = " " * min(indent, 40) + plain(line.text)
            row = Text.assemble((f"  {number:>6} ", "green"), (text, "" if line.inside else "dim"))
            for start, end in term_spans(text, terms) if line.inside else ():
                row.stylize("bold yellow", start + 9, end + 9)
            console.print(row, soft_wrap=True)
        console.print()
