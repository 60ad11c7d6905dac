"""`dearlite`: a dispatcher that imports a command only when it is called, and turns errors into one line."""

from __future__ import annotations

import shlex
import sys
import warnings
from typing import Any

import click

from dearlite.errors import DearliteError, need
from dearlite.version import __version__

# name -> (module that holds `command`, its line in --help, the extra it needs)
COMMANDS = {
    "rerank": ("dearlite.cli.rerank", "Order documents by how well they answer a query.", "cpu"),
    "batch": ("dearlite.cli.batch", "Rerank a run of many queries, and go on after a stop.", "cpu"),
    "eval": ("dearlite.cli.eval", "Measure a reranked run beside the first stage and others.", "eval"),
    "models": ("dearlite.cli.models", "List, show and verify the models that have a name.", "cpu"),
    "export": ("dearlite.export.command", "Make a model file from a Hugging Face folder, a LoRA, or a name.", "export"),
    "train": ("dearlite.export.train.command", "Train a scorer or a listwise model, and mine its data.", "export"),
    "bench": ("dearlite.cli.bench", "Measure a model here: load, documents a second, memory.", "cpu"),
    "doctor": ("dearlite.cli.doctor", "Say what is installed, which device runs, and where files are.", "cpu"),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called: `--help` reads the table above only."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, extra = COMMANDS[cmd_name]
        command: click.Command = need(module, extra=extra).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line, _) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`dearlite COMMAND -h` explains a command. Try: dearlite rerank -q 'your question' docs.jsonl",
)
@click.version_option(__version__, "-V", "--version", prog_name="dearlite")
def main() -> None:
    """State-of-the-art document reranking on a laptop."""


def run(args: list[str] | None = None) -> None:
    """The console script: `main`, with exit codes 0 done, 1 failure, 2 usage, 130 interrupted."""
    warnings.showwarning = _one_line_warning
    try:
        typed = shlex.join(["dearlite", *(sys.argv[1:] if args is None else args)])  # a report says how it was made
        code = main.main(args, prog_name="dearlite", standalone_mode=False, obj=typed)
    except DearliteError as err:
        _fail(str(err), err.exit_code)
    except click.ClickException as err:
        where = err.ctx.command_path if isinstance(err, click.UsageError) and err.ctx else ""
        _fail(err.format_message() + (f" (see {where} -h)" if where else ""), err.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    click.echo(f"dearlite: {message}", err=True)
    sys.exit(code)


def _one_line_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"dearlite: {message}", err=True)


if __name__ == "__main__":
    run()
