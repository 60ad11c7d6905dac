"""`dearlite models get|path|remove`: the file of a registered model on this machine."""

from __future__ import annotations

import os
import sys

import click

from dearlite.errors import DearliteError, UsageError, need
from dearlite.files.targets import reason_of
from dearlite.installing import pip
from dearlite.models.entries import ModelEntry
from dearlite.models.registry import find_entry, find_model, load_cascades, model_file, unknown_model


@click.command("get")
@click.argument("name", metavar="NAME")
@click.option("--accept-licence", is_flag=True, help="Accept a licence that forbids commercial use.")
@click.option("--force", is_flag=True, help="Fetch or make a file that is on this machine again.")
def get_model(name: str, accept_licence: bool, force: bool) -> None:
    """Fetch the file of a model, or make it by an export with the default options.

    A model that is published as a GGUF is fetched as it is; its bytes are compared with the hash that the Hub lists. Of
    any other the weights are fetched and exported, as `dearlite export NAME` does. Interrupted downloads resume.
    """
    export = need("dearlite.export", extra="export")
    result = export.get(name, accept_licence=accept_licence, force=force, report=_note)
    if result.export is not None:
        for line in need("dearlite.export.command", extra="export").summary(result.export):
            click.echo(line)
        return
    size = f"{result.path}: {result.size_bytes / 1e9:.2f} GB"
    notes = {
        "embedded": ", part of the package",
        "here": ", fetched or made before (--force does it again)",
        "fetched": ", as published",
    }
    click.echo(size + notes[result.how])


def _note(line: str) -> None:
    click.echo(f"dearlite: {line}", err=True)


@click.command("path")
@click.argument("name", metavar="NAME")
def path_model(name: str) -> None:
    """Print the path of the file of a model that is on this machine."""
    click.echo(find_model(name))


@click.command("remove")
@click.argument("name", metavar="NAME")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def remove_model(name: str, yes: bool) -> None:
    """Remove the file of a model from this machine, after a question.

    The download that it was made from stays in the Hub's cache, which `hf cache` shows and clears.
    """
    entry = _entry_of(name)
    path = model_file(entry)
    if entry.embedded is not None:
        raise UsageError(f"{entry.name} is a part of the package: it goes with it ({pip('uninstall dearlite')})")
    if not os.path.isfile(path):
        raise UsageError(f"{entry.name} is not on this machine: there is no {path}")
    size = f"{path.stat().st_size / 1e9:.2f} GB"
    if not yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise UsageError(f"{path} ({size}) is removed after a question, and no terminal answers it: add --yes")
        if not click.confirm(f"Remove {path} ({size})?", err=True):
            click.echo("dearlite: nothing was removed", err=True)
            return
    try:
        path.unlink()
    except OSError as err:
        raise DearliteError(f"cannot remove {path}: {reason_of(err)}") from None
    click.echo(f"removed {path}: {size}; a download in the Hub's cache stays (hf cache)")


def _entry_of(name: str) -> ModelEntry:
    if (cascade := load_cascades().get(name)) is not None:
        models = ", ".join(stage.partition(":")[0] for stage in cascade.stages)
        raise UsageError(f"{name} is a cascade: name one of its models, {models}")
    if (entry := find_entry(name)) is None:
        raise unknown_model(name, files=False)
    return entry
