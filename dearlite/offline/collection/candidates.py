"""Queries with their documents in one JSON file, as RankGPT and rank_llm publish them; JSON Lines and Parquet too.

    {"query": "…", "hits": [{"content": "…", "qid": 1, "docid": "7", "rank": 1, "score": 14.9}]}     RankGPT
    {"query": {"text": "…", "qid": 1}, "candidates": [{"docid": "7", "score": 14, "doc": {"contents": "…"}}]}  rank_llm

Texts are used unchanged; a `doc` may have a title.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from dearlite.documents import Document, as_document, check_query
from dearlite.errors import InvalidInput
from dearlite.fields import CANDIDATE_ID_FIELDS, CANDIDATE_TEXT_FIELDS, TITLE_FIELDS, first_field
from dearlite.files.readers import read_group, reader_for
from dearlite.files.streams import open_stream, report_damage

_LIST_FIELDS = ("hits", "candidates")


@dataclass(frozen=True, slots=True)
class Candidates:
    """One query and its documents in the first stage's order, with the first stage's scores."""

    query_id: str
    query: str
    documents: tuple[Document, ...]
    scores: tuple[float, ...]


def iter_candidates(
    path: Path, *, depth: int | None = None, skip_bad: bool = False, group: int | None = None
) -> Iterator[Candidates]:
    """The queries of the file, one at a time. Raises InvalidInput naming the location of a bad record.

    With `skip_bad` unusable documents are left out. `group` selects one row group of a Parquet file.
    """
    with closing(open_stream(str(path))) as stream:
        records = reader_for(str(path))(stream, path.name) if group is None else read_group(stream, path.name, group)
        for number, (where, record) in enumerate(report_damage(records, path.name), start=1):
            if isinstance(record, InvalidInput):
                raise record
            yield _candidates(record, where, number, depth, skip_bad)


def read_candidates(
    path: Path, *, depth: int | None = None, skip_bad: bool = False
) -> tuple[str, dict[str, str], dict[str, Document], dict[str, dict[str, float]], list[str]]:
    """Name, queries, documents, run and notes of the whole file."""
    queries: dict[str, str] = {}
    documents: dict[str, Document] = {}
    run: dict[str, dict[str, float]] = {}
    for candidates in iter_candidates(path, depth=depth, skip_bad=skip_bad):
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
    if not queries:
        raise InvalidInput(f"{path.name} holds no queries")
    return path.name, queries, documents, run, []


def _candidates(record: object, where: str, number: int, depth: int | None, skip_bad: bool) -> Candidates:
    if not isinstance(record, Mapping) or "query" not in record or not any(name in record for name in _LIST_FIELDS):
        raise InvalidInput(f"{where} is not a query with its documents: it needs 'query', and 'hits' or 'candidates'")
    query = record["query"]
    text, query_id = (query.get("text"), query.get("qid")) if isinstance(query, Mapping) else (query, None)
    hits = next(record[name] for name in _LIST_FIELDS if name in record)
    if not isinstance(hits, list) or not all(isinstance(hit, Mapping) for hit in hits):
        raise InvalidInput(f"{where}: its documents are not a list of records")
    ids = (query_id, record.get("qid"), *(hit.get("qid") for hit in hits))
    query_id = next((value for value in ids if value is not None), number)
    by_id: dict[str, tuple[Document, float]] = {}
    for rank, hit in enumerate(hits, start=1):
        try:
            document, score = _hit(hit, f"{where}, document {rank}", rank)
            if document.id in by_id:
                raise InvalidInput(f"{where}, document {rank}: id {document.id!r} comes twice in this query")
        except InvalidInput as err:
            if skip_bad:
                continue
            raise InvalidInput(f"{err} (or go on without it: --skip-bad)") from None
        by_id[str(document.id)] = document, score
    try:
        text = check_query(text)
    except InvalidInput as err:
        raise InvalidInput(f"{where}: {err}") from None
    best = sorted(by_id.values(), key=lambda pair: -pair[1])[:depth]  # equal scores keep the file's order
    return Candidates(str(query_id), text, tuple(document for document, _ in best), tuple(score for _, score in best))


def _hit(hit: Mapping[str, object], where: str, rank: int) -> tuple[Document, float]:
    """One document and its score; without a score, minus its rank in the file."""
    document_id = first_field(hit, CANDIDATE_ID_FIELDS)
    if document_id is None:
        raise InvalidInput(f"{where} has no docid")
    body = hit.get("doc", hit)
    body = {"text": body} if isinstance(body, str) else body
    if not isinstance(body, Mapping):
        raise InvalidInput(f"{where} has a 'doc' that is not a record")
    text = first_field(body, CANDIDATE_TEXT_FIELDS)
    if text is None:
        raise InvalidInput(f"{where} has no text: name the field 'content', or 'contents' in its 'doc'")
    title = first_field(body, TITLE_FIELDS)
    document = as_document({"id": document_id, "text": text, "title": title}, where)
    score = hit.get("score", -rank)
    if isinstance(score, bool) or not isinstance(score, (int, float)):
        raise InvalidInput(f"{where} has a score that is not a number")
    return replace(document, record=None), float(score)
