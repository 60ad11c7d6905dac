"""Texts of a collection: queries and corpus files, read as streams.

Only the named documents are kept in memory: of nine million passages, those that the run names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from dearlite.documents import Document, as_document, check_query, document_id
from dearlite.errors import InvalidInput
from dearlite.fields import (
    ID_FIELDS,
    QUERY_FIELDS,
    QUERY_ID_FIELDS,
    TEXT_FIELDS,
    TITLE_FIELDS,
    USUAL,
    Fields,
    field_names,
    first_field,
    is_known,
)
from dearlite.files.json_files import Record
from dearlite.files.readers import reader_for
from dearlite.files.streams import open_stream, report_damage
from dearlite.files.tables import TableOptions
from dearlite.files.values import id_text

_ID_NAMES = (*ID_FIELDS, *QUERY_ID_FIELDS)
_TEXT_NAMES = (*TEXT_FIELDS, *TITLE_FIELDS, *QUERY_FIELDS)


def read_queries(path: Path, *, ids: Iterable[str] | None = None, notes: list[str] | None = None) -> dict[str, str]:
    """Query id -> text, for the ids in `ids` or for all. The file is JSON Lines or TSV (or another of FORMATS).

    The id is in one of QUERY_ID_FIELDS, the text in the first of QUERY_FIELDS that is not empty. `notes` gets remarks.
    """
    options = TableOptions(collection=True, notes=[] if notes is None else notes)
    keep = None if ids is None else set(ids)
    queries: dict[str, str] = {}
    for where, record in _records(path, options):
        if isinstance(record, InvalidInput):
            raise record
        if not isinstance(record, Mapping):
            raise InvalidInput(f"{where} is not a query record: it needs an _id and a text")
        value = first_field(record, QUERY_ID_FIELDS, where)
        text = next((text for name in QUERY_FIELDS if (text := first_field(record, (name,), where))), None)
        if value is None or isinstance(value, (dict, list)):
            names = ", ".join(map(repr, field_names(record)[:6]))
            raise InvalidInput(f"{where} has no query id: name the field '_id' (it has {names})")
        query_id = id_text(value, "query", where)
        if keep is not None and query_id not in keep:
            continue
        try:
            text = check_query("" if text is None else text)
        except InvalidInput as err:
            raise InvalidInput(f"{where}, query {query_id!r}: {err}") from None
        if queries.setdefault(query_id, text) != text:
            raise InvalidInput(f"{where}: query {query_id!r} has two texts: keep one")
    return queries


def read_corpus(
    paths: Iterable[Path],
    *,
    ids: set[str],
    skip_bad: bool = False,
    fields: Fields = USUAL,
    delimiter: str | None = None,
) -> tuple[dict[str, Document], list[str]]:
    """The documents of `paths` with an id in `ids`, and notes on bad records. Other documents are not kept.

    `fields` are the fields of a document, `delimiter` is the character between the cells of CSV and TSV. Raises
    InvalidInput for an unusable record; with `skip_bad` it is left out and counted in the notes.
    """
    documents: dict[str, Document] = {}
    skipped: list[str] = []
    remarks: list[str] = []
    text = fields.text if isinstance(fields.text, str) else None
    options = TableOptions(delimiter, text, collection=True, notes=remarks)
    for path in paths:
        for where, record in _records(path, options):
            try:
                if isinstance(record, InvalidInput):
                    raise record
                name = _document_id(record, where, fields)
                if name not in ids:
                    continue
                document = replace(as_document(record, where, fields), record=None)  # the record itself is not kept
                known = documents.setdefault(name, document)
                if (known.title, known.text) != (document.title, document.text):
                    raise InvalidInput(f"{where}: document {name!r} has two texts: keep one")
            except InvalidInput as err:
                if not skip_bad:
                    raise InvalidInput(f"{err} (or go on without it: --skip-bad)") from None
                skipped.append(str(err))
    notes = [f"skipped: {line}" for line in skipped[:3]]
    if len(skipped) > 3:
        notes.append(f"skipped {len(skipped)} records of the corpus in all")
    return documents, [*remarks, *notes]


def _records(path: Path, options: TableOptions) -> Iterator[Record]:
    """The records of a query or corpus file, each with its location."""
    with closing(open_stream(str(path))) as stream:
        yield from _by_id(report_damage(reader_for(str(path), options)(stream, path.name), path.name), options.text)


def _document_id(record: object, where: str, fields: Fields) -> str:
    name = document_id(record, where, fields)
    if name is None:
        has = f" (it has {', '.join(map(repr, field_names(record)[:6]))})" if isinstance(record, Mapping) else ""
        raise InvalidInput(f"{where} has no id: name the field '_id', 'id' or 'docid', or say which it is{has}")
    return name


def _by_id(records: Iterator[Record], text: str | None) -> Iterator[Record]:
    """`records`; of a record that is one object with an id per field (`{"7": "text"}`), a record for each of them."""
    for where, record in records:
        names = list(record) if isinstance(record, Mapping) else []
        if not names or text is not None or any(is_known(name, (*_ID_NAMES, *_TEXT_NAMES)) for name in names):
            yield where, record
            continue
        assert isinstance(record, Mapping)
        for name, value in record.items():
            fields = value if isinstance(value, Mapping) else {"text": value}
            yield f"{where}, {name!r}", {**fields, "_id": name}
