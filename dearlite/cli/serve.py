"""`dearlite serve`."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import click
from click.core import ParameterSource

from dearlite.checks import whole_number
from dearlite.cli.log import log_to_stderr
from dearlite.cli.options.model import ModelOptions, model_options
from dearlite.cli.options.types import Duration
from dearlite.cli.streams import check_stdout
from dearlite.errors import UsageError, need
from dearlite.models.chain import resolve
from dearlite.models.registry import find_cascade
from dearlite.serve.access import Access, allowed_hosts, allowed_origins, is_loopback, read_keys
from dearlite.serve.limits import Limits

if TYPE_CHECKING:
    from dearlite.models.chain import Chain
    from dearlite.serve.models import Models

_PORT = 8787
_LIMITS = Limits()
_MEBIBYTE = 1024 * 1024


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=_PORT,
    show_default=True,
    help="Port to listen on; 0 takes a free one. The line of JSON on stdout has it.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen on. One that other machines reach needs --api-key-file.",
)
@click.option(
    "--api-key-file",
    metavar="FILE",
    help="File of keys, one a line. A request then needs one of them, as Authorization: Bearer KEY.",
)
@click.option(
    "--also",
    multiple=True,
    metavar="MODEL[,MODEL:DEPTH]",
    help="Serve another model, or cascade of models, under its own name. Repeatable. A request that names no served "
    "model gets the one of -m.",
)
@click.option("--allow-host", multiple=True, metavar="NAME", help="Take requests for this host name too. Repeatable.")
@click.option(
    "--allow-origin",
    multiple=True,
    metavar="SITE",
    help="Let the pages of SITE, such as http://localhost:3000, send requests and read the answers. Repeatable.",
)
@click.option(
    "--max-documents",
    type=int,
    default=_LIMITS.documents,
    show_default=True,
    metavar="N",
    help="Refuse requests with more documents.",
)
@click.option(
    "--max-body",
    type=int,
    default=_LIMITS.body_bytes // _MEBIBYTE,
    show_default=True,
    metavar="MIB",
    help="Refuse larger requests.",
)
@click.option(
    "--max-queue",
    type=int,
    default=_LIMITS.queue,
    show_default=True,
    metavar="N",
    help="Number of requests that run or wait at once; further ones are refused with 429.",
)
@click.option(
    "--max-time",
    type=Duration(),
    default=f"{_LIMITS.seconds:g}s",
    show_default=True,
    metavar="TIME",
    help="Stop a request after TIME and answer 504.",
)
@click.option(
    "--stdio",
    is_flag=True,
    help="Serve on standard input and output in place of HTTP: JSON-RPC 2.0, a message a line. The end of the input "
    "ends the server.",
)
@click.option("--quiet", is_flag=True, help="Write only errors to stderr.")
@model_options(one_call=True)
def command(
    port: int,
    host: str,
    api_key_file: str | None,
    also: tuple[str, ...],
    allow_host: tuple[str, ...],
    allow_origin: tuple[str, ...],
    max_documents: int,
    max_body: int,
    max_queue: int,
    max_time: float,
    stdio: bool,
    quiet: bool,
    model: ModelOptions,
) -> None:
    """Serve the model over HTTP to programs that speak to Cohere, Jina, vLLM, TEI, infinity, llama.cpp or Voyage.

    Endpoints: /rerank, /v1/rerank, /v2/rerank, /score, /v1/models, /info, /health, /metrics, /openapi.json. Only
    programs of this machine reach it, unless --host says otherwise. When it listens, one line of JSON on stdout has its
    port. Ctrl-C or SIGTERM end it when the running requests are answered.
    """
    limits = Limits(
        body_bytes=whole_number("--max-body", max_body) * _MEBIBYTE,
        documents=whole_number("--max-documents", max_documents),
        queue=whole_number("--max-queue", max_queue),
        seconds=max_time,
    )
    if stdio:
        _refuse_options_of_http()
    access = _access(host, api_key_file, allow_host, allow_origin)
    check_stdout()
    if stdio:
        from dearlite.serve.stdio import StdioServer

        _log_to_stderr(quiet=quiet)
        with own_stdout() as sink:
            StdioServer(load_models(model, also), limits, sys.stdin.buffer, sink).run()
        return
    need("starlette", extra="serve")
    need("uvicorn", extra="serve")
    from dearlite.serve.app import create_app
    from dearlite.serve.server import open_socket, run_server

    _log_to_stderr(quiet=quiet)
    with open_socket(host, port) as bound:
        models = load_models(model, also)
        chosen = bound.getsockname()[1]
        url = f"http://{f'[{host}]' if ':' in host else host}:{chosen}"

        def started() -> None:
            click.echo(json.dumps({"port": chosen, "host": host, "url": url}))
            sys.stdout.flush()
            if not quiet:
                names = ", ".join(served.name for served in models.served)
                click.echo(f"dearlite: serving {names} on {url} (Ctrl-C ends it)", err=True)

        run_server(create_app(models, limits=limits, access=access), bound, limits, started)


@contextmanager
def own_stdout() -> Iterator[BinaryIO]:
    """Standard output for messages alone: whatever else writes to it, a C library too, writes to stderr meanwhile."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "wb") as sink:
        os.dup2(2, 1)
        try:
            yield sink
        finally:
            os.dup2(sink.fileno(), 1)


def load_models(model: ModelOptions, also: tuple[str, ...]) -> Models:
    """The model of -m, and those of --also with the same device and threads. All names are resolved before loading."""
    from dearlite.serve.models import Models, serve_model

    chains = [model.chain, *(resolve(text.split(",")) for text in also)]
    names = [_name(chain, text) for chain, text in zip(chains, (None, *also), strict=True)]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"two of the served models are called {repeated}: name each once")
    first = serve_model(chains[0], model.loading.arguments(), name=names[0], listwise=model.listwise, long=model.long)
    loading = {"device": model.loading.device, "threads": model.loading.threads}
    rest = [serve_model(chain, loading, name=name) for chain, name in zip(chains[1:], names[1:], strict=True)]
    return Models((first, *rest))


def _name(chain: Chain, text: str | None) -> str:
    """The name that clients give: that of a cascade in models.toml, otherwise of the stages, "minilm-l12>dear-8b"."""
    if text is not None and find_cascade(text) is not None:
        return text
    return ">".join(stage.name for stage in chain.stages)


def _refuse_options_of_http() -> None:
    """Raises UsageError for an option that has no effect beside --stdio."""
    context = click.get_current_context()
    for name in ("port", "host", "api_key_file", "allow_host", "allow_origin"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} does not go with --stdio, which opens no port: leave one of them out")


def _access(host: str, key_file: str | None, hosts: tuple[str, ...], origins: tuple[str, ...]) -> Access:
    """The access by the options. Raises UsageError for an address that other machines reach without a key."""
    if not host.isascii() or not host.isprintable() or len(host.split()) != 1:
        raise UsageError(f"--host {host!a} is no address: give one, such as 127.0.0.1")
    loopback = is_loopback(host.lower())
    if not loopback and key_file is None:
        raise UsageError(
            f"--host {host} lets other machines in: give --api-key-file FILE with a key, or listen on 127.0.0.1"
        )
    return Access(
        loopback=loopback,
        keys=() if key_file is None else read_keys(key_file),
        hosts=allowed_hosts(hosts),
        origins=allowed_origins(origins),
    )


def _log_to_stderr(*, quiet: bool) -> None:
    """Writes the server's log to stderr: errors always, and refused requests, which clients often swallow."""
    form = "dearlite: %(asctime)s %(levelname)s %(message)s"
    log_to_stderr(("dearlite", "uvicorn"), form=form, level=logging.ERROR if quiet else logging.WARNING)
