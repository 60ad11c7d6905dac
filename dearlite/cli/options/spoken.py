"""Names of options in messages of the library, which knows its arguments by their Python names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from dearlite.cli.options.changing import with_change
from dearlite.errors import UsageError


def naming_options(command: click.Command) -> click.Command:
    """`command`, which with its subcommands says "--sort-k is 0: ..." where the library says "sort_k is 0: ..."."""
    return with_change(command, "names_options", _name_options)


def _name_options(command: click.Command) -> None:
    invoke = command.invoke

    def named_invoke(ctx: click.Context) -> Any:
        with options_named({param.name: name_of(param) for param in command.params if param.name is not None}):
            return invoke(ctx)

    command.invoke = named_invoke  # type: ignore[method-assign]


@contextmanager
def options_named(names: Mapping[str, str]) -> Iterator[None]:
    """A block whose UsageErrors name the option `names[argument]` where they begin with "argument is "."""
    try:
        yield
    except UsageError as err:
        name, verb, rest = str(err).partition(" is ")
        if verb and name in names:
            err.args = (f"{names[name]}{verb}{rest}",)
        raise


def name_of(param: click.Parameter) -> str:
    """The longest name of an option, as messages use it. Example: "--model" of -m."""
    return max(param.opts, key=len)
