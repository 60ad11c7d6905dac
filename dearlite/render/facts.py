"""Names with values, and small tables, on stdout: for `models`, `doctor`, `bench` and suites."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dearlite.render.snippet import plain

_PIPE_WIDTH = 200  # if stdout is not a terminal; wide enough that lines are not wrapped, for grep


def print_facts(facts: Mapping[str, object], *, title: str = "") -> None:
    """Prints one line per name and value; a value that is a mapping is indented under its name."""
    console = _console()
    if title and facts:
        console.print(Text(title, style="bold"))
    _print_level(console, facts, "  " if title else "")


def print_rows(head: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Collection[str] = ()) -> None:
    """Prints a table with a header line; the columns `numbers` are aligned to the right."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
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
            console.print(Text.assemble((f"{indent}{name:<{width}}", "cyan"), "  ", plain(str(value))), soft_wrap=True)


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
