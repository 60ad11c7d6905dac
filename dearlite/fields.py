"""Fields of records: the one table of names for texts, ids, titles and queries, and the reading of a field by it.

A record is a mapping, a named tuple, a row of a table, or an object with attributes. No library is imported for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import ne
from types import NoneType
from typing import Any

from dearlite.errors import InvalidInput, UsageError

# The table: names in order of precedence. They cover BEIR, Tevatron, Pyserini, MS MARCO, TREC, ir_datasets, LangChain,
# LlamaIndex, Haystack and plain JSON. A name counts in any letter case, with spaces around it, and with "-", "_" or a
# space, or nothing, between its words; a name that is spelt as here comes before other spellings.
TEXT_FIELDS: tuple[str, ...] = (
    *("text", "contents", "passage", "content", "body", "segment", "page_content", "passage_text", "document_text"),
    *("doc_text", "chunk_text", "chunk", "document", "doc"),
)
ID_FIELDS: tuple[str, ...] = (
    *("id", "_id", "docid", "doc_id", "docno", "pid", "passage_id", "psg_id", "node_id", "document_id", "corpus_id"),
    *("chunk_id", "id_"),
)
TITLE_FIELDS: tuple[str, ...] = ("title",)
QUERY_ID_FIELDS: tuple[str, ...] = ("_id", "id", "qid", "query_id", "question_id", "topic_id")
QUERY_FIELDS: tuple[str, ...] = ("text", "query", "question", "title", "query_text")


def _led_by(first: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """`names` with those of `first` at the head."""
    return (*first, *(name for name in names if name not in first))


# Documents of rank_llm's and RankGPT's records: their own names come first.
CANDIDATE_ID_FIELDS = _led_by(("docid", "id", "_id"), ID_FIELDS)
CANDIDATE_TEXT_FIELDS = _led_by(("content", "contents", "text", "segment", "passage", "body"), TEXT_FIELDS)

# Fields that hold a record: Qdrant's and Elasticsearch's hits, LlamaIndex's nodes, rank_llm's candidates, and so on.
# They are read where the record itself has no text.
INNER_FIELDS = ("payload", "_source", "fields", "properties", "entity", "node", "document", "doc", "metadata", "meta")
# text field of a framework -> fields that hold its id and its title
BESIDE = {"page_content": ("metadata", "meta"), "content": ("meta", "metadata")}
_KNOWN = tuple(dict.fromkeys((*TEXT_FIELDS, *ID_FIELDS, *TITLE_FIELDS, *QUERY_ID_FIELDS, *QUERY_FIELDS, *INNER_FIELDS)))
Source = str | Callable[[Any], object] | None


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of the caller's records that hold text, id and title.

    Each is a name, a path through nested records ("metadata.title"), or a function of the record. None looks for the
    usual names; "" reads no id, or no title.

    ```python
    Fields(text="abstract", id="url", title=lambda page: page["heading"].strip())
    ```
    """

    text: Source = None
    id: Source = None
    title: Source = None

    def __post_init__(self) -> None:
        for part in ("text", "id", "title"):
            if not (isinstance(source := getattr(self, part), (str, NoneType)) or callable(source)):
                raise UsageError(f"fields has the {part} {source!r}: it must be a name, or a function of the record")


USUAL = Fields()


def spelling(name: object) -> str:
    """`name` as names are compared: without letter case, spaces, hyphens and underscores, but for a leading one."""
    text = str(name).strip()
    return ("_" if text.startswith("_") else "") + re.sub(r"[-_\s]+", "", text).casefold()


def is_known(name: object, names: tuple[str, ...]) -> bool:
    """True if `name` is one of `names` in some spelling."""
    return spelling(name) in _spellings(names)


def has_field(record: Mapping[Any, Any], name: str) -> bool:
    """True if `record` has a field `name`, in some spelling, with or without a value."""
    return name in record or bool(_order(tuple(record), (name,)))


def is_missing(value: object) -> bool:
    """True for None, NaN, NaT and pandas' NA: the ways in which a record says that it has no value."""
    if value is None:
        return True
    if isinstance(value, str):
        return False
    if type(value).__name__ == "MaskedConstant":  # a cell of a masked array of NumPy
        return True
    try:
        return bool(ne(value, value))  # NaN and NaT only
    except Exception:  # pandas.NA has no truth value, nor have arrays
        return type(value).__name__ == "NAType"


def is_record(item: object) -> bool:
    """True if `item` may have fields: not for None, a string, a number or a plain list."""
    if isinstance(item, tuple):
        return hasattr(item, "_fields") or hasattr(item, "__fields__")
    return not (item is None or isinstance(item, (str, bytes, bytearray, bool, int, float, list)))


def fields_of(item: object) -> Mapping[Any, Any]:
    """The fields of a record as a mapping; `item` itself if it is one. Of an object, those with a value."""
    if isinstance(item, Mapping):
        return item
    if isinstance(item, tuple):  # named tuples, rows of SQLAlchemy (_fields) and Spark (__fields__)
        names: Any = getattr(item, "_fields", None) or getattr(item, "__fields__", ())
        return dict(zip(names, item, strict=False))
    if (names := getattr(getattr(item, "dtype", None), "names", None)) is not None:  # a row of a structured array
        return {name: item[name] for name in names}  # type: ignore[index]
    if hasattr(item, "to_dict") and hasattr(item, "iloc"):  # a row of a pandas DataFrame
        return dict(item.to_dict())
    keys = getattr(item, "keys", None)
    if callable(keys) and hasattr(item, "__getitem__"):  # sqlite3.Row, rows of other databases
        return {key: item[key] for key in keys()}
    return _attributes(item)


def find_field(record: Mapping[Any, Any], names: tuple[str, ...], where: str = "the record") -> tuple[str, object]:
    """Name and value of the first of the fields `names` that `record` has; ("", None) if it has none.

    Raises InvalidInput, whose message begins with `where`, for two spellings of the name that differ in their values.
    """
    for name, twins in _order(tuple(record), names):
        value = record[name]
        if is_missing(value):
            continue
        for twin in twins:
            if not is_missing(record[twin]) and repr(record[twin]) != repr(value):
                raise InvalidInput(
                    f"{where} has the fields {name!r} and {twin!r} with different values: rename or remove one of them"
                )
        return str(name), value
    return "", None


def rival_field(record: Mapping[Any, Any], names: tuple[str, ...]) -> tuple[str, str]:
    """The field that `find_field` takes and the next of `names` with another text; ("", "") if there is no such other.

    Only texts count: a field that holds a record or a number is no second text.
    """
    texts = [(str(name), value) for name, _ in _order(tuple(record), names) if isinstance(value := record[name], str)]
    for name, value in texts[1:]:
        if value.strip() and value != texts[0][1]:
            return texts[0][0], name
    return "", ""


def first_field(item: object, names: tuple[str, ...], where: str = "the record") -> object:
    """The value of the first of the fields `names` that a record has; None if it has none. Raises InvalidInput."""
    return find_field(fields_of(item), names, where)[1]


def field_names(item: object) -> list[str]:
    """The names of the fields of a record, for messages."""
    return [str(name) for name in fields_of(item)]


def _attributes(item: object) -> dict[str, object]:
    """The attributes that hold data: those of the table, and the object's own. Methods do not count."""
    own = [name for name in getattr(item, "__dict__", ()) if not name.startswith("__")]
    slots = (name for kind in type(item).__mro__ for name in _as_names(kind.__dict__.get("__slots__", ())))
    values = {}
    names = dict.fromkeys((*own, *slots))
    for name in (*names, *(known for known in _KNOWN if known not in names)):
        try:
            value = getattr(item, name, None)
        except Exception:  # a property that does not apply to this object, of an image for example
            continue
        if (value is not None or name in names) and not callable(value):
            values[name] = value
    return values


def _as_names(slots: str | Iterable[str]) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


@lru_cache(maxsize=256)
def _spellings(names: tuple[str, ...]) -> dict[str, int]:
    """Spelling of each name -> its place in `names`."""
    return {spelling(name): place for place, name in reversed(list(enumerate(names)))}


@lru_cache(maxsize=4096)
def _order(present: tuple[Any, ...], names: tuple[str, ...]) -> tuple[tuple[Any, tuple[Any, ...]], ...]:
    """The fields of `present` that are in `names`, best first, each with the other spellings of its name."""
    places = _spellings(names)
    exact = [name for name in names if name in present]
    other = [name for name in present if name not in names and spelling(name) in places]
    order = exact + sorted(other, key=lambda name: places[spelling(name)])
    return tuple(
        (name, tuple(twin for twin in order if twin != name and _twins(name, twin) and not {name, twin} <= set(exact)))
        for name in order
    )


def _twins(name: object, other: object) -> bool:
    return spelling(name) == spelling(other)
