"""One rule for all commands: an option of one value is given once; only an option that may be repeated adds up."""

from __future__ import annotations

from collections import Counter

import click

from dearlite.cli.options.changing import with_change
from dearlite.cli.options.spoken import name_of


def refusing_repeats(command: click.Command) -> click.Command:
    """`command`, which with its subcommands raises UsageError for an option of one value that is given twice.

    click itself would take the last value and drop the others. A flag without an opposite may be repeated.
    """
    return with_change(command, "refuses_repeats", _refuse)


def _refuse(command: click.Command) -> None:
    parse = command.parse_args

    def parse_args(ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            _check(command, ctx, args)
        return parse(ctx, args)

    command.parse_args = parse_args  # type: ignore[method-assign]


def _check(command: click.Command, ctx: click.Context, args: list[str]) -> None:
    _, _, order = command.make_parser(ctx).parse_args(args=list(args))
    counts = Counter(param for param in order if isinstance(param, click.Option))
    for option, count in counts.items():
        once = not (option.multiple or option.count or (option.is_flag and not option.secondary_opts))
        if count > 1 and once and not option.is_eager:
            raise click.UsageError(f"{name_of(option)} is given {count} times, and takes one value: give it once", ctx)
