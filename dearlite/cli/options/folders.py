"""Options of files and folders as DOCS: the files to read, and how their passages are shown.

`folder_options` adds them to a command, which gets them as one argument, `places`: FolderOptions.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import wraps
from typing import Any

import click

from dearlite.checks import whole_number
from dearlite.cli.options.fields import Reading
from dearlite.cli.options.types import Command, Option, with_options
from dearlite.errors import UsageError
from dearlite.fields import USUAL

LIMIT_MB = 10.0  # that of `read_folder`, which is not imported for a file of records

_OPTIONS: tuple[Option, ...] = (
    click.option(
        "--include",
        multiple=True,
        metavar="GLOB",
        help="Read only files whose name fits GLOB, such as '*.md'; with a slash, whose path below the folder does. "
        "Repeatable.",
    ),
    click.option(
        "--exclude", multiple=True, metavar="GLOB", help="Leave out files and folders that fit GLOB. Repeatable."
    ),
    click.option(
        "--limit-mb",
        type=float,
        metavar="MB",
        help=f"Leave out files over MB megabytes. [default: {LIMIT_MB:g}]",
    ),
    click.option(
        "--group",
        type=click.Choice(["file"]),
        help="Show the best passage of each file, and the places of its others. -k then counts files.",
    ),
    click.option(
        "--context", type=int, metavar="N", help="Show each passage with its lines, and N lines before and after it."
    ),
    click.option("-l", "--files", "names_only", is_flag=True, help="Write only the names of the files, best first."),
    click.option("-0", "--null", is_flag=True, help="With -l: end each name with a NUL byte instead of a line end."),
)


@dataclass(frozen=True, slots=True)
class FolderOptions:
    """The options, with their values for none: no globs, the default limit, no group, no context, no names."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limit_mb: float | None = None
    group: str | None = None
    context: int | None = None
    names_only: bool = False
    null: bool = False

    @property
    def by_file(self) -> bool:
        """True if a file comes once in the result."""
        return self.names_only or self.group is not None

    def own_output(self, form: str) -> bool:
        """True if the result is no ranking in the format `form`, but names, or passages with their lines."""
        return self.names_only or (self.context is not None and form == "table")

    def check(
        self, reading: Reading, *, used: bool, several: bool, named: str | None, form: str, output: str | None
    ) -> None:
        """Raises UsageError for options without effect, and for those that exclude each other.

        `used` is True if DOCS are files and folders, `several` with --queries; `form` is the format of the result,
        `named` that of --format.
        """
        if not used:
            names = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
            if names:
                name = _NAMES.get(names[0], f"--{names[0].replace('_', '-')}")
                raise UsageError(f"{name} is for files and folders of texts, and DOCS holds records: leave it out")
            return
        if reading != Reading(USUAL, None):
            raise UsageError("fields and --delimiter are for records, and DOCS are texts: leave them out")
        if self.context is not None:
            whole_number("--context", self.context, 0)
        if self.null and not self.names_only:
            raise UsageError("-0 ends the names that -l writes: add -l, or leave it out")
        if self.names_only and several:
            raise UsageError(
                "-l writes the files of one ranking, and --queries makes several: give -q, or leave out -l"
            )
        if self.names_only and (self.context is not None or named is not None or output is not None):
            other = "--context" if self.context is not None else "--format" if named is not None else "-o"
            raise UsageError(f"-l writes the names of files alone, to standard output: leave out {other}")
        if self.context is not None and form not in ("table", "jsonl", "json"):
            raise UsageError(f"the format {form} has no place for --context: leave it out, or give --format jsonl")


_NAMES = {"names_only": "-l", "null": "-0"}


def folder_options(command: Command) -> Command:
    """`command` with the options; it is called with them as one argument, `places`: FolderOptions."""

    @wraps(command)
    def callback(
        *,
        include: tuple[str, ...],
        exclude: tuple[str, ...],
        limit_mb: float | None,
        group: str | None,
        context: int | None,
        names_only: bool,
        null: bool,
        **others: Any,
    ) -> None:
        options = FolderOptions(include, exclude, limit_mb, group, context, names_only, null)
        command(places=options, **others)

    return with_options(callback, _OPTIONS)
