"""Help pages: `dearlite help COMMAND`, sections of options, examples, and the nearest name of a misspelt command."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

from dearlite.cli.help_pages import EXAMPLES, LEAST, SECTIONS

_SECTION_OF = {option: section for section, options in SECTIONS.items() for option in options}
_OTHERS = "Other options"


def _names_of(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The commands that begin so, for a completion of the first word."""
    root = ctx.find_root()
    names = root.command.list_commands(root) if isinstance(root.command, click.Group) else []
    return [name for name in names if name.startswith(incomplete) and not ctx.params.get("names")]


@click.command()
@click.argument("names", nargs=-1, metavar="[COMMAND]...", shell_complete=_names_of)
@click.pass_context
def command(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Show the help page of a command, as COMMAND --help does."""
    root = ctx.find_root()
    page, arguments = root, list(names)
    while arguments:
        if not isinstance(page.command, click.Group):
            raise click.UsageError(f"{page.command_path} has no command {arguments[0]!r}", root)
        name, subcommand, arguments = page.command.resolve_command(page, arguments)
        assert subcommand is not None
        page = click.Context(subcommand, info_name=name, parent=page)
    click.echo(page.get_help())


def with_help(command: click.Command, path: str) -> click.Command:
    """`command`, whose help page has the examples and the sections of the command `path`; its subcommands likewise."""
    if getattr(command, "has_help", False):
        return command

    def format_options(ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_examples(path, formatter)
        _write_options(command, ctx, formatter)
        if isinstance(command, click.Group):
            command.format_commands(ctx, formatter)

    command.format_options = format_options  # type: ignore[method-assign]
    command.has_help = True  # type: ignore[attr-defined]
    if isinstance(command, click.Group):
        resolve = command.resolve_command

        def resolve_command(ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
            refuse_unknown(command, ctx, args)
            return resolve(ctx, args)

        command.resolve_command = resolve_command  # type: ignore[method-assign]
        for name, subcommand in command.commands.items():
            with_help(subcommand, f"{path} {name}")
    return command


def _write_examples(path: str, formatter: click.HelpFormatter) -> None:
    if examples := EXAMPLES.get(path):
        with formatter.section("Examples" if len(examples) > 1 else "Example"):
            for line in examples:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def _write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Writes the options by section, or in one list for a command with few of them."""
    options = [param for param in command.get_params(ctx) if isinstance(param, click.Option)]
    records = [(option, record) for option in options if (record := option.get_help_record(ctx)) is not None]
    sections: dict[str, list[tuple[str, str]]] = {name: [] for name in (*SECTIONS, _OTHERS)}
    for option, record in sorted(records, key=lambda pair: _place(pair[0])):
        sections[_section(option)].append(record)
    if len(records) < LEAST:
        sections = {"Options": [record for _, record in records]}
    for name, lines in sections.items():
        if lines:
            with formatter.section(name):
                formatter.write_dl(lines)


def _section(option: click.Option) -> str:
    return next(filter(None, map(_SECTION_OF.get, option.opts)), _OTHERS)


def _place(option: click.Option) -> int:
    """The position of an option in its section; options of no section keep their order."""
    return next((place for place, name in enumerate(_SECTION_OF) if name in option.opts), len(_SECTION_OF))


def refuse_unknown(group: click.Group, ctx: click.Context, args: Sequence[str]) -> None:
    """Raises UsageError, with the nearest name, if the first of `args` is no command of `group`."""
    names = group.list_commands(ctx)
    if not args or args[0] in names or ctx.resilient_parsing or args[0].startswith("-"):
        return
    from difflib import get_close_matches

    name = args[0]
    near = get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    if near:
        remedy = f"did you mean {near[0]}?"
    elif name and os.path.exists(name) and "rerank" in names:
        remedy = f"to rank documents: dearlite rerank {name} ..."
    else:
        remedy = f"it is one of {', '.join(names)}"
    raise click.UsageError(f"no command {name!r}: {remedy}", ctx)
