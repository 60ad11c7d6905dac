"""Documents as rows: the caller's record, with the document's id, for files and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any

PLACE_NUMBERS = ("first_line", "last_line", "page")  # of a passage, None where its kind of file has none


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


def whole_columns(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Those of `names` that a row has, and that hold whole numbers or None in every row."""
    there = [name for name in names if any(name in row for row in rows)]
    return [name for name in there if all(type(row.get(name)) in (int, NoneType) for row in rows)]


def _names(value: object, document_id: str) -> bool:
    """True if the field `value` is the id: as text, or as a number, of which 7.0 is 7."""
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    return str(number) == document_id
