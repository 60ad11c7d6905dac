"""`dearlite mcp`."""

from __future__ import annotations

import logging
import sys

import click

from dearlite.checks import whole_number
from dearlite.cli.log import log_to_stderr
from dearlite.cli.options.model import ModelOptions, model_options
from dearlite.cli.options.types import Duration
from dearlite.cli.serve import load_models, own_stdout
from dearlite.cli.streams import check_stdout
from dearlite.errors import need
from dearlite.serve.limits import Limits

_LIMITS = Limits()


@click.command()
@click.option(
    "--also",
    multiple=True,
    metavar="MODEL[,MODEL:DEPTH]",
    help="Offer another model, or cascade of models, under its own name. Repeatable.",
)
@click.option(
    "--max-documents",
    type=int,
    default=_LIMITS.documents,
    show_default=True,
    metavar="N",
    help="Refuse calls with more documents.",
)
@click.option(
    "--max-time",
    type=Duration(),
    default=f"{_LIMITS.seconds:g}s",
    show_default=True,
    metavar="TIME",
    help="Stop a call after TIME.",
)
@model_options(one_call=True)
def command(also: tuple[str, ...], max_documents: int, max_time: float, model: ModelOptions) -> None:
    """Offer the model to an AI assistant or editor as a tool, by the Model Context Protocol.

    The client starts this command and speaks to it over standard input and output: the tool rerank orders documents,
    and the resource dearlite://models lists the models. It ends when its input ends.
    """
    limits = Limits(documents=whole_number("--max-documents", max_documents), seconds=max_time)
    check_stdout()
    need("mcp", extra="mcp")
    from dearlite.serve.mcp import run_mcp

    log_to_stderr(("dearlite",), form="dearlite: %(message)s", level=logging.WARNING)
    with own_stdout():  # the protocol's alone, from the start
        models = load_models(model, also)
    if sys.stdin.isatty():
        click.echo("dearlite: speaks the Model Context Protocol here: a client starts it (Ctrl-D ends it)", err=True)
    run_mcp(models, limits)
