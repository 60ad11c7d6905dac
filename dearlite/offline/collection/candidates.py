"""Queries with their documents in one JSON file, as RankGPT and rank_llm publish them; JSON Lines and Parquet too.

    {"query": "…", "hits": [{"content": "…", "qid": 1, "docid": "7", "rank": 1, "score": 14.9}]}     RankGPT
    {"query": {"text": "…", "qid": 1}, "candidates": [{"docid": "7", "score": 14, "doc": {"contents": "…"}}]}  rank_llm

Texts are taken as they stand; a `doc` may have a title.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from dearlite.documents import Document, as_document, check_query
from dearlite.errors import InvalidInput
from dearlite.files.readers import open_stream, read_group, reader_for, whole

_LISTS = ("hits", "candidates")
_TEXTS = ("content", "contents", "text", "segment", "passage", "body")


@dataclass(frozen=True, slots=True)
class Candidates:
    """One query and its documents in the first stage's order, with its scores."""

    query_id: str
    query: str
    documents: tuple[Document, ...]
    scores: tuple[float, ...]


def iter_candidates(
    path: Path, *, depth: int | None = None, skip_bad: bool = False, group: int | None = None
) -> Iterator[Candidates]:
    """Each query of the file, as it is read. Raises InvalidInput naming the place of what is no such record.

    With `skip_bad` documents that cannot be used are left out. `group` is one row group of a Parquet file, alone.
    """
    with closing(open_stream(str(path))) as stream:
        records = reader_for(str(path))(stream, path.name) if group is None else read_group(stream, path.name, group)
        for number, (where, record) in enumerate(whole(records, path.name), start=1):
            if isinstance(record, InvalidInput):
                raise record
            yield _candidates(record, where, number, depth, skip_bad)


def read_candidates(
    path: Path, *, depth: int | None = None, skip_bad: bool = False
) -> tuple[str, dict[str, str], dict[str, Document], dict[str, dict[str, float]], list[str]]:
    """Name, queries, documents and run of the whole file, and what was odd."""
    queries: dict[str, str] = {}
    documents: dict[str, Document] = {}
    run: dict[str, dict[str, float]] = {}
    for one in iter_candidates(path, depth=depth, skip_bad=skip_bad):
        if one.query_id in queries:
            raise InvalidInput(f"{path.name}: query {one.query_id!r} comes twice: keep one of them")
        queries[one.query_id] = one.query
        for document in one.documents:
            assert document.id is not None
            known = documents.setdefault(document.id, document)
            if (known.title, known.text) != (document.title, document.text):
                raise InvalidInput(f"{path.name}: document {document.id!r} has two texts: give them ids of their own")
        run[one.query_id] = {str(document.id): score for document, score in zip(one.documents, one.scores, strict=True)}
    if not queries:
        raise InvalidInput(f"{path.name} holds no queries")
    return path.name, queries, documents, run, []


def _candidates(record: object, where: str, number: int, depth: int | None, skip_bad: bool) -> Candidates:
    if not isinstance(record, Mapping) or "query" not in record or not any(name in record for name in _LISTS):
        raise InvalidInput(f"{where} is no query with its documents: it needs 'query', and 'hits' or 'candidates'")
    query = record["query"]
    text, query_id = (query.get("text"), query.get("qid")) if isinstance(query, Mapping) else (query, None)
    hits = next(record[name] for name in _LISTS if name in record)
    if not isinstance(hits, list) or not all(isinstance(hit, Mapping) for hit in hits):
        raise InvalidInput(f"{where}: its documents are no list of records")
    query_id = next(
        (one for one in (query_id, record.get("qid"), *(h.get("qid") for h in hits)) if one is not None), number
    )
    found: dict[str, tuple[Document, float]] = {}
    for place, hit in enumerate(hits, start=1):
        try:
            document, score = _hit(hit, f"{where}, document {place}", place)
            if document.id in found:
                raise InvalidInput(f"{where}, document {place}: id {document.id!r} comes twice in this query")
        except InvalidInput as err:
            if skip_bad:
                continue
            raise InvalidInput(f"{err} (or go on without it: --skip-bad)") from None
        found[str(document.id)] = document, score
    try:
        text = check_query(text)
    except InvalidInput as err:
        raise InvalidInput(f"{where}: {err}") from None
    best = sorted(found.values(), key=lambda pair: -pair[1])[:depth]  # equal scores keep the file's order
    return Candidates(str(query_id), text, tuple(d for d, _ in best), tuple(score for _, score in best))


def _hit(hit: Mapping[str, object], where: str, place: int) -> tuple[Document, float]:
    document_id = next((hit[name] for name in ("docid", "id", "_id") if hit.get(name) is not None), None)
    if document_id is None:
        raise InvalidInput(f"{where} has no docid")
    body = hit.get("doc", hit)
    body = {"text": body} if isinstance(body, str) else body
    if not isinstance(body, Mapping):
        raise InvalidInput(f"{where} has a 'doc' that is no record")
    text = next((body[name] for name in _TEXTS if body.get(name) is not None), None)
    if text is None:
        raise InvalidInput(f"{where} has no text: name the field 'content', or 'contents' in its 'doc'")
    document = as_document({"id": document_id, "text": text, "title": body.get("title")}, where)
    score = hit.get("score", -place)
    if isinstance(score, bool) or not isinstance(score, (int, float)):
        raise InvalidInput(f"{where} has a score that is no number")
    return replace(document, record=None), float(score)
