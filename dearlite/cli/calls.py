"""The calls of `rerank`: one loaded model ranks the documents for each query, with progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from dearlite.cli.estimate import Estimate
from dearlite.cli.query import Query, texts_of
from dearlite.cli.screen import interrupt_as_event
from dearlite.documents import CheckedDocuments, Document, as_documents
from dearlite.errors import Cancelled, InvalidInput, UsageError, counted
from dearlite.fusion import rank_queries
from dearlite.options import Call, Fuse, Listwise
from dearlite.progress import Progress
from dearlite.ranking import Ranking
from dearlite.render.bar import DocumentProgress

if TYPE_CHECKING:
    from threading import Event

    from dearlite.cli.options.model import ModelOptions
    from dearlite.files.readers import DocumentFile
    from dearlite.reranker import Reranker


@dataclass(frozen=True, slots=True)
class Results:
    """The rankings by query id. If `interrupted`, Ctrl-C ended the last one early, and those after it are missing."""

    rankings: dict[str, Ranking]
    interrupted: bool = False


def rank_all(
    queries: Mapping[str, Query],
    records: DocumentFile,
    model: ModelOptions,
    call: Call,
    *,
    fuse: Fuse | None,
    skip_bad: bool,
    quiet: bool,
    screen: bool,
) -> Results:
    """The rankings of the documents for each query.

    On a `screen`, a table on a terminal, Ctrl-C ends with the results so far. Another interruption exits with 130.
    """
    from dearlite.reranker import Reranker

    listwise = _streamed(call.listwise) if sys.stderr.isatty() and not quiet else call.listwise
    streams = listwise is not None and listwise.on_text is not None
    texts = sum(len(texts_of(query)) for query in queries.values())
    count, rankings = len(records.documents) * texts, dict[str, Ranking]()
    with DocumentProgress(count, visible=not quiet and not streams) as progress:
        try:
            reranker = Reranker.load(model.chain, **model.loading.arguments())
            _check_queries(reranker, queries)
            # checked once, and for all queries the same object, whose index by words is kept
            documents = CheckedDocuments(as_documents(_without_empty(records, reranker, skip_bad)))
            with interrupt_as_event(active=screen) as stop:
                for query_id, query in queries.items():
                    if streams:
                        click.echo(f"reasoning of {reranker.model}:", err=True)
                    update = _counted_from(len(rankings), len(queries), progress)
                    if len(queries) == 1 and not quiet and call.budget_s is None:
                        update = Estimate(update, model)
                    options = replace(call, listwise=listwise, progress=update, cancel=stop)
                    rankings[query_id] = rank_queries(reranker, query, documents, options, fuse)
                    if streams:
                        click.echo(err=True)
                    if _is_set(stop):
                        break
        except (KeyboardInterrupt, Cancelled) as err:
            progress.close()
            if isinstance(err, Cancelled) and err.partial is not None:
                rankings[query_id] = err.partial
            if not rankings or isinstance(err, KeyboardInterrupt):
                noun = "document" if texts == 1 else "pair"
                message = f"interrupted: {progress.done} of {counted(count, noun)} scored, none written"
                click.echo(f"dearlite: {message}", err=True)
                sys.exit(130)
            return Results(rankings, True)
    return Results(rankings, len(rankings) < len(queries) or (_is_set(stop) and not rankings[query_id].complete))


def _is_set(stop: Event | None) -> bool:
    return stop is not None and stop.is_set()


def _counted_from(number: int, queries: int, progress: DocumentProgress) -> Progress:
    """The progress callback of query `number`, from 0, of several; a cascade counts the work of all its stages."""
    return lambda done, total: progress.update(number * total + done, queries * total)


def _check_queries(reranker: Reranker, queries: Mapping[str, Query]) -> None:
    """Raises UsageError for a query of which the model's tokenizer makes no token."""
    from dearlite.jobs import no_tokens

    texts = [(query_id, text) for query_id, query in queries.items() for text in texts_of(query)]
    for query_id, text in texts:
        if reranker.empty_documents([Document(text)]):
            name = "the query" if len(texts) == 1 else f"query {query_id if len(queries) > 1 else ascii(text)}"
            raise UsageError(f"{name} {no_tokens(Document(text), reranker.model)}: give at least one word")


def _without_empty(records: DocumentFile, reranker: Reranker, skip_bad: bool) -> list[Document]:
    """The documents of which the model's tokenizer makes a token. The others are refused, or skipped and reported."""
    from dearlite.jobs import name_of, no_tokens

    documents = records.documents
    empty = set(reranker.empty_documents(documents))
    reasons = [f"{name_of(documents[i], i)} {no_tokens(documents[i], reranker.model)}" for i in sorted(empty)]
    if reasons and not skip_bad:
        raise InvalidInput(f"{reasons[0]}: remove it, or give it a text (or go on without it: --skip-bad)")
    if len(empty) == len(documents):
        raise InvalidInput(f"{reasons[0]}; no document is left to rank")
    records.skipped += reasons
    return [document for index, document in enumerate(documents) if index not in empty]


def _streamed(listwise: Listwise | None) -> Listwise | None:
    """`listwise` with the model's reasoning written to stderr as it comes, in a mode that reasons."""
    from dearlite.listwise.forms import writes_reasons

    if listwise is None or not writes_reasons(listwise.mode, listwise.prompt):
        return listwise
    return replace(listwise, on_text=_write_text)


def _write_text(text: str) -> None:
    """Writes a model's text to stderr. Control characters become spaces: they could change the terminal."""
    sys.stderr.write("".join(char if char.isprintable() or char == "\n" else " " for char in text))
    sys.stderr.flush()
