"""Changes of a command of click that its subcommands get too, each once."""

from __future__ import annotations

from collections.abc import Callable

import click


def with_change(command: click.Command, name: str, change: Callable[[click.Command], None]) -> click.Command:
    """`command` after `change`, which its subcommands get likewise; the attribute `name` marks those that have it."""
    if not getattr(command, name, False):
        change(command)
        setattr(command, name, True)
        for subcommand in command.commands.values() if isinstance(command, click.Group) else ():
            with_change(subcommand, name, change)
    return command
