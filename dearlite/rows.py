"""Documents as rows: the caller's record, with the document's id, for files and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def row_of(record: object, doc_id: str | None, title: str, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The caller's record as a row, with an id, and the id where the record has another value under that name."""
    if isinstance(record, Mapping):
        row = dict(record)
        if doc_id is None or ("id" in row and _names(row["id"], doc_id)):
            return row, {}
        return ({"id": doc_id, **row}, {}) if "id" not in row else (row, {"id": doc_id})
    fields = {"id": doc_id, "title": title or None, "text": text}
    row = {name: value for name, value in fields.items() if value is not None}
    if hasattr(record, "place_fields"):  # a passage of a file
        row |= record.place_fields()
    return row, {}


def _names(value: object, document_id: str) -> bool:
    """True if the field `value` is the id: as text, or as a number, of which 7.0 is 7."""
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    return str(number) == document_id
