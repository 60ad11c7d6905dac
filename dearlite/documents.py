"""Queries and documents of the caller, checked and converted to `Document` records. Knows nothing of models or tokens.

The caller's objects are never changed: `Document.record` is the caller's own object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dearlite.errors import InvalidInput
from dearlite.readable import readable

# Field names in order of precedence. They cover BEIR, Tevatron, Pyserini and plain JSON.
TEXT_FIELDS = ("text", "contents", "passage")
ID_FIELDS = ("id", "_id", "docid")
TITLE_FIELDS = ("title",)
QUERY_ID_FIELDS = ("_id", "id", "qid", "query_id")
QUERY_FIELDS = ("text", "query", "title")
# Documents of rank_llm's and RankGPT's records: their own names come first.
CANDIDATE_ID_FIELDS = ("docid", "id", "_id")
CANDIDATE_TEXT_FIELDS = ("content", "contents", "text", "segment", "passage", "body")


@dataclass(frozen=True, slots=True)
class Document:
    """A document: `text` and `title` as the model reads them, `id` as text, and `record`, the caller's own object."""

    text: str
    id: str | None = None
    title: str = ""
    record: object = None


def as_documents(items: Iterable[object]) -> list[Document]:
    """`items` as Documents, in order. Raises InvalidInput with the position, from 0, of a bad document."""
    if isinstance(items, (str, bytes, Mapping, Document)) or not isinstance(items, Iterable):
        raise InvalidInput(f"docs is one {type(items).__name__}, not a list: put it in brackets, [doc]")
    if hasattr(items, "to_dict") and hasattr(
        items, "columns"
    ):  # iterating over a DataFrame would yield its column names
        raise InvalidInput("docs is a DataFrame: pass df.to_dict('records')")
    return [as_document(item, f"document {index}") for index, item in enumerate(items)]


def as_document(item: object, where: str) -> Document:
    """`item` (a string, a mapping, a Document or an object with its attributes) as a Document.

    Raises InvalidInput, whose message begins with `where`, for None, numbers, a missing text, and a text that is empty
    or holds nothing to read (`readable`).
    """
    if isinstance(item, Document):
        return _checked(_clean(item.text, where), item.id, _clean(item.title, where), item.record, where)
    if isinstance(item, str):
        return _checked(item, None, "", item, where)
    if item is None or isinstance(item, (bool, int, float, bytes, list, tuple)):
        kind = "null" if item is None else f"a {type(item).__name__}"
        raise InvalidInput(f"{where} is {kind}, not a document: give a string or a record with a 'text' field")
    text = first_field(item, TEXT_FIELDS)
    if text is None:
        fields = f" (it has {', '.join(map(repr, list(item)[:6]))})" if isinstance(item, Mapping) and item else ""
        raise InvalidInput(f"{where} has no text{fields}: name the field 'text', 'contents' or 'passage'")
    title, doc_id = first_field(item, TITLE_FIELDS), first_field(item, ID_FIELDS)
    for name, value in (("text", text), ("title", title)):
        if value is not None and not isinstance(value, str):
            raise InvalidInput(f"{where} has a {type(value).__name__} as its {name}: it must be a string")
    if isinstance(doc_id, (Mapping, list)):
        raise InvalidInput(f"{where} has a {type(doc_id).__name__} as its id: it must be a string or a number")
    return _checked(str(text), None if doc_id is None else _clean(str(doc_id), where), str(title or ""), item, where)


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


def first_field(item: object, names: tuple[str, ...]) -> object:
    """The first of the fields `names` of a mapping or object that is not None; None if there is none."""
    for name in names:
        value = item.get(name) if isinstance(item, Mapping) else getattr(item, name, None)
        if value is not None:
            return value
    return None


def _clean(text: str, where: str) -> str:
    """`text` as valid UTF-8: surrogate pairs are joined, a lone surrogate becomes U+FFFD.

    JSON may legally hold a lone surrogate, which no tokenizer accepts.
    """
    if not isinstance(text, str):
        raise InvalidInput(f"{where} has a {type(text).__name__} as its text or title: it must be a string")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
