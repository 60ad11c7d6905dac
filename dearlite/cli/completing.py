"""The candidates of a completion: names of commands, options and models, values of options, or files.

A shell calls `dearlite` with _DEARLITE_COMPLETE set. Nothing is written to stderr then, whatever goes wrong: it would
stand in the prompt.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    split_arg_string,
)

_MODEL_OPTIONS = ("-m", "--model", "--also")
_MODEL_COMMANDS = (
    *(("models", name) for name in ("show", "verify", "get", "path", "remove", "calibrate")),
    ("export",),
)
_MEASURE_OPTIONS = ("--measures",)
# Options whose values are files, beside those whose name for the value in --help says so.
_FILE_WORDS = ("FILE", "FOLDER", "CONFIG.toml", "ROOT")
_MEASURES = (
    *(f"{name}@{depth}" for name in ("nDCG", "R", "P", "RR", "AP", "Success") for depth in (1, 5, 10, 20, 100)),
    *("AP", "RR", "Bpref", "Rprec", "SetP", "SetR", "Judged@10"),
)

Candidates = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


class Bash(BashComplete):
    """Completion in bash by our script."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The complete words after the program's name, and the one that is being typed, without an option's `=`.

        bash ends words at `=` and `:` too: `--format=js` comes as three.
        """
        words = split_arg_string(os.environ["COMP_WORDS"])
        count = int(os.environ["COMP_CWORD"])
        *arguments, incomplete = _joined([*words[1:count], words[count] if count < len(words) else ""])
        return arguments, incomplete


def _joined(words: Sequence[str]) -> list[str]:
    """`words` as they were typed, but `--name=value` as two."""
    joined: list[str] = []
    is_open = False  # the word before ends with a break
    for word in words:
        is_break = bool(word) and not word.strip("=:")
        if is_break and joined and joined[-1].startswith("--") and word == "=":
            joined.append("")
        elif joined and (is_break or is_open):
            joined[-1] += word
        else:
            joined.append(word)
        is_open = is_break
    return joined


class Zsh(ZshComplete):
    """Completion in zsh by our script."""

    def format_completion(self, item: CompletionItem) -> str:
        """One line per candidate: its kind and its value."""
        return f"{item.type},{item.value}"


class Fish(FishComplete):
    """Completion in fish by our script."""

    def format_completion(self, item: CompletionItem) -> str:
        """One line per candidate: its kind and its value."""
        return f"{item.type},{item.value}"


class PowerShell(ShellComplete):
    """Completion in PowerShell. The script is in `dearlite.cli.completion_scripts`."""

    name = "powershell"
    source_template = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The complete words after the program's name, and the one that is being typed.

        A backslash is part of a path there, and no escape.
        """
        lexer = shlex.shlex(os.environ.get("COMP_WORDS", ""), posix=True, punctuation_chars=False)
        lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", "`"
        words: list[str] = []
        try:
            words.extend(lexer)
        except ValueError:  # a quotation mark that is still open
            words.append(lexer.token)
        arguments, incomplete = words[1:], os.environ.get("COMP_INCOMPLETE", "").strip("'\"")
        if incomplete and arguments and arguments[-1] == incomplete:
            arguments.pop()
        return arguments, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """One line per candidate: its kind and its value."""
        return f"{item.type},{item.value}"


_CLASSES = {cls.name: cls for cls in (Bash, Zsh, Fish, PowerShell)}


def complete(root: click.Command, variable: str) -> int:
    """Prints the candidates for the shell that called, and gives the exit code. Errors give none."""
    shell, _, instruction = os.environ[variable].partition("_")
    cls = _CLASSES.get(shell)
    if cls is None or instruction != "complete":
        return 1
    completion = cls(root, {}, "dearlite", variable)
    arguments, incomplete = completion.get_completion_args()
    option = ""
    if incomplete.startswith("--") and "=" in incomplete:
        option, _, incomplete = incomplete.partition("=")
        arguments, option = [*arguments, option], f"{option}="
    if wants_model(arguments, incomplete):  # known without the command, whose import takes long
        items = model_names(incomplete)
    else:
        items = completion.get_completions(arguments, incomplete)
    for item in items:
        item.value = f"{option}{item.value}"
        click.echo(completion.format_completion(item))
    return 0


def wants_model(arguments: Sequence[str], incomplete: str) -> bool:
    """True if the next word is the name or the file of a model."""
    if arguments and arguments[-1] in _MODEL_OPTIONS:
        return True
    return tuple(arguments) in _MODEL_COMMANDS and not incomplete.startswith("-")


def model_names(incomplete: str) -> list[CompletionItem]:
    """The names of models and cascades that begin so, and files."""
    from dearlite.models.registry import load_cascades, load_registry

    names = [*load_registry(), *load_cascades()]
    return [*(CompletionItem(name) for name in names if name.startswith(incomplete)), *_files(incomplete)]


def with_candidates(command: click.Command) -> click.Command:
    """`command`, whose parameters, with those of its subcommands, know their candidates."""
    for param in command.params:
        if param._custom_shell_complete is None and (candidates := _candidates_of(param)) is not None:
            param._custom_shell_complete = candidates
    if isinstance(command, click.Group):
        for subcommand in command.commands.values():
            with_candidates(subcommand)
    return command


def _candidates_of(param: click.Parameter) -> Candidates | None:
    if isinstance(param, click.Option) and set(param.opts) & set(_MODEL_OPTIONS):
        return lambda ctx, param, incomplete: model_names(incomplete)
    if isinstance(param, click.Option) and set(param.opts) & set(_MEASURE_OPTIONS):
        return lambda ctx, param, incomplete: [
            CompletionItem(name) for name in _MEASURES if name.lower().startswith(incomplete.lower())
        ]
    shown = param.metavar or ""
    is_file = isinstance(param, click.Argument) or any(word in shown for word in _FILE_WORDS)
    if is_file and not isinstance(param.type, click.Choice):
        return lambda ctx, param, incomplete: _files(incomplete)
    return None


def _files(incomplete: str) -> list[CompletionItem]:
    """The request that the shell completes the name of a file itself."""
    return [CompletionItem(incomplete, type="file")]
