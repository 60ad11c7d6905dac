"""The queries and documents of a call, checked, and the names of documents in messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from dearlite.documents import as_documents
from dearlite.errors import InvalidInput

if TYPE_CHECKING:
    from dearlite.documents import Document
    from dearlite.fields import Fields

Job = tuple[str, Iterable[object]]  # a query and its documents


def checked_jobs(jobs: Iterable[object]) -> Iterator[Job]:
    """`jobs` one by one. Raises InvalidInput for what is no pair of a query and its documents."""
    if isinstance(jobs, (str, bytes, Mapping)) or not isinstance(jobs, Iterable):
        remedy = "give its items(), the pairs" if isinstance(jobs, Mapping) else "give a list of (query, docs) pairs"
        raise InvalidInput(f"jobs is a {type(jobs).__name__}: {remedy}")
    for position, job in enumerate(jobs):
        if not isinstance(job, Sequence) or isinstance(job, (str, bytes)) or len(job) != 2:
            raise InvalidInput(f"job {position} is a {type(job).__name__}: it must be a pair (query, docs)")
        yield job[0], job[1]


def read_docs(docs: Iterable[object], fields: Fields | None) -> Iterable[object]:
    """`docs` as Documents, by the caller's `fields`; unchanged without: every kind of model knows the usual names."""
    return docs if fields is None else as_documents(docs, fields)


def name_of(document: Document, position: int) -> str:
    """The name of a document in a message: its id, or its position in the call, from 0."""
    return f"document {position if document.id is None else repr(document.id)}"


def no_tokens(document: Document, model: str) -> str:
    """The reason why `model` cannot read `document`, as the rest of a sentence about it."""
    text = ascii((document.title + document.text).strip()[:20])
    return f"is empty for {model}, whose tokenizer makes no token of {text}"


def empty_document(document: Document, position: int, model: str) -> InvalidInput:
    """The error for a document of which the tokenizer of `model` makes no token."""
    return InvalidInput(f"{name_of(document, position)} {no_tokens(document, model)}: remove it, or give it a text")
