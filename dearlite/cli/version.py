"""`dearlite version`."""

from __future__ import annotations

import click

from dearlite.version import __version__


@click.command()
def command() -> None:
    """Show the version of dearlite, as --version does."""
    click.echo(f"dearlite, version {__version__}")
