"""Names with values, and small tables, on stdout: for `models`, `doctor`, `bench` and suites."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dearlite.render.console import console_of
from dearlite.render.snippet import plain

_PIPE_WIDTH = 200  # if stdout is not a terminal; wide enough that lines are not wrapped, for grep
_LEAST_ROOM = 20  # columns beside a name; with fewer the terminal breaks the lines


def print_facts(facts: Mapping[str, object], *, title: str = "") -> None:
    """Prints one line per name and value; a value that is a mapping is indented under its name."""
    console = _console()
    if title and facts:
        console.print(Text(title, style="bold"))
    _print_level(console, facts, "  " if title else "")


def print_rows(head: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Collection[str] = ()) -> None:
    """Prints a table with a header line; the columns `numbers` are aligned to the right."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in head:
        table.add_column(name, overflow="fold", justify="right" if name in numbers else "left")
    for row in rows:
        table.add_row(*(Text(plain(str(cell))) for cell in row))
    _console().print(table)


def _print_level(console: Console, facts: Mapping[str, object], indent: str) -> None:
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        if isinstance(value, Mapping):
            console.print(Text(f"{indent}{name}", style="cyan"))
            _print_level(console, value, indent + "  ")
        else:
            text, room = plain(str(value)), console.width - len(indent) - width - 2
            if sys.stdout.isatty() and room >= _LEAST_ROOM:  # the terminal itself would break words
                lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
                text = f"\n{'':{len(indent) + width + 2}}".join(lines)
            console.print(Text.assemble((f"{indent}{name:<{width}}", "cyan"), "  ", text), soft_wrap=True)


def _console() -> Console:
    return console_of(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
