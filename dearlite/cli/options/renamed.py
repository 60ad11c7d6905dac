"""Former names of options: they work for one version, are in no help text, and give a line with the new name."""

from __future__ import annotations

import click

from dearlite.cli.options.changing import with_change
from dearlite.renamed import FORMER, note_of, option_of

_OPTIONS = {option_of(former): option_of(name) for former, name in FORMER.items()}


def accepting_former_names(command: click.Command) -> click.Command:
    """`command`, which with its subcommands takes the former names of its options."""
    return with_change(command, "accepts_former_names", _accept)


def _accept(command: click.Command) -> None:
    parse = command.parse_args

    def parse_args(ctx: click.Context, args: list[str]) -> list[str]:
        return parse(ctx, _renamed(command, args))

    command.parse_args = parse_args  # type: ignore[method-assign]


def _renamed(command: click.Command, args: list[str]) -> list[str]:
    """`args` with the names of today. The value of an option and what follows `--` are left as they are."""
    if not any(arg.partition("=")[0] in _OPTIONS for arg in args):
        return args
    options = [param for param in command.params if isinstance(param, click.Option)]
    known = {name for option in options for name in option.opts}
    with_value = {name for option in options if not (option.is_flag or option.count) for name in option.opts}
    renamed, before = list[str](), ""
    for position, arg in enumerate(args):
        if arg == "--" and before not in with_value:
            return renamed + args[position:]
        name, equals, value = arg.partition("=")
        current = _OPTIONS.get(name)
        if current in known and name not in known and before not in with_value:
            click.echo(f"dearlite: {note_of(name, current)}", err=True)
            name = current
        before = f"{name}{equals}{value}"
        renamed.append(before)
    return renamed
