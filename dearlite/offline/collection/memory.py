"""Collections from memory: dicts, data frames, records and named tuples, with ids and numbers of any type.

The ids and numbers of the result are plain strings, floats and ints, which JSON and trec_eval take.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import replace
from itertools import pairwise
from typing import Any

from dearlite.documents import Document, as_document, as_documents, check_query
from dearlite.errors import InvalidInput
from dearlite.fields import QUERY_FIELDS, QUERY_ID_FIELDS, fields_of, first_field, is_record
from dearlite.files.columns import QRELS, RUN, column_roles
from dearlite.files.trec import Qrels, Run
from dearlite.files.values import finite_number, id_text, whole_grade

Triple = tuple[Any, Any, Any]  # query id, document id, score or grade


def as_run(run: Any, name: str = "the run") -> Run:
    """`run` as query id -> document id -> score, best first.

    A mapping of mappings (scores), of lists of ids, best first, or of lists of (id, score); a DataFrame, records or
    named tuples with the columns of a query id, a document id, and a score or a rank. Raises InvalidInput naming the
    query and the document of a bad entry.
    """
    if _is_plain_run(run):
        return run  # type: ignore[no-any-return]
    scores: dict[str, dict[str, float]] = {}
    for query, document, value in _triples(run, name, RUN, ("score", "rank")):
        query_id, where = _query_of(query, name)
        of_query = scores.setdefault(query_id, {})
        if document is _NOTHING:
            continue
        document_id = id_text(document, "document", where)
        if document_id in of_query:
            raise InvalidInput(f"{where} names document {document_id!r} twice: ids must be unique")
        of_query[document_id] = finite_number(value, "score", f"{where}, document {document_id!r}")
    return {
        query_id: dict(sorted(of_query.items(), key=lambda pair: -pair[1])) for query_id, of_query in scores.items()
    }


def as_queries(queries: Any) -> dict[str, str]:
    """Query id -> text, from a mapping, a DataFrame, or records with an id and a text.

    Raises InvalidInput for a missing id, an empty text, and two texts of one query.
    """
    pairs: Iterable[tuple[Any, Any]]
    if isinstance(queries, Mapping):
        pairs = queries.items()
    else:
        records = [fields_of(record) for record in _records(queries, "the queries")]
        pairs = [(first_field(record, QUERY_ID_FIELDS), first_field(record, QUERY_FIELDS)) for record in records]
    texts: dict[str, str] = {}
    for key, text in pairs:
        query_id = id_text(key, "query", "the queries")
        try:
            checked = check_query(text)
        except InvalidInput as err:
            raise InvalidInput(f"query {query_id!r}: {err}") from None
        if texts.setdefault(query_id, checked) != checked:
            raise InvalidInput(f"query {query_id!r} has two texts: keep one")
    return texts


def as_corpus(corpus: Any, ids: Set[str] | None = None) -> dict[str, Document]:
    """Document id -> Document, from a mapping of ids to documents, a DataFrame, or documents with ids.

    `ids` selects documents; None takes all. Raises InvalidInput for a missing id, and two texts of one document.
    """
    pairs: Iterable[tuple[Any, Any]]
    if isinstance(corpus, Mapping):
        pairs = corpus.items()
    else:
        pairs = [(document.id, document) for document in as_documents(corpus)]
    documents: dict[str, Document] = {}
    for key, item in pairs:
        document_id = id_text(key, "document", "the corpus")
        if ids is not None and document_id not in ids:
            continue
        document = replace(as_document(item, f"document {document_id!r}"), id=document_id, record=None)
        known = documents.setdefault(document_id, document)
        if known != document:
            raise InvalidInput(f"document {document_id!r} has two texts: keep one")
    return documents


def as_qrels(qrels: Any, name: str = "the judgements") -> Qrels:
    """`qrels` as query id -> document id -> grade, from the same forms as `as_run`.

    Raises InvalidInput naming the query and the document of a bad grade, such as 0.5, and of two grades of one pair.
    """
    grades: dict[str, dict[str, int]] = {}
    for query, document, value in _triples(qrels, name, QRELS, ("grade",)):
        query_id, where = _query_of(query, name)
        of_query = grades.setdefault(query_id, {})
        if document is _NOTHING:
            continue
        document_id = id_text(document, "document", where)
        grade = whole_grade(value, f"{where}, document {document_id!r}")
        if of_query.setdefault(document_id, grade) != grade:
            raise InvalidInput(f"{where}: document {document_id!r} has two grades: keep one")
    return grades


_NOTHING: Any = object()  # the document of a query without documents


def _is_plain_run(run: object) -> bool:
    """True for a run that is of plain types and in order already; it is used unchanged, however large it is."""
    if type(run) is not dict:
        return False
    for query_id, scores in run.items():
        if type(query_id) is not str or not query_id or type(scores) is not dict:
            return False
        if not all(
            type(document_id) is str and document_id and type(score) is float and math.isfinite(score)
            for document_id, score in scores.items()
        ):
            return False
        if any(a < b for a, b in pairwise(scores.values())):
            return False
    return True


def _query_of(query: Any, name: str) -> tuple[str, str]:
    """The id of a query, and the words that begin a message on it."""
    query_id = id_text(query, "query", name)
    return query_id, f"{name}, query {query_id!r}"


def _triples(items: Any, name: str, roles: Mapping[str, Any], numbers: tuple[str, ...]) -> Iterator[Triple]:
    """The entries of `items`; a query without documents gives one entry with the document _NOTHING."""
    if isinstance(items, Mapping):
        for query, entries in items.items():
            if not len(_sized(entries, f"{name}, query {query!r}")):
                yield query, _NOTHING, None
            for document, value in _entries(entries, f"{name}, query {query!r}", is_run="rank" in numbers):
                yield query, document, value
        return
    for number, item in enumerate(_records(items, name)):
        where = f"{name}, item {number}"
        fields = fields_of(item) if is_record(item) else {}
        if not fields:
            raise InvalidInput(
                f"{where} is a {type(item).__name__}: it needs a query id, a document id and a {numbers[0]}"
            )
        columns = column_roles(tuple(fields), roles, numbers, where)
        if columns is None:
            has = ", ".join(map(repr, list(fields)[:6]))
            raise InvalidInput(f"{where} has the fields {has}: it needs query_id, doc_id and {numbers[0]}")
        cells = tuple(fields.values())
        role = next(role for role in numbers if role in columns)
        value = cells[columns[role]]
        if role == "rank":
            value = -finite_number(value, "rank", where)
        yield cells[columns["query"]], cells[columns["document"]], value


def _records(items: Any, name: str) -> Iterable[Any]:
    """The rows of a DataFrame of pandas or polars, or the items of another iterable."""
    if hasattr(items, "columns"):
        if repeated := [column for column, count in Counter(items.columns).items() if count > 1]:
            raise InvalidInput(f"{name} has two columns of the name {repeated[0]!r}: rename or drop one of them")
        if hasattr(items, "to_dicts"):  # polars
            return items.to_dicts()  # type: ignore[no-any-return]
        if hasattr(items, "itertuples"):
            names = tuple(items.columns)
            return (dict(zip(names, row, strict=True)) for row in items.itertuples(index=False, name=None))
    if isinstance(items, (str, bytes)) or not isinstance(items, Iterable):
        raise InvalidInput(f"{name} is a {type(items).__name__}: give a dict, a DataFrame, or a list of records")
    return items


def _sized(entries: Any, where: str) -> Any:
    if isinstance(entries, Set) and not hasattr(entries, "items"):
        raise InvalidInput(f"{where} is a {type(entries).__name__}, which has no order: give a list, best first")
    if isinstance(entries, (str, bytes)) or not hasattr(entries, "__len__"):
        raise InvalidInput(f"{where} is a {type(entries).__name__}: give {{document id: number}}")
    return entries


def _entries(entries: Any, where: str, *, is_run: bool) -> Iterator[tuple[Any, Any]]:
    """Document ids with their numbers; in a list of ids, best first, minus the rank."""
    if isinstance(entries, Mapping) or hasattr(entries, "items"):  # a pandas Series too
        yield from entries.items()
        return
    for rank, entry in enumerate(entries, start=1):
        if isinstance(entry, (tuple, list)) and len(entry) == 2:
            yield entry[0], entry[1]
        elif is_run:
            yield entry, float(-rank)
        else:
            raise InvalidInput(f"{where} is a list: give {{document id: grade}}")
