"""What `batch` and `eval` take alike: the files of a collection, the model, and where results are kept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from dearlite.cli.options.cascade import cascade_options, long_of
from dearlite.cli.options.listwise import listwise_of, listwise_options, loading_of
from dearlite.errors import DiskFull, UsageError
from dearlite.files.writing import check_output
from dearlite.machine import DEVICES
from dearlite.models.chain import resolve
from dearlite.models.registry import DEFAULT_MODEL
from dearlite.offline.collection.collection import Collection, Source
from dearlite.offline.run import rerank_run as running
from dearlite.offline.run.results import RerankedRun
from dearlite.options import Call
from dearlite.render.bar import DocumentProgress

Command = TypeVar("Command", bound=Callable[..., Any])
model_option = click.option(
    "-m",
    "--model",
    multiple=True,
    default=(DEFAULT_MODEL,),
    show_default=True,
    metavar="NAME|FILE[:DEPTH]",
    help="What ranks. Given again, the next stage of a cascade, which gets the best DEPTH. [a later one: 30]",
)
_FILES = (
    click.argument("source", required=False, metavar="[SOURCE]"),
    click.option("--queries", metavar="FILE", help="Queries: JSON Lines (_id, text) or TSV."),
    click.option(
        "--corpus", multiple=True, metavar="FILE", help="Documents, as rerank takes them, or a folder of shards."
    ),
    click.option("--run", "run_file", metavar="FILE", help="The first stage: a TREC run."),
    click.option("--depth", type=int, default=100, show_default=True, metavar="N", help="Documents of each query."),
    click.option("--skip-bad", is_flag=True, help="Leave out what is missing or cannot be used, and count it."),
)
_MODEL = (
    model_option,
    click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="Where it runs."),
    click.option("--threads", type=int, metavar="N", help="How many work on a CPU. [default: one a core]"),
    click.option("-o", "--output", metavar="FILE", help="The TREC run, written whole or not at all."),
    click.option("--jsonl", metavar="FILE", help="Also a row a pair: texts, reasons, the scores of both stages."),
    click.option("--journal", metavar="FILE", help="Where results are kept at once. [default: OUTPUT.journal]"),
    click.option("--no-journal", is_flag=True, help="Keep none: a run that is stopped begins anew."),
    click.option("--cache", metavar="FILE", help="A SQLite file of pairs' scores, shared by runs."),
    click.option("--together", type=int, default=8, show_default=True, help="Listwise: queries decoded side by side."),
    click.option("--quiet", is_flag=True, help="Say nothing on stderr but errors."),
)


def run_options(command: Command) -> Command:
    """`command` with the options; the functions below take them out of what it is called with."""
    command = cascade_options(listwise_options(command))
    for option in reversed((*_FILES, *_MODEL)):
        command = option(command)
    return command


def collection_of(given: dict[str, Any], qrels: str | None = None) -> Collection:
    """The collection that was named. Raises UsageError where nothing was."""
    if given["source"] is None and given["run_file"] is None:
        raise UsageError("nothing to rerank: give a collection's folder, or --queries, --corpus and --run")
    return Source(
        source=given["source"],
        queries=given["queries"],
        corpus=given["corpus"],
        run=given["run_file"],
        qrels=qrels,
        depth=given["depth"],
        skip_bad=given["skip_bad"],
    ).open()


def check(given: dict[str, Any], *outputs: str | None) -> None:
    """Tells a wrong name before a large file is read."""
    resolve(given["model"]).check(long=long_of(given))
    for path in (given["output"], given["jsonl"], *outputs):
        check_output(path)
    if given["journal"] and given["no_journal"]:
        raise UsageError("--journal and --no-journal exclude each other: leave one out")
    if given["together"] < 1:
        raise UsageError(f"--together is {given['together']}: it must be 1 or more")


def rerank(collection: Collection, given: dict[str, Any]) -> RerankedRun:
    """The collection reranked as the options say, with progress and what there is to say on stderr."""
    quiet = given["quiet"]
    options = dict(given)
    listwise, loading = listwise_of(options, stream=False), loading_of(options)
    loading["adaptive"] = given["adaptive"]
    if not quiet:
        _say(collection.notes)
    with DocumentProgress(collection.pairs, visible=not quiet) as progress:
        told = False

        def update(done: int, total: int) -> None:
            nonlocal told
            if not told and done and not quiet:
                click.echo(f"dearlite: going on: {done} of {total} pairs are scored already", err=True)
            told = True
            progress.update(done, total)

        try:
            found = running.rerank_run(
                collection,
                given["model"],
                files=running.RunFiles(
                    output=given["output"],
                    jsonl=given["jsonl"],
                    journal=False if given["no_journal"] else given["journal"] or True,
                    cache=given["cache"],
                ),
                call=Call(listwise=listwise, long=long_of(given), together=given["together"], progress=update),
                loading={name: value for name, value in loading.items() if value is not None}
                | {"device": given["device"], "threads": given["threads"]},
            )
        except (KeyboardInterrupt, DiskFull) as err:
            progress.close()
            kept = "lost, there is no journal" if given["no_journal"] else "kept: the same command goes on from them"
            click.echo(f"dearlite: {progress.done} of {collection.pairs} pairs are {kept}", err=True)
            if isinstance(err, DiskFull):
                raise
            sys.exit(130)
    if not quiet:
        _say(found.notes)
    return found


def _say(notes: Sequence[str]) -> None:
    for note in notes:
        click.echo(f"dearlite: {note}", err=True)
