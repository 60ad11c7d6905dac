"""Writes the help text of every command between the markers of docs/cli.md.

    python docs/generate_cli.py

A marker is `<!-- help: COMMAND -->`; the text up to the next `<!-- end -->` is replaced. tests/docs holds the page to
the commands as they are.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click.testing import CliRunner

from dearlite.cli.main import main

PAGE = Path(__file__).with_name("cli.md")
WIDTH = 78  # of the text on a terminal of 80 columns
_BLOCK = re.compile(r"(<!-- help:(?P<command>[a-z ]*)-->\n).*?(<!-- end -->)", re.DOTALL)


def commands(group: click.Group = main, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of each command, groups before their members. Example: (), ("rerank",), ("models", "list")."""
    yield path
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


def help_text(path: tuple[str, ...]) -> str:
    """The output of `dearlite PATH --help` with lines of WIDTH characters."""
    result = CliRunner().invoke(main, [*path, "--help"], prog_name="dearlite", terminal_width=WIDTH)
    if result.exit_code:
        raise RuntimeError(f"dearlite {' '.join(path)} --help ends with {result.exit_code}: {result.output}")
    return result.output


def rewritten(page: str) -> str:
    """`page` with the current help text in every block."""

    def block(match: re.Match[str]) -> str:
        path = tuple(match["command"].split())
        typed = " ".join(["dearlite", *path, "--help"])
        return f"{match[1]}```text\n$ {typed}\n{help_text(path)}```\n{match[3]}"

    return _BLOCK.sub(block, page)


def documented(page: str) -> list[tuple[str, ...]]:
    """The commands that `page` has a block for, in its order."""
    return [tuple(match["command"].split()) for match in _BLOCK.finditer(page)]


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    missing = set(commands()) - set(documented(text))
    if missing:
        sys.exit(f"docs/cli.md has no block for {', '.join(' '.join(path) for path in sorted(missing))}: add one")
    PAGE.write_text(rewritten(text), encoding="utf-8")
