"""The query of `rerank`: a text of the command line, or a text file; other files in its place are named."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from dearlite.cli.reports import note, note_waiting
from dearlite.documents import check_query
from dearlite.errors import InvalidInput, UsageError
from dearlite.files.readers import FORMATS
from dearlite.files.streams import open_stream, utf8_remedy

if TYPE_CHECKING:
    from dearlite.cli.options.model import ModelOptions
    from dearlite.options import Fuse

_TEXT = (".txt", "")  # endings of a query; others are those of documents


Query = str | list[str]  # a list is ranked by each of its queries, and the rankings are fused


def queries_and_docs(
    arguments: tuple[str, ...], query: tuple[str, ...], queries: str | None, query_id: str
) -> tuple[dict[str, Query], str, str]:
    """The queries by id, the path of the documents, and a remark on the query or "".

    A single query has the id `query_id`; several of `query` are one list. Raises UsageError for a wrong number of
    arguments, and for a file of documents in the place of the query.
    """
    if queries is None:
        text, docs, remark = _query_and_docs(arguments, query)
        return {query_id: text}, docs, remark
    if query or len(arguments) != 1:
        raise UsageError(
            "rerank --queries FILE takes DOCS alone: leave out the query (see dearlite rerank -h)"
            if arguments
            else "rerank --queries FILE takes DOCS too: name the file of documents"
        )
    if queries == arguments[0] == "-":
        raise UsageError("standard input cannot hold both the queries and the documents: name one of the files")
    if query_id != "1":
        raise UsageError(
            "--query-id names a single query: with --queries the ids are those of the file, or line numbers"
        )
    return dict(_queries_of(queries)), arguments[0], ""


def texts_of(query: Query) -> list[str]:
    """The texts of one query or of a list of them."""
    return [query] if isinstance(query, str) else query


def check_fusion(jobs: Mapping[str, Query], fuse: Fuse | None, decompose: str | None) -> None:
    """Raises UsageError for a fusion of one query, and for a split of several."""
    lists = [query for query in jobs.values() if isinstance(query, list)]
    if fuse is not None and not lists and decompose is None:
        raise UsageError(f"--fuse {fuse} fuses the rankings of several queries: give -q several times, or leave it out")
    if decompose == "":
        raise UsageError("the name in --decompose is empty: name an instruct model (GGUF), or leave it out")
    if decompose is not None and (lists or len(jobs) > 1):
        raise UsageError(f"--decompose {decompose} splits one query: give one, or leave it out")


def sub_queries_of(query: Query, name: str, options: ModelOptions, *, quiet: bool) -> Query:
    """The query with the sub-queries that the model `name` writes, which stderr shows."""
    from dearlite.listwise.subqueries import decompose

    (text,) = texts_of(query)
    loading = options.loading.arguments()
    texts = decompose(text, name, device=loading["device"], threads=loading["threads"])
    if len(texts) > 1 and not quiet:
        note(f"sub-queries by {name}: {' | '.join(texts[1:])}")
    return texts


def _queries_of(path: str) -> dict[str, str]:
    """Query id -> text. Of a file with a query per line the id is the line's number, from 1."""
    if path != "-" and _ending(path) in FORMATS and f".{_ending(path)}" not in _TEXT:
        from dearlite.offline.collection.texts import read_queries

        if not os.path.isfile(path):
            raise UsageError(f"cannot read {path}: no such file")
        queries = read_queries(Path(path))
    else:
        text = _read_text(path, "the queries")
        if _is_json(text):
            raise UsageError(f"{path} holds JSON, not a query per line: name it .jsonl, with _id and text in each line")
        lines = enumerate(_lines_of(text), start=1)
        queries = {str(number): _checked(line, f" in line {number}") for number, line in lines if line.strip()}
    if not queries:
        raise UsageError(f"{path} holds no queries: give one per line")
    return queries


def _query_and_docs(arguments: tuple[str, ...], query: tuple[str, ...]) -> tuple[Query, str, str]:
    count = 1 if query else 2
    if len(arguments) != count:
        usage = "-q TEXT DOCS" if query else "QUERY DOCS (or -q TEXT DOCS)"
        several = ": give one file of documents" if len(arguments) > count else ""
        raise UsageError(
            f"rerank takes {usage}{several}: {len(arguments)} given instead of {count} (see dearlite rerank -h)"
        )
    if query:
        texts = [
            _checked(text, "" if len(query) == 1 else f" (-q number {n})") for n, text in enumerate(query, start=1)
        ]
        return texts[0] if len(texts) == 1 else texts, arguments[0], ""
    path, docs = arguments
    if path == docs == "-":
        raise UsageError("standard input cannot hold both the query and the documents: give the query by -q TEXT")
    text = _text_of(path, docs)
    lines = len([line for line in _lines_of(text) if line.strip()])
    remark = (
        f"one query of {lines} lines: {path} (the order is QUERY DOCS; for a query per line: --queries {path} DOCS)"
        if lines > 1
        else ""
    )
    return _checked(text, " in its file"), docs, remark


def _text_of(path: str, docs: str) -> str:
    """The text of the query file `path`. Raises UsageError if it holds documents."""
    ending = _ending(path)
    if ending and ending in FORMATS and f".{ending}" not in _TEXT:
        raise UsageError(_swapped(path, docs, f"is {ending.upper()}"))
    text = _read_text(path, "the query")
    if _is_json(text):
        raise UsageError(_swapped(path, docs, "holds JSON"))
    return text


def _read_text(path: str, content: str) -> str:
    """The text of the file `path`, which holds `content`, the query or the queries."""
    note_waiting(path, content)
    if not path:
        raise UsageError(f"the name of the {content.removeprefix('the ')} file is empty: name a file")
    name, remedy = (f"{content.removeprefix('the ')} file", " (or give its text: -q TEXT)" * (content == "the query"))
    try:
        with closing(open_stream(path)) as stream:
            data = stream.read()
    except UsageError as err:
        reason = str(err).removeprefix(f"cannot read {path}: ")
        raise UsageError(f"cannot read the {name} {path}: {reason}{remedy}") from None
    except OSError as err:
        raise UsageError(f"cannot read the {name} {path}: {err.strerror}{remedy}") from None
    try:
        return data.decode()
    except UnicodeDecodeError as err:
        raise InvalidInput(f"{path} is not UTF-8 (byte 0x{data[err.start]:02x}): {utf8_remedy(data)}") from None


def _swapped(path: str, docs: str, reason: str) -> str:
    remedy = "give a text file, or the text itself: -q TEXT"
    if docs != "-" and _may_be_query(docs):
        if os.path.isfile(docs):
            remedy = f"the order is QUERY DOCS: dearlite rerank {shlex.join((docs, path))}"
        elif " " in docs:  # the text itself where a file is expected
            remedy = f"for a query as text: dearlite rerank -q {shlex.join((docs, path))}"
    return f"{path} {reason}, not the text of a query: {remedy}"


def _may_be_query(path: str) -> bool:
    return _ending(path) not in FORMATS or _ending(path) == "txt"


def _ending(path: str) -> str:
    return Path(path).name.lower().removesuffix(".gz").rpartition(".")[2] if "." in Path(path).name else ""


def _lines_of(text: str) -> list[str]:
    """The lines of a file. str.splitlines also ends them at form feeds, U+2028 and the like, which stand in texts."""
    return re.split(r"\r\n?|\n", text)


def _is_json(text: str) -> bool:
    """True if the first line, or the whole text, is a JSON object or list."""
    if not text.lstrip().startswith(("{", "[")):
        return False
    for part in (text, _lines_of(text.strip())[0]):
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
