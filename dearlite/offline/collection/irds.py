"""Datasets of ir_datasets (extra `ir-datasets`) as collections: queries, documents, judgements, and scored documents.

ir_datasets downloads what it lacks, at the first use of each part. A dataset is named `irds:ID`, with ID as its
catalogue has it (`irds:beir/nfcorpus/test`), or is an object of `ir_datasets.load`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from itertools import islice
from typing import Any

from dearlite.documents import Document, as_document, check_query
from dearlite.errors import DearliteError, FetchError, InvalidInput, UsageError, first_line, need
from dearlite.fields import USUAL, Fields
from dearlite.files.trec import Qrels, Run
from dearlite.offline.collection.memory import as_qrels, as_run

PREFIX = "irds:"
_QUERY_FIELDS = ("text", "query", "title")
_TITLE_FIELDS = ("title", "headline")
_TEXT_FIELDS = ("text", "body")


def is_dataset(value: object) -> bool:
    """True for a name `irds:ID` and for a dataset object of ir_datasets."""
    return value.startswith(PREFIX) if isinstance(value, str) else hasattr(value, "has_qrels")


def dataset_name(source: object) -> str:
    """The name of a dataset, for messages and tables: `irds:ID`."""
    if isinstance(source, str):
        return source
    read_id = getattr(source, "dataset_id", None)
    return f"{PREFIX}{read_id()}" if callable(read_id) else "the dataset"


def dataset_queries(source: object) -> dict[str, str]:
    """Query id -> text. Raises UsageError for a dataset without queries."""
    name, dataset = dataset_name(source), _load(source)
    _check_part(name, dataset, "queries")
    queries: dict[str, str] = {}
    with _downloading(name):
        for query in dataset.queries_iter():
            try:
                queries[query.query_id] = check_query(_first_text(query, _QUERY_FIELDS) or query.default_text())
            except InvalidInput as err:
                raise InvalidInput(f"{name}, query {query.query_id!r}: {err}") from None
    return queries


def dataset_qrels(source: object) -> Qrels:
    """Query id -> document id -> grade. Raises UsageError for a dataset without judgements."""
    name, dataset = dataset_name(source), _load(source)
    _check_part(name, dataset, "qrels")
    with _downloading(name):
        return as_qrels(dataset.qrels_iter(), f"the judgements of {name}")


def dataset_run(source: object) -> Run:
    """The run that the dataset publishes as its scored documents, best first. Raises UsageError if it has none."""
    name, dataset = dataset_name(source), _load(source)
    _check_part(name, dataset, "scoreddocs")
    with _downloading(name):
        return as_run(dataset.scoreddocs_iter(), f"the run of {name}")


def dataset_documents(
    source: object, ids: set[str] | None, *, fields: Fields = USUAL, skip_bad: bool = False
) -> tuple[dict[str, Document], list[str]]:
    """The documents with these ids that the dataset has, through its own index, and notes on bad ones.

    None for `ids` gives all documents, in the order of the dataset.
    """
    name, dataset = dataset_name(source), _load(source)
    _check_part(name, dataset, "docs")
    documents: dict[str, Document] = {}
    skipped: list[str] = []
    with _downloading(name):
        records = dataset.docs_iter() if ids is None else dataset.docs_store().get_many_iter(sorted(ids))
        for record in records:
            try:
                item = record if fields != USUAL else _record(record)
                document = as_document(item, f"{name}, document {record.doc_id!r}", fields)
                documents[record.doc_id] = replace(document, id=record.doc_id, record=None)
            except InvalidInput as err:
                if not skip_bad:
                    raise InvalidInput(f"{err} (or go on without it: --skip-bad)") from None
                skipped.append(f"skipped: {err}")
    more = [f"skipped {len(skipped)} documents in all"] if len(skipped) > 3 else []
    return documents, [*islice(skipped, 3), *more]


def _load(source: object) -> Any:
    """The dataset object. Raises UsageError for an id that ir_datasets does not have, with the nearest ones."""
    if not isinstance(source, str):
        return source
    library, name = need("ir_datasets", extra="ir-datasets"), source.removeprefix(PREFIX)
    try:
        return library.load(name)
    except KeyError:
        near = ", ".join(get_close_matches(name, list(library.registry), n=3)) or "none is close"
        raise UsageError(f"ir_datasets has no {name!r} (nearest: {near}): its catalogue lists the ids") from None


def _check_part(name: str, dataset: Any, part: str) -> None:
    if getattr(dataset, f"has_{part}")():
        return
    words, option = {
        "docs": ("documents", "its other parts alone can be used"),
        "queries": ("queries", "take a part of it that has some, such as irds:ID/test"),
        "qrels": ("judgements", "take a part of it that has some, such as irds:ID/test, or name them with --qrels"),
        "scoreddocs": ("run (scored documents)", "name one with --run, or make it with --first bm25:100"),
    }[part]
    raise UsageError(f"{name} has no {words} in ir_datasets: {option}")


def _record(record: Any) -> Mapping[str, str]:
    """Title and text of a document of any of ir_datasets' types; where no field is its text, all text it states."""
    text = _first_text(record, _TEXT_FIELDS)
    if not text:
        return {"text": record.default_text()}  # the title is a part of it
    return {"title": _first_text(record, _TITLE_FIELDS), "text": text}


def _first_text(record: Any, names: tuple[str, ...]) -> str:
    texts = (getattr(record, name, None) for name in names)
    return next((text for text in texts if isinstance(text, str) and text.strip()), "")


@contextmanager
def _downloading(name: str) -> Iterator[None]:
    """Turns a failed download, of which every protocol and format has its own error, into one of one line."""
    try:
        yield
    except (DearliteError, MemoryError):
        raise
    except Exception as err:
        reason = first_line(err)
        reason = reason if len(reason) <= 300 else f"{reason[:299]}…"
        raise FetchError(
            f"{name}: ir_datasets cannot provide it ({reason}): see its page in the catalogue of ir_datasets, where "
            "files that must be asked for are described, and try again with a network"
        ) from err
