"""Options that `batch` and `eval` share: the files of a collection, the model, and the files that keep the results.

`run_options` adds them to a command, which gets them checked, as one RunOptions.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import click

from dearlite.checks import whole_number
from dearlite.cli.options.fields import Reading, field_options
from dearlite.cli.options.model import ModelOptions, model_options
from dearlite.cli.options.types import Command, Option, with_options
from dearlite.errors import DiskFull, UsageError, printable
from dearlite.offline.collection.collection import Collection
from dearlite.offline.collection.first_stage import split_chain
from dearlite.offline.collection.irds import is_dataset
from dearlite.offline.collection.source import Source
from dearlite.offline.run.rerank_run import rerank_run
from dearlite.offline.run.results import RerankedRun
from dearlite.offline.run.run_files import RunFiles, input_files
from dearlite.options import Call
from dearlite.progress import Progress
from dearlite.render.bar import DocumentProgress

_FILES: tuple[Option, ...] = (
    click.argument("sources", nargs=-1, metavar="[SOURCE...]"),
    click.option("--queries", metavar="FILE", help="Queries: JSON Lines with _id and text, or TSV."),
    click.option(
        "--corpus",
        multiple=True,
        metavar="FILE",
        help="Documents, in a format that rerank reads, or a folder of shards. May be repeated.",
    ),
    click.option("--run", metavar="FILE", help="TREC run of the first stage."),
    click.option(
        "--depth", type=int, default=100, show_default=True, metavar="N", help="Rerank the best N documents per query."
    ),
    click.option(
        "--skip-bad", is_flag=True, help="Leave out records that are missing or unusable, and report their number."
    ),
    click.option("-o", "--output", metavar="FILE", help="TREC run to write. A failure leaves no incomplete file."),
    click.option(
        "--jsonl",
        metavar="FILE",
        help="JSON Lines file to write: one row per pair with texts, reasons and the scores of both stages.",
    ),
    click.option(
        "--journal",
        metavar="FILE",
        help="File that keeps each result at once; the same command resumes from it. [default: OUTPUT.journal]",
    ),
    click.option("--no-journal", is_flag=True, help="Write no journal: a run that is stopped cannot be resumed."),
    click.option("--cache", metavar="FILE", help="SQLite file of pair scores that several runs share."),
    click.option(
        "--batch-size",
        type=int,
        default=8,
        show_default=True,
        metavar="N",
        help="Listwise: number of queries that are decoded side by side.",
    ),
    click.option("--quiet", is_flag=True, help="Write only errors to stderr."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of `batch` and `eval`. Raises UsageError for values that exclude each other; no file is read."""

    model: ModelOptions
    source: Source
    sources: tuple[str, ...]
    files: RunFiles
    batch_size: int
    quiet: bool

    def __post_init__(self) -> None:
        if self.source.depth is not None:
            whole_number("--depth", self.source.depth)
        whole_number("--batch-size", self.batch_size)
        if self.files.cache is None:
            return
        chain = self.model.chain
        if chain.cascade or chain.stages[0].kind in ("listwise", "attention"):
            kind = "a cascade" if chain.cascade else "a listwise model"
            if not chain.cascade and chain.stages[0].kind == "attention":
                kind = "an attention reranker"
            raise UsageError(f"{self.model.name} is {kind}: a cache of scores goes with a pointwise model")
        if self.model.long is not None:
            raise UsageError("a cache holds scores of whole pairs, and long documents are read in passages: drop one")

    def check_outputs(self, others: Mapping[str, str | None], inputs: Mapping[str, Any]) -> None:
        """Raises UsageError if an output cannot be written, or is an input or another output.

        `others` are further outputs, and `inputs` further inputs, by option.
        """
        self.files.check(input_files(self.source, self.model_files() | dict(inputs)), others)

    def model_files(self) -> dict[str, Any]:
        """Option -> the files of the model and of its adapter."""
        return {
            "--model": [stage.path for stage in self.model.chain.stages if stage.path is not None],
            "--adapter": self.model.loading.adapter,
        }


def run_options(command: Command) -> Command:
    """`command` with the options; it is called with them as one argument, `options`: RunOptions."""

    @wraps(command)
    def callback(
        *,
        model: ModelOptions,
        reading: Reading,
        sources: tuple[str, ...],
        queries: str | None,
        corpus: tuple[str, ...],
        run: str | None,
        depth: int,
        skip_bad: bool,
        output: str | None,
        jsonl: str | None,
        journal: str | None,
        no_journal: bool,
        cache: str | None,
        batch_size: int,
        quiet: bool,
        **others: Any,
    ) -> None:
        if quiet:
            warnings.simplefilter("ignore")
        if journal and no_journal:
            raise UsageError("--journal and --no-journal exclude each other: leave one out")
        first, chain = split_chain(model.chain, model.loading.language)
        if first is not None:
            model = replace(model, chain=chain, loading=replace(model.loading, language=None))
        of_documents = _are_documents(sources, queries=queries, run=run, corpus=corpus)
        options = RunOptions(
            model=model,
            source=Source(
                source=None if of_documents else next(iter(sources), None),
                queries=queries,
                corpus=sources if of_documents else corpus,
                run=run,
                depth=depth,
                skip_bad=skip_bad,
                fields=reading.fields,
                delimiter=reading.delimiter,
                first=first,
            ),
            files=RunFiles(output=output, jsonl=jsonl, journal=False if no_journal else journal or True, cache=cache),
            sources=sources,
            batch_size=batch_size,
            quiet=quiet,
        )
        command(options=options, **others)

    return with_options(field_options(model_options()(callback)), _FILES)


def _are_documents(sources: Sequence[str], *, queries: str | None, run: str | None, corpus: Sequence[str]) -> bool:
    """True if the arguments are files of documents, all of which are ranked for every query of `queries`."""
    if not sources or queries is None or run is not None or corpus:
        return False
    return not any(is_dataset(name) or os.path.isdir(name) for name in sources)


def open_source(options: RunOptions) -> Collection:
    """The collection of the options. Raises UsageError if neither a folder, a run nor documents were named."""
    source = options.source
    if source.source is None and source.run is None and not (source.queries and source.corpus):
        raise UsageError(
            "nothing to rerank: give a collection's folder, or --queries, --corpus and --run; or --queries and files "
            "of documents, which are ranked for every query"
        )
    if source.source is not None and len(options.sources) > 1:
        raise UsageError(
            f"{len(options.sources)} sources are given, and one collection is reranked: files of documents go with "
            "--queries, without --run"
        )
    return source.open()


def rerank(collection: Collection, options: RunOptions) -> RerankedRun:
    """`collection` reranked, with progress and notes on stderr. An interruption exits with 130."""
    if not options.quiet:
        _print_notes(collection.notes)
    with DocumentProgress(collection.pairs, visible=not options.quiet) as progress:
        try:
            reranked = rerank_run(
                collection,
                options.model.chain,
                files=options.files,
                call=Call(
                    listwise=options.model.listwise,
                    long=options.model.long,
                    batch_size=options.batch_size,
                    progress=resume_notice(progress, "pairs are already scored", quiet=options.quiet),
                ),
                loading=options.model.loading.arguments(),
                skip_bad=options.source.skip_bad,
            )
        except (KeyboardInterrupt, DiskFull) as err:
            progress.close()
            kept = "lost: there is no journal" if options.files.journal is False else "kept: run the same command again"
            click.echo(f"dearlite: {progress.done} of {collection.pairs} pairs are {kept}", err=True)
            if isinstance(err, DiskFull):
                raise
            sys.exit(130)
    if not options.quiet:
        _print_notes(reranked.notes)
    return reranked


def resume_notice(progress: DocumentProgress, message: str, *, quiet: bool) -> Progress:
    """The callback of `progress` that first reports work of an earlier call: "resuming: 3 of 5 `message`"."""
    first = True

    def update(done: int, total: int) -> None:
        nonlocal first
        if first and done and not quiet:
            click.echo(f"dearlite: resuming: {done} of {total} {message}", err=True)
        first = False
        progress.update(done, total)

    return update


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        click.echo(f"dearlite: {printable(note)}", err=True)
