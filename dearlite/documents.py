"""Queries and documents of the caller, checked and converted to `Document` records. Knows nothing of models or tokens.

The caller's objects are never changed: `Document.record` is the caller's own object.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import isinf
from numbers import Integral, Real
from typing import Any

from dearlite.errors import InvalidInput
from dearlite.fields import (
    BESIDE,
    ID_FIELDS,
    INNER_FIELDS,
    TEXT_FIELDS,
    TITLE_FIELDS,
    USUAL,
    Fields,
    Source,
    fields_of,
    find_field,
    has_field,
    is_known,
    is_missing,
    is_record,
)
from dearlite.readable import readable, valid_text


@dataclass(frozen=True, slots=True)
class Document:
    """A document: `text` and `title` as the model reads them, `id` as text, and `record`, the caller's own object."""

    text: str
    id: str | None = None
    title: str = ""
    record: object = None


class CheckedDocuments(tuple[Document, ...]):
    """Documents that `as_documents` returns as they are: they were checked once, and cannot change."""


def as_documents(items: Iterable[object], fields: Fields = USUAL) -> Sequence[Document]:
    """`items` as Documents, in order. Raises InvalidInput with the position, from 0, of a bad document.

    `items` is any iterable of documents (`as_document`), or a table, whose rows are the documents: a DataFrame of
    pandas or polars, or a table of Arrow.
    """
    if isinstance(items, CheckedDocuments):
        return items
    if not isinstance(fields, Fields):
        raise InvalidInput(f"fields is a {type(fields).__name__}: give Fields(text=...)")
    rows = _rows(items)
    if isinstance(rows, (str, bytes, Mapping, Document)) or not isinstance(rows, Iterable) or _is_row(rows):
        remedy = "give a list of documents" if items is None else "put it in brackets, [doc]"
        if isinstance(rows, Mapping) and not isinstance(find_field(rows, TEXT_FIELDS, "docs")[1], (str, type(None))):
            remedy = "give a record per document, [{'text': ...}, ...]"  # a list or mapping of texts: columns
        elif isinstance(rows, Mapping) and not any(is_known(name, TEXT_FIELDS) for name in rows):
            remedy = "give a record per document, [{'id': key, 'text': value} for key, value in docs.items()]"
        raise InvalidInput(f"docs is one {type(items).__name__}, not a list: {remedy}")
    return [as_document(row, f"document {index}", fields) for index, row in enumerate(rows)]


def as_document(item: object, where: str, fields: Fields = USUAL) -> Document:
    """`item` as a Document: a string, a Document, or a record whose `fields` hold its text, id and title.

    A record is a mapping, a named tuple, a row of a table or an object with attributes. Missing values (None, NaN, NaT,
    NA) count as no value. An id becomes text; of a whole number it is that number, 1.0 is "1".

    Raises InvalidInput, whose message begins with `where`, for None, numbers, a missing text, a text that is empty or
    holds nothing to read (`readable`), and values that are no text.
    """
    if isinstance(item, Document):
        return _checked(
            _clean(item.text, where),
            _id_text(item.id, where),
            _clean(item.title, where),
            item if item.record is None else item.record,
            where,
        )
    if isinstance(item, str):
        return _checked(item, None, "", item, where)
    if not is_record(item) or is_missing(item):
        kind = "null" if item is None else f"a {type(item).__name__}" + (" (a missing value)" * is_missing(item))
        raise InvalidInput(f"{where} is {kind}, not a document: give a string or a record with a 'text' field")
    text, title, doc_id = _values(item, fields, where)
    for name, value in (("text", text), ("title", title)):
        if value is not None and not isinstance(value, str):
            raise InvalidInput(
                f"{where} has a {type(value).__name__} as its {name}: it must be a string; join or convert it, or name "
                f"another field ({_option(name)})"
            )
    return _checked(str(text), _id_text(doc_id, where), str(title or ""), item, where)


def document_id(item: object, where: str, fields: Fields = USUAL) -> str | None:
    """The id of a record as text, None if it has none; the text is not looked at. Raises InvalidInput."""
    return _id_text(_other(item, [fields_of(item)], fields.id, "id", where), where) if is_record(item) else None


def _values(item: object, fields: Fields, where: str) -> tuple[object, object, object]:
    """Text, title and id of a record, None where it has none. Raises InvalidInput for a missing text."""
    record = fields_of(item)
    inner: Mapping[Any, Any] = {}
    name, text = "", None
    if fields.text is None:
        name, text = find_field(record, TEXT_FIELDS, where)
        if name in INNER_FIELDS and not isinstance(text, str):  # a record: its text is in it
            name, text = "", None
        if text is None:
            inner, text = _inner_text(item, record, where)
    else:
        text = _named(item, record, fields.text, "text", where)
    if is_missing(text):
        names = ", ".join(map(repr, list(record)[:6]))
        has = f" (it has {names})" if names else ""
        raise InvalidInput(
            f"{where} has no text{has}: name the field 'text', 'contents' or 'passage', or say which it is "
            f"({_option('text')})"
        )
    others = (record, inner, *_beside(record, name))
    return text, _other(item, others, fields.title, "title", where), _other(item, others, fields.id, "id", where)


def _inner_text(item: object, record: Mapping[Any, Any], where: str) -> tuple[Mapping[Any, Any], object]:
    """The record within `record` that has a text, and the text; of LlamaIndex's nodes the text that they compute."""
    inner = {name: fields_of(record[name]) for name in INNER_FIELDS if is_record(record.get(name))}
    for fields in inner.values():
        text = find_field(fields, TEXT_FIELDS, where)[1]
        if isinstance(text, str):
            return fields, text
    compute = None if isinstance(item, Mapping) else getattr(item, "get_content", None)
    return inner.get("node", {}), compute() if callable(compute) else None


def _beside(record: Mapping[Any, Any], name: str) -> Iterator[Mapping[Any, Any]]:
    """The records in which a framework keeps id and title of the text in the field `name`."""
    for field in BESIDE.get(name, ()):
        if is_record(value := record.get(field)):
            yield fields_of(value)


def _other(item: object, records: Iterable[Mapping[Any, Any]], source: Source, part: str, where: str) -> object:
    """The id or the title (`part`) in the first of `records` that has one; the first of them is the item's own."""
    if source == "":
        return None
    if source is not None:
        return _named(item, next(iter(records)), source, part, where)
    names = ID_FIELDS if part == "id" else TITLE_FIELDS
    return next((value for record in records if (value := find_field(record, names, where)[1]) is not None), None)


def _named(item: object, record: Mapping[Any, Any], source: Source, part: str, where: str) -> object:
    """The value that `source`, a name, a path or a function, has in a record. Raises InvalidInput for an unknown name.

    A title may be absent: records of JSON Lines often have the fields only that have a value.
    """
    if callable(source):
        value = source(item)
        return None if is_missing(value) else value
    name, _, rest = str(source), None, ""
    if not has_field(record, name) and "." in name:
        name, _, rest = name.partition(".")
    if has_field(record, name):
        value = find_field(record, (name,), where)[1]
        if not rest:
            return value
        if is_record(value):
            return _named(value, fields_of(value), rest, part, where)
    if part == "title":
        return None
    names = ", ".join(map(repr, list(record)[:6])) or "none"
    raise InvalidInput(f"{where} has no field {source!r} for its {part} (it has {names})")


def _id_text(value: object, where: str) -> str | None:
    """An id as text; None if it is missing or only spaces. Raises InvalidInput for a value that names nothing."""
    if is_missing(value):
        return None
    if isinstance(value, (Mapping, list, tuple, set, bytes, bytearray)) or (
        hasattr(value, "__array__") and (getattr(value, "shape", ()) != ())
    ):
        raise InvalidInput(
            f"{where} has a {type(value).__name__} as its id: it must be a string or a number; name another field "
            f"({_option('id')})"
        )
    if type(value).__str__ is object.__str__ and type(value).__repr__ is object.__repr__:  # its address alone
        raise InvalidInput(f"{where} has a {type(value).__name__} as its id: it must be a string or a number")
    if isinstance(value, (Real, Decimal)) and not isinstance(value, (Integral, Fraction)):
        number = float(value)
        if isinf(number):
            raise InvalidInput(f"{where} has the id {value}, which names nothing: give a string or a whole number")
        if abs(number) >= 2**53:  # neighbours of such a number are lost: two ids may have become one
            raise InvalidInput(
                f"{where} has the id {value}, a float that has lost its last digits: read ids as strings"
            )
        value = int(number) if number.is_integer() else value
    text = _clean(str(value), where)
    return text if text.strip() else None


def _option(part: str) -> str:
    return f"--{part}-field, from Python fields=Fields({part}=...)"


def _is_row(items: object) -> bool:
    """True for one row of a table or a named tuple: iterating would take each of its cells for a document."""
    row = isinstance(items, tuple) or (hasattr(items, "iloc") and not hasattr(items, "columns"))
    return row and is_record(items) and any(is_known(name, TEXT_FIELDS) for name in fields_of(items))


def _rows(items: object) -> object:
    """`items`; of a table its rows, as mappings."""
    if not hasattr(items, "columns"):
        return items
    for method in ("to_dicts", "to_pylist"):  # polars, Arrow
        if hasattr(items, method):
            return getattr(items, method)()
    if not hasattr(items, "to_dict"):
        return items
    columns, index = list(items.columns), getattr(items, "index", ())
    name = getattr(index, "name", None)
    is_id = name is not None and is_known(name, ID_FIELDS)
    if is_id and (name not in columns or list(items[name]) != list(index)):  # type: ignore[index]
        columns.append(name)
    repeated = [name for name, count in Counter(columns).items() if count > 1]
    if repeated:
        raise InvalidInput(f"docs has two columns of the name {repeated[0]!r}: rename or drop one of them")
    if len(columns) > len(items.columns):
        items = items.reset_index()  # type: ignore[attr-defined]  # set_index("docno"): the ids are no column
    return items.to_dict("records")


def check_query(query: object) -> str:
    """`query` without spaces around it, as valid UTF-8. Raises InvalidInput if it is no string or nothing to read."""
    if not isinstance(query, str):
        raise InvalidInput(f"the query is a {type(query).__name__}: it must be a string")
    query = _clean(query.strip(), "the query")
    if not readable(query):
        raise InvalidInput(f"the query {emptiness(query)}: give at least one word")
    return query


def _checked(text: str, doc_id: str | None, title: str, record: object, where: str) -> Document:
    text, title = _clean(text, where), _clean(title, where)
    if not readable(text) and not readable(title):
        raise InvalidInput(f"{where} {emptiness(title + text)}: remove it, or give it a text")
    return Document(text, doc_id, title, record)


def emptiness(text: str) -> str:
    """The reason why `text`, which is not readable, is empty, as the rest of a sentence about it."""
    names = dict.fromkeys(f"U+{ord(char):04X}" for char in text.strip()[:64] if not char.isspace())
    if not names:
        return "is empty or only spaces"
    return f"has nothing to read, only characters that show nothing ({', '.join(list(names)[:3])})"


def _clean(text: str, where: str) -> str:
    """`text` as `valid_text`. Raises InvalidInput for another type."""
    if not isinstance(text, str):
        raise InvalidInput(f"{where} has a {type(text).__name__} as its text or title: it must be a string")
    return valid_text(text)
