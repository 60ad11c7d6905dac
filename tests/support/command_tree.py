"""The commands of the command line, found by walking click's tree, so that a new one is seen by the sweeps."""

from __future__ import annotations

from collections.abc import Iterator

import click

from dearlite.cli.main import main


def commands() -> dict[str, click.Command]:
    """ "train mine" -> its command, for every command that does something."""
    return dict(_walk(main, click.Context(main), ()))


def _walk(command: click.Command, ctx: click.Context, path: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield " ".join(path), command
        return
    for name in command.list_commands(ctx):
        subcommand = command.get_command(ctx, name)
        assert subcommand is not None
        yield from _walk(subcommand, ctx, (*path, name))
