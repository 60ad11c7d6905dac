"""The `dearlite` command: imports a subcommand when it is called, and prints an error as one line."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from contextlib import redirect_stderr
from typing import Any, NoReturn

import click

from dearlite.cli.ending import ending_by_signal
from dearlite.cli.help import refuse_unknown, with_help
from dearlite.cli.options.renamed import accepting_former_names
from dearlite.cli.options.repeats import refusing_repeats
from dearlite.cli.options.spoken import naming_options
from dearlite.cli.streams import StreamFailed, guarded_streams
from dearlite.errors import DearliteError, load_failure, need, printable
from dearlite.files.targets import reason_of
from dearlite.version import __version__

# name -> (module that defines `command`, line in --help, required extra)
COMMANDS: dict[str, tuple[str, str, str | None]] = {
    "rerank": ("dearlite.cli.rerank", "Order documents by how well they answer a query.", "cpu"),
    "batch": ("dearlite.cli.batch", "Rerank a run of many queries; resume it after a stop.", "cpu"),
    "eval": ("dearlite.cli.eval", "Measure a reranked run beside its first stage and other runs.", "eval"),
    "serve": ("dearlite.cli.serve", "Serve a model over HTTP, in the forms that clients know.", "serve"),
    "mcp": ("dearlite.cli.mcp", "Offer a model to an AI assistant or editor, as a tool.", "mcp"),
    "models": ("dearlite.cli.models", "List, show, choose, fetch, verify and calibrate models.", "cpu"),
    "export": (
        "dearlite.export.command",
        "Make a model file from a Hugging Face folder, a LoRA or a name.",
        "export",
    ),
    "train": (
        "dearlite.export.train.command",
        "Train a pointwise or listwise model; mine its training data.",
        "export",
    ),
    "bench": ("dearlite.cli.bench", "Measure load time, documents per second and memory here.", "cpu"),
    "doctor": ("dearlite.cli.doctor", "Report installed packages, working devices, places of files.", "cpu"),
    "help": ("dearlite.cli.help", "Show the help page of a command.", None),
    "completion": ("dearlite.cli.completion", "Print or install the completion of a shell.", None),
    "version": ("dearlite.cli.version", "Show the version of dearlite.", None),
}


# Errors of Python and NumPy that are the machine's: class, a part of the message, what is printed.
_OF_THE_MACHINE = (
    (MemoryError, "", "memory ran out: close other programs, raise its limit (ulimit -v), or give fewer documents"),
    (
        RuntimeError,
        "can't start new thread",
        "no further thread can be started: close other programs, or raise the limits (ulimit -u, ulimit -v)",
    ),
    (
        RuntimeError,
        "NumPy was built with baseline optimizations",
        "this CPU is too old for numpy: dearlite needs one with SSE4.2, which x86 CPUs have since 2008",
    ),
)
VARIABLE = "_DEARLITE_COMPLETE"  # a shell sets it, to get candidates

# A group without a command, whose help is an error for click since 8.2.
_NO_ARGUMENTS: tuple[type[click.UsageError], ...] = tuple(
    filter(None, [getattr(click.exceptions, "NoArgsIsHelpError", None)])
)


class LazyGroup(click.Group):
    """A group that imports a command when it is called; `--help` reads only the table COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, extra = COMMANDS[cmd_name]
        command: click.Command = need(module, extra=extra).command
        if VARIABLE in os.environ:
            from dearlite.cli.completing import with_candidates

            with_candidates(command)
        return with_help(naming_options(accepting_former_names(refusing_repeats(command))), cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        refuse_unknown(self, ctx, args)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line, _) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Try: dearlite rerank -q 'your question' docs.jsonl, and dearlite rerank -h",
)
@click.version_option(__version__, "-V", "--version", prog_name="dearlite")
@click.pass_context
def main(ctx: click.Context) -> None:
    """State-of-the-art document reranking on a laptop."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run(args: list[str] | None = None) -> None:
    """The console script. Exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted."""
    if VARIABLE in os.environ:
        _complete()
    code = 0
    with ending_by_signal(), guarded_streams(), warnings.catch_warnings():
        warnings.showwarning = _one_line_warning
        try:
            code = _exit_code(args)
            sys.stdout.flush()
        except StreamFailed as err:
            if not err.closed:  # as of `| head`
                code = _fail(str(err), 1)
    sys.exit(code)


def _complete() -> NoReturn:
    """Prints candidates for the shell that called, and exits. Nothing else may reach the prompt, no error either."""
    from dearlite.cli.completing import complete

    try:
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
            code = complete(main, VARIABLE)
    except Exception:
        code = 1
    sys.exit(code)


def _exit_code(args: list[str] | None) -> int:
    """The exit code of the command, whose error is printed. Raises StreamFailed if stdout cannot be written."""
    try:
        command_line = shlex.join(["dearlite", *(sys.argv[1:] if args is None else args)])  # a report shows it
        code = main.main(args, prog_name="dearlite", standalone_mode=False, obj=command_line, windows_expand_args=False)
    except SystemExit as err:
        code = err.code
    except _NO_ARGUMENTS as err:
        click.echo(err.ctx.get_help() if err.ctx else err.message)
        code = 0
    except (Exception, KeyboardInterrupt) as err:
        failure = None if isinstance(err, StreamFailed) else _failure(err)
        if failure is None:
            raise
        return _fail(*failure)
    return code if isinstance(code, int) else 0


def _failure(err: BaseException) -> tuple[str, int] | None:
    """The message and the exit code of an error that a user can meet; None for another, which is a fault of ours."""
    if isinstance(err, (ImportError, OSError)) and getattr(err, "errno", None) is None:
        err = load_failure(err) or err
    if isinstance(err, DearliteError):
        return str(err), err.exit_code
    if isinstance(err, click.ClickException):
        path = err.ctx.command_path if isinstance(err, click.UsageError) and err.ctx else ""
        return err.format_message() + (f" (see {path} -h)" if path else ""), err.exit_code
    if isinstance(err, (click.Abort, KeyboardInterrupt)):
        return "interrupted", 130
    for kind, sign, message in _OF_THE_MACHINE:
        if isinstance(err, kind) and sign in str(err):
            return message, 1
    if isinstance(err, OSError):
        return (f"{err.filename}: {reason_of(err)}" if err.filename else reason_of(err)), 1
    return None


def _fail(message: str, code: int) -> int:
    """`code`, after the message is printed on one line."""
    click.echo(f"dearlite: {printable(message)}", err=True)
    return code


def _one_line_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"dearlite: {printable(str(message))}", err=True)


if __name__ == "__main__":
    run()
