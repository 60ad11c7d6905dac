"""A query split into sub-queries by an instruct model, for `rerank` with several queries (cf. Omni-RAG, 2506.21384)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from threading import Event

from dearlite.checks import whole_number
from dearlite.documents import check_query
from dearlite.errors import UsageError, warn
from dearlite.listwise.answers import THINK_END
from dearlite.listwise.reranker import ListwiseReranker
from dearlite.options import MOST_SUB_QUERIES, Device
from dearlite.readable import readable, valid_text
from dearlite.reranker import Reranker

LIMIT = 20  # of `most`: each sub-query reads every document
_TOKENS_EACH = 32  # of a sub-query in the answer
_MOST_CHARACTERS = 400  # of a sub-query
_OPENING = '["'  # of the answer: a small model goes on with a list
_CLOSED = re.compile(r"\]")
_ITEM = re.compile(r'\s*(?P<string>"(?:[^"\\]|\\.)*")\s*(?:,|(?=\])|$)')
_SYSTEM = "You split search queries into simpler ones. You answer with a JSON list of strings and nothing else."
_USER = (
    "Query: {query}\n\n"
    "Write the simpler search queries, at most {most}, that together cover this query, each understandable alone."
)


def decompose(
    query: str,
    model: str | Path | Reranker,
    *,
    most: int = MOST_SUB_QUERIES,
    device: Device = "auto",
    threads: int | None = None,
    cancel: Event | None = None,
) -> list[str]:
    """The `query`, and after it the sub-queries that an instruct model writes: the queries of one call of `rerank`.

    - `model`: a language model in a GGUF, by name or path, or one that is loaded.
    - `most`: largest number of sub-queries, 1 to 20.
    - `device`, `threads`: of a model that is loaded here.
    - `cancel`: event whose setting ends the call with Cancelled.

    The model writes greedily, so that the same query has the same sub-queries. The query is text to it: no word of it
    becomes a special token. A sub-query that repeats another is left out. If the model writes no list of queries, the
    query alone is returned, with a DearliteWarning that shows what it wrote.

    Raises InvalidInput for a query that cannot be read or is too long for the model, UsageError for a model that writes
    no text, and the errors of `Reranker.load`.
    """
    query, most = check_query(query), whole_number("most", most)
    if most > LIMIT:
        raise UsageError(f"most is {most}: it must be {LIMIT} or less, because each sub-query reads every document")
    reranker = model if isinstance(model, Reranker) else Reranker.load(model, device=device, threads=threads)
    try:
        if not isinstance(reranker, ListwiseReranker):
            raise UsageError(f"{reranker.model} writes no text: sub-queries need an instruct model in a .gguf file")
        turns = [("system", _SYSTEM), ("user", _USER.format(most=most, query=query))]
        text = reranker.writer().answer(turns, _OPENING, _TOKENS_EACH * most, stop=_CLOSED, cancel=cancel)
    finally:
        if reranker is not model:
            reranker.close()
    sub_queries = read_sub_queries(text, query, most)
    if not sub_queries:
        shown = ascii(" ".join(text.split())[:60])
        warn(f"{reranker.model} wrote no list of sub-queries, but {shown}: the query is ranked alone")
    return [query, *sub_queries]


def read_sub_queries(text: str, query: str, most: int) -> list[str]:
    """The strings of the first JSON list of strings in a model's `text`, at most `most`, without those like `query`.

    Text up to a closing </think> is not searched. Of a list that breaks off, the whole strings count. Strings that show
    nothing, or are longer than a query is, are left out; control characters become spaces.
    """
    answer = text.rpartition(THINK_END)[2]
    lists = (_strings(answer, opening.end()) for opening in re.finditer(r"\[", answer))
    return _distinct(next(filter(None, lists), []), query)[:most]


def _strings(text: str, start: int) -> list[str]:
    """The JSON strings from `start` up to the list's end, or to the text's; none if another value is among them."""
    strings: list[str] = []
    while match := _ITEM.match(text, start):
        try:
            strings.append(json.loads(match["string"]))
        except ValueError:  # an escape that JSON does not know
            return []
        start = match.end()
    rest = text[start:].lstrip()
    return strings if not rest or rest.startswith(("]", '"')) else []


def _distinct(items: list[str], query: str) -> list[str]:
    seen, texts = {query.casefold()}, []
    for item in items:
        text = " ".join("".join(char if char.isprintable() else " " for char in valid_text(item)).split())
        if readable(text) and len(text) <= _MOST_CHARACTERS and text.casefold() not in seen:
            seen.add(text.casefold())
            texts.append(text)
    return texts
