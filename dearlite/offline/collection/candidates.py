"""Queries with their documents in one JSON file, as RankGPT, rank_llm, DPR and Rankify publish them.

    {"query": "…", "hits": [{"content": "…", "qid": 1, "docid": "7", "rank": 1, "score": 14.9}]}     RankGPT
    {"query": {"text": "…", "qid": 1}, "candidates": [{"docid": "7", "score": 14, "doc": {"contents": "…"}}]}  rank_llm
    {"question": "…", "ctxs": [{"id": "7", "title": "…", "text": "…", "score": "14.9"}]}             DPR, Rankify

JSON, JSON Lines and Parquet. Texts are used unchanged; a `doc` may have a title. A document may be a string.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from dearlite.documents import Document, as_document, check_query, document_id
from dearlite.errors import InvalidInput, counted
from dearlite.fields import (
    CANDIDATE_ID_FIELDS,
    CANDIDATE_TEXT_FIELDS,
    INNER_FIELDS,
    QUERY_FIELDS,
    QUERY_ID_FIELDS,
    TITLE_FIELDS,
    USUAL,
    Fields,
    field_names,
    first_field,
    is_known,
    is_missing,
)
from dearlite.files.readers import read_group, reader_for
from dearlite.files.streams import open_stream, report_damage
from dearlite.files.values import finite_number, id_text

_LIST_FIELDS = ("hits", "candidates", "ctxs", "contexts", "documents", "docs", "passages", "results")
_QUERY = ("query", "question", "query_text")


@dataclass(frozen=True, slots=True)
class Candidates:
    """One query and its documents in the first stage's order, with the first stage's scores.

    `unscored` is True if a score is missing: the documents keep the order of the file, and the scores are minus their
    ranks. `unnamed` counts documents without an id, `skipped` has a line for each document that was left out.
    """

    query_id: str
    query: str
    documents: tuple[Document, ...]
    scores: tuple[float, ...]
    unscored: bool = False
    unnamed: int = 0
    skipped: tuple[str, ...] = ()


@dataclass(slots=True)
class CandidateNotes:
    """Assumptions and omissions in the reading of candidates, counted, for a line each."""

    unscored: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def add(self, candidates: Candidates) -> None:
        """Counts what concerns one query."""
        self.unscored += [candidates.query_id] * candidates.unscored
        self.unnamed += [candidates.query_id] * candidates.unnamed
        self.skipped += candidates.skipped

    def lines(self) -> tuple[str, ...]:
        """The notes, a line each."""
        lines = [f"skipped: {line}" for line in self.skipped[:3]]
        if len(self.skipped) > 3:
            lines.append(f"skipped {len(self.skipped)} documents in all")
        if self.unscored:
            lines.append(
                f"{counted(len(self.unscored), 'query has', 'queries have')} documents without a score "
                f"({self.unscored[0]!r} first), which are in the order of the file"
            )
        if self.unnamed:
            lines.append(
                f"{counted(len(self.unnamed), 'document is a string', 'documents are strings')} without an id: "
                f"called QUERY-POSITION, such as {self.unnamed[0]}-1"
            )
        return tuple(lines)


def iter_candidates(
    path: Path,
    *,
    depth: int | None = None,
    skip_bad: bool = False,
    group: int | None = None,
    fields: Fields = USUAL,
) -> Iterator[Candidates]:
    """The queries of the file, one at a time. Raises InvalidInput naming the location of a bad record.

    With `skip_bad` unusable documents are left out. `group` selects one row group of a Parquet file, `fields`
    are the fields of a document.
    """
    with closing(open_stream(str(path))) as stream:
        records = reader_for(str(path))(stream, path.name) if group is None else read_group(stream, path.name, group)
        for number, (where, record) in enumerate(report_damage(records, path.name), start=1):
            if isinstance(record, InvalidInput):
                raise record
            yield _candidates(record, where, number, depth, skip_bad, fields)


def read_candidates(
    path: Path, *, depth: int | None = None, skip_bad: bool = False, fields: Fields = USUAL
) -> tuple[str, dict[str, str], dict[str, Document], dict[str, dict[str, float]], tuple[str, ...]]:
    """Name, queries, documents, run and notes of the whole file."""
    queries: dict[str, str] = {}
    documents: dict[str, Document] = {}
    run: dict[str, dict[str, float]] = {}
    notes = CandidateNotes()
    for candidates in iter_candidates(path, depth=depth, skip_bad=skip_bad, fields=fields):
        query_id = candidates.query_id
        if query_id in queries:
            raise InvalidInput(f"{path.name}: query {query_id!r} comes twice: keep one of them")
        queries[query_id] = candidates.query
        for document in candidates.documents:
            assert document.id is not None
            known = documents.setdefault(document.id, document)
            if (known.title, known.text) != (document.title, document.text):
                raise InvalidInput(f"{path.name}: document {document.id!r} has two texts: give each text its own id")
        run[query_id] = {
            str(document.id): score for document, score in zip(candidates.documents, candidates.scores, strict=True)
        }
        notes.add(candidates)
    if not queries:
        raise InvalidInput(f"{path.name} holds no queries")
    return path.name, queries, documents, run, notes.lines()


def _candidates(
    record: object, where: str, number: int, depth: int | None, skip_bad: bool, fields: Fields
) -> Candidates:
    query = first_field(record, _QUERY, where) if isinstance(record, Mapping) else None
    hits = _hits_of(record, where) if isinstance(record, Mapping) else None
    if not isinstance(record, Mapping) or query is None or hits is None:
        raise InvalidInput(
            f"{where} is not a query with its documents: it needs 'query', and 'hits' or 'candidates'{_shape(record)}"
        )
    if not isinstance(hits, list) or not all(isinstance(hit, (Mapping, str)) for hit in hits):
        raise InvalidInput(f"{where}: its documents are not a list of records or strings")
    query_id = _query_id(record, query, hits, number, where)
    text = first_field(query, QUERY_FIELDS, where) if isinstance(query, Mapping) else query
    hits_by_id: dict[str, _Hit] = {}
    skipped: list[str] = []
    for rank, item in enumerate(hits, start=1):
        try:
            hit = _hit(item, f"{where}, document {rank}", f"{query_id}-{rank}", fields)
            if hit.document.id in hits_by_id:
                raise InvalidInput(f"{where}, document {rank}: id {hit.document.id!r} comes twice in this query")
        except InvalidInput as err:
            if not skip_bad:
                raise InvalidInput(f"{err} (or go on without it: --skip-bad)") from None
            skipped.append(str(err))
        else:
            hits_by_id[str(hit.document.id)] = hit
    if lost := _out_of_order(hits_by_id, where):
        if not skip_bad:
            raise InvalidInput(f"{next(iter(lost.values()))} (or go on without it: --skip-bad)")
        skipped += lost.values()
        hits_by_id = {name: hit for name, hit in hits_by_id.items() if name not in lost}
    try:
        text = check_query(text)
    except InvalidInput as err:
        raise InvalidInput(f"{where}: {err}") from None
    scored = {name: hit.score for name, hit in hits_by_id.items() if hit.score is not None}
    if unscored := len(scored) < len(hits_by_id):
        scored = {name: float(-rank) for rank, name in enumerate(_by_rank(hits_by_id), start=1)}
    order = sorted(scored, key=lambda name: -scored[name])[:depth]  # equal scores keep the file's order
    return Candidates(
        query_id,
        text,
        tuple(hits_by_id[name].document for name in order),
        tuple(scored[name] for name in order),
        unscored=unscored,
        unnamed=sum(isinstance(hit, str) for hit in hits),
        skipped=tuple(skipped),
    )


@dataclass(frozen=True, slots=True)
class _Hit:
    """One document of a query, its score, None if it has none, and its rank as the file has it."""

    document: Document
    score: float | None = None
    rank: object = None


def _out_of_order(hits: Mapping[str, _Hit], where: str) -> dict[str, str]:
    """Document id -> message for documents without a score whose place is unknown.

    Where no document has a score, or the scores fall in the order of the file, the file has an order, which is kept.
    """
    scores = [hit.score for hit in hits.values() if hit.score is not None]
    if len(scores) == len(hits) or all(a >= b for a, b in pairwise(scores)):
        return {}
    return {
        name: f"{where}: document {name!r} has no score, and the scores of the others do not fall in the order of the "
        "file: give it one"
        for name, hit in hits.items()
        if hit.score is None
    }


def _hits_of(record: Mapping[str, object], where: str) -> object:
    """The documents of a record, from a list if it has one; None if it has none. Raises InvalidInput for two lists."""
    values = {name: record[name] for name in record if is_known(name, _LIST_FIELDS)}
    if len(full := [name for name, value in values.items() if value and isinstance(value, list)]) > 1:
        raise InvalidInput(f"{where} has documents in {full[0]!r} and in {full[1]!r}: keep one of the lists")
    return next((values[name] for name in (*full, *values)), None)


def _query_id(record: Mapping[str, object], query: object, hits: list[object], number: int, where: str) -> str:
    """The id of a query: its own, that of its record or of its documents, or the position of the record in the file."""
    own = query if isinstance(query, Mapping) else {}
    ids = (own.get("qid"), record.get("qid"), *(hit.get("qid") for hit in hits if isinstance(hit, Mapping)))
    value = next((value for value in ids if not is_missing(value)), None)
    if value is None:
        others = (first_field(item, QUERY_ID_FIELDS, where) for item in (own, record))
        value = next((value for value in others if value is not None), number)
    return id_text(value, "query", where)


def _hit(hit: Mapping[str, object] | str, where: str, name: str, fields: Fields) -> _Hit:
    """One document with its score and rank; a string is called `name`. `fields` are the caller's."""
    if isinstance(hit, str):
        return _Hit(replace(as_document(hit, where), id=name, record=None))
    doc_id = first_field(hit, CANDIDATE_ID_FIELDS, where) if fields.id is None else document_id(hit, where, fields)
    if doc_id is None:
        raise InvalidInput(f"{where} has no docid")
    record = {"id": id_text(doc_id, "document", where)}
    if fields.text is None:
        record |= _texts(hit, where)
    if fields.text is not None or fields.title is not None:
        named = as_document(hit, where, replace(fields, id="", text=fields.text or (lambda _: record["text"])))
        record |= {"text": named.text, "title": named.title}
    return _Hit(replace(as_document(record, where), record=None), _score(hit.get("score"), where), hit.get("rank"))


def _texts(hit: Mapping[str, object], where: str) -> dict[str, Any]:
    """Text and title of a document under the known names, its own or those of the record within it."""
    body = hit.get("doc", hit)
    body = {"text": body} if isinstance(body, str) else body
    if not isinstance(body, Mapping):
        raise InvalidInput(f"{where} has a 'doc' that is not a record")
    for record in (body, *filter(_is_mapping, map(body.get, INNER_FIELDS))):
        text = first_field(record, CANDIDATE_TEXT_FIELDS, where)
        if text is not None and not isinstance(text, Mapping):
            return {"text": text, "title": first_field(record, TITLE_FIELDS, where)}
    raise InvalidInput(f"{where} has no text: name the field 'content', or 'contents' in its 'doc'")


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def _score(value: object, where: str) -> float | None:
    """A score; None if it is missing, which null, NaN and infinity mean too. Raises InvalidInput for words."""
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool):
        raise InvalidInput(f"{where} has a score that is not a number")
    try:
        number = float(value)  # type: ignore[arg-type]  # DPR writes scores as strings
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(f"{where} has a score that is not a number ({value!r})") from None
    return number if math.isfinite(number) else None


def _by_rank(hits: Mapping[str, _Hit]) -> list[str]:
    """The documents by their ranks if each has one of its own, otherwise in the order of the file."""
    try:
        ranks = {name: finite_number(hit.rank, "rank", name) for name, hit in hits.items()}
    except InvalidInput:
        return list(hits)
    return sorted(ranks, key=ranks.__getitem__) if len({*ranks.values()}) == len(ranks) else list(hits)


def _shape(record: object) -> str:
    """Words on a record of another known shape, or on its fields."""
    if not isinstance(record, Mapping):
        return ""
    names = set(map(str, record))
    if {"positive", "negative"} <= names or {"pos", "neg"} <= names:
        return ": its texts are in groups (MTEB, training data): give one list, in a first stage's order"
    if any(is_known(name, CANDIDATE_TEXT_FIELDS) for name in names) and not is_known("query", tuple(names)):
        return ": it looks like a document; rank documents with dearlite rerank, or name them with --corpus"
    return f" (it has {', '.join(map(repr, field_names(record)[:6]))})"
