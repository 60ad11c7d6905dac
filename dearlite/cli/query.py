"""The query of `rerank`: a text of the command line, or a text file; other files in its place are named."""

from __future__ import annotations

import json
import shlex
from contextlib import closing
from pathlib import Path

from dearlite.cli.reports import note_waiting
from dearlite.documents import check_query
from dearlite.errors import InvalidInput, UsageError
from dearlite.files.readers import FORMATS
from dearlite.files.streams import open_stream, utf8_remedy

_TEXT = (".txt", "")  # endings of a query; others are those of documents


def query_and_docs(arguments: tuple[str, ...], query: str | None) -> tuple[str, str, str]:
    """The query, the path of the documents, and a remark on the query or "".

    Raises UsageError for a wrong number of arguments, and for a file of documents in the place of the query.
    """
    count = 1 if query is not None else 2
    if len(arguments) != count:
        usage = "-q TEXT DOCS" if query is not None else "QUERY DOCS (or -q TEXT DOCS)"
        several = ": give one file of documents" if len(arguments) > count else ""
        raise UsageError(
            f"rerank takes {usage}{several}: {len(arguments)} given instead of {count} (see dearlite rerank -h)"
        )
    if query is not None:
        return _checked(query, ""), arguments[0], ""
    path, docs = arguments
    if path == docs == "-":
        raise UsageError("standard input cannot hold both the query and the documents: give the query by -q TEXT")
    text = _text_of(path, docs)
    lines = len([line for line in text.splitlines() if line.strip()])
    remark = (
        f"the {lines} lines of {path} are one query (the order is QUERY DOCS; for several queries: dearlite batch)"
        if lines > 1
        else ""
    )
    return _checked(text, " in its file"), docs, remark


def _text_of(path: str, docs: str) -> str:
    """The text of the query file `path`. Raises UsageError if it holds documents."""
    ending = _ending(path)
    if ending and ending in FORMATS and f".{ending}" not in _TEXT:
        raise UsageError(_swapped(path, docs, f"is {ending.upper()}"))
    note_waiting(path, "the query")
    try:
        with closing(open_stream(path)) as stream:
            data = stream.read()
    except UsageError as err:
        reason = str(err).removeprefix(f"cannot read {path}: ")
        raise UsageError(f"cannot read the query file {path}: {reason} (or give its text: -q TEXT)") from None
    except OSError as err:
        raise UsageError(f"cannot read the query file {path}: {err.strerror} (or give its text: -q TEXT)") from None
    try:
        text = data.decode()
    except UnicodeDecodeError as err:
        raise InvalidInput(f"{path} is not UTF-8 (byte 0x{data[err.start]:02x}): {utf8_remedy(data)}") from None
    if _is_json(text):
        raise UsageError(_swapped(path, docs, "holds JSON"))
    return text


def _swapped(path: str, docs: str, reason: str) -> str:
    remedy = "give a text file, or the text itself: -q TEXT"
    if docs != "-" and _may_be_query(docs):
        if Path(docs).is_file():
            remedy = f"the order is QUERY DOCS: dearlite rerank {shlex.join((docs, path))}"
        elif " " in docs:  # the text itself where a file is expected
            remedy = f"for a query as text: dearlite rerank -q {shlex.join((docs, path))}"
    return f"{path} {reason}, not the text of a query: {remedy}"


def _may_be_query(path: str) -> bool:
    return _ending(path) not in FORMATS or _ending(path) == "txt"


def _ending(path: str) -> str:
    return Path(path).name.lower().removesuffix(".gz").rpartition(".")[2] if "." in Path(path).name else ""


def _is_json(text: str) -> bool:
    """True if the first line, or the whole text, is a JSON object or list."""
    if not text.lstrip().startswith(("{", "[")):
        return False
    for part in (text, text.strip().splitlines()[0]):
        try:
            return isinstance(json.loads(part), (dict, list))
        except (ValueError, RecursionError):
            continue
    return False


def _checked(text: str, place: str) -> str:
    try:
        return check_query(text)
    except InvalidInput as err:
        raise UsageError(f"{err}{place}") from None
