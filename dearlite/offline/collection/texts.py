"""Texts of a collection: queries and corpus files, read as streams.

Only the named documents are kept in memory: of nine million passages, those that the run names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from dearlite.documents import Document, as_document, check_query
from dearlite.errors import InvalidInput
from dearlite.fields import ID_FIELDS, QUERY_FIELDS, QUERY_ID_FIELDS, TEXT_FIELDS, TITLE_FIELDS, first_field
from dearlite.files.json_files import Record
from dearlite.files.lines import read_lines
from dearlite.files.readers import reader_for
from dearlite.files.streams import open_stream, report_damage

# A header line of a TSV file names at least one column of each set.
_ID_COLUMNS = {*ID_FIELDS, "qid"}
_TEXT_COLUMNS = {*TEXT_FIELDS, *TITLE_FIELDS, "query"}


def read_queries(path: Path, *, ids: Iterable[str] | None = None) -> dict[str, str]:
    """Query id -> text, for the ids in `ids` or for all. The file is JSON Lines or TSV (or another of FORMATS).

    The id is in one of QUERY_ID_FIELDS, the text in the first of QUERY_FIELDS that is not empty.
    """
    keep = None if ids is None else set(ids)
    queries: dict[str, str] = {}
    for where, record in _records(path):
        if isinstance(record, InvalidInput):
            raise record
        if not isinstance(record, Mapping):
            raise InvalidInput(f"{where} is not a query record: it needs an _id and a text")
        query_id = first_field(record, QUERY_ID_FIELDS)
        text = next((record[name] for name in QUERY_FIELDS if record.get(name)), None)
        if query_id is None or isinstance(query_id, (dict, list)):
            raise InvalidInput(f"{where} has no query id: name the field '_id'")
        query_id = str(query_id)
        if keep is not None and query_id not in keep:
            continue
        try:
            text = check_query(text)
        except InvalidInput as err:
            raise InvalidInput(f"{where}, query {query_id!r}: {err}") from None
        if queries.setdefault(query_id, text) != text:
            raise InvalidInput(f"{where}: query {query_id!r} has two texts: keep one")
    return queries


def read_corpus(
    paths: Iterable[Path], *, ids: set[str], skip_bad: bool = False
) -> tuple[dict[str, Document], list[str]]:
    """The documents of `paths` with an id in `ids`, and notes on bad records. Other documents are not kept.

    Raises InvalidInput for an unusable record; with `skip_bad` it is left out and counted in the notes.
    """
    documents: dict[str, Document] = {}
    skipped: list[str] = []
    for path in paths:
        for where, record in _records(path):
            try:
                if isinstance(record, InvalidInput):
                    raise record
                document_id = _document_id(record, where)
                if document_id not in ids:
                    continue
                document = replace(as_document(record, where), record=None)  # the record itself is not kept
                known = documents.setdefault(document_id, document)
                if (known.title, known.text) != (document.title, document.text):
                    raise InvalidInput(f"{where}: document {document_id!r} has two texts: keep one")
            except InvalidInput as err:
                if not skip_bad:
                    raise InvalidInput(f"{err} (or go on without it: --skip-bad)") from None
                skipped.append(str(err))
    notes = [f"skipped: {line}" for line in skipped[:3]]
    if len(skipped) > 3:
        notes.append(f"skipped {len(skipped)} records of the corpus in all")
    return documents, notes


def _records(path: Path) -> Iterator[Record]:
    """The records of a query or corpus file, each with its location."""
    with closing(open_stream(str(path))) as stream:
        if ".tsv" in path.suffixes:
            yield from report_damage(_tab_separated(read_lines(stream, path.name)), path.name)
        else:
            yield from report_damage(reader_for(str(path))(stream, path.name), path.name)


def _tab_separated(lines: Iterable[tuple[str, str | InvalidInput]]) -> Iterator[Record]:
    """Records of TSV lines: `id TAB text` without a header (MS MARCO), or the columns of a header line.

    A first line that names an id column and a text column is a header.
    """
    columns: list[str] | None = None
    for where, line in lines:
        if isinstance(line, InvalidInput):
            yield where, line
            continue
        cells = line.rstrip("\r\n").split("\t")
        if columns is None:
            is_header = len(cells) > 1 and set(cells) & _ID_COLUMNS and set(cells) & _TEXT_COLUMNS
            columns = cells if is_header else ["_id", "text"]
            if is_header:
                continue
        if len(cells) != len(columns):
            yield (
                where,
                InvalidInput(f"{where} has {len(cells)} columns instead of {len(columns)} ({', '.join(columns)})"),
            )
        else:
            yield where, dict(zip(columns, cells, strict=True))


def _document_id(record: object, where: str) -> str:
    document_id = first_field(record, ID_FIELDS) if isinstance(record, Mapping) else None
    if document_id is None:
        raise InvalidInput(f"{where} has no id: name the field '_id', 'id' or 'docid'")
    return str(document_id)
