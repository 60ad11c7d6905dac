"""`dearlite completion SHELL`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from dearlite.cli.completion_scripts import MARK, SHELLS
from dearlite.errors import UsageError
from dearlite.files.targets import reason_of


@click.command()
@click.argument("shell", type=click.Choice(list(SHELLS)), required=False, metavar="[SHELL]")
@click.option("--install", is_flag=True, help="Write the script to a file that new shells load, and say where.")
def command(shell: str | None, install: bool) -> None:
    """Print the script that completes commands, options, models and files in SHELL: bash, zsh, fish or powershell.

    Without SHELL it is that of the variable SHELL. For the running shell alone: eval "$(dearlite completion bash)".
    """
    name = shell or _current_shell()
    if not install:
        click.echo(SHELLS[name].script, nl=False)
        return
    for line in install_script(name):
        click.echo(line)


def install_script(name: str) -> list[str]:
    """Writes the script of a shell, and its line in the shell's startup file; gives a line about each. Repeatable."""
    shell, folders = SHELLS[name], _folders()
    file = Path(shell.file.format(**folders))
    _write(file, shell.script)
    notes = [f"{name}: the script is {file}"]
    if shell.startup:
        startup, line = Path(shell.startup.format(**folders)), f"{shell.line.format(file=file)}  {MARK}"
        text = startup.read_text(encoding="utf-8", errors="surrogateescape") if os.path.isfile(startup) else ""
        if line in text.splitlines():
            notes.append(f"{startup} loads it already")
        else:
            others = [other for other in text.splitlines() if not other.endswith(MARK)]  # of another place
            _write(startup, "\n".join([*others, line]) + "\n")
            notes.append(f"{startup} loads it now, by its last line")
    return [*notes, "It works in new shells."]


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", errors="surrogateescape")
    except OSError as err:
        raise UsageError(
            f"cannot write {file}: {reason_of(err)}; print the script instead, without --install"
        ) from None


def _folders() -> dict[str, Path]:
    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    documents = home / "Documents" / "PowerShell" if os.name == "nt" else config / "powershell"
    return {
        "home": home,
        "config": config,
        "data": Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share"),
        "zdotdir": Path(os.environ.get("ZDOTDIR") or home),
        "profile": documents / "Microsoft.PowerShell_profile.ps1",
    }


def _current_shell() -> str:
    name = Path(os.environ.get("SHELL", "powershell" if os.name == "nt" else "")).stem
    if name not in SHELLS:
        known = ", ".join(SHELLS)
        raise UsageError(f"no script for the shell {name!r}: name one of {known} (dearlite completion bash)")
    return name
