"""Training records of stage 2: the passages of a query in the correct order, optionally with reasoning.

Two forms are read. dearlite's own; `order` holds indices into `passages`, best first:

    {"query_id": "1", "query": "…", "passages": [{"docid": "7", "title": "", "text": "…"}], "order": [1, 0],
     "reasoning": "…"}

A conversation, used without changes (RankZephyr's and DeAR-COT's data):

    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "[2] > [1]"}]}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dearlite.documents import Document, as_document, check_query
from dearlite.errors import InvalidInput
from dearlite.export.train.records.reading import read_records
from dearlite.readable import readable
from dearlite.templates.chat import Turn

_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class ListRecord:
    """A training record: passages with their order, or the `turns` of a conversation with its final `answer`.

    `location` (file:line) is for messages.
    """

    location: str
    query: str = ""
    passages: tuple[Document, ...] = ()
    order: tuple[int, ...] = ()
    reasoning: str = ""
    turns: tuple[Turn, ...] = ()
    answer: str = ""

    def answer_text(self, identifiers: Iterable[str]) -> str:
        """The text to learn: the reasoning, then the order. `identifiers` name the passages in the prompt."""
        if self.turns:
            return self.answer
        names = list(identifiers)
        order = " > ".join(f"[{names[index]}]" for index in self.order)
        return f"{self.reasoning}\n\n{order}" if self.reasoning else order


def read_list_records(paths: Iterable[Path], *, skip_bad: bool = False) -> tuple[list[ListRecord], int]:
    """The records of all files, in order, and the number of bad ones that `skip_bad` left out.

    Raises InvalidInput with the location of a bad record.
    """
    return read_records(paths, _record, skip_bad=skip_bad)


def _record(value: object, location: str) -> ListRecord:
    if isinstance(value, Mapping) and isinstance(value.get("messages"), list):
        return _conversation(value["messages"], location)
    if not isinstance(value, Mapping) or not isinstance(value.get("passages"), list):
        raise InvalidInput(f"{location}: a record has query, passages and order, or messages (see docs/training.md)")
    passages = tuple(
        replace(as_document(row, f"{location}: passage {index}"), record=None)
        for index, row in enumerate(value["passages"])
    )
    order, reasoning = value.get("order"), value.get("reasoning") or ""
    if not isinstance(order, list) or sorted(map(str, order)) != sorted(map(str, range(len(passages)))):
        raise InvalidInput(f"{location}: order must contain each index from 0 to {len(passages) - 1} once")
    if not isinstance(reasoning, str):
        raise InvalidInput(f"{location}: reasoning is a {type(reasoning).__name__}, not a string")
    if len(passages) < 2:
        raise InvalidInput(f"{location}: {len(passages)} passages have no order to learn: give two or more")
    try:
        query = check_query(value.get("query"))
    except InvalidInput as err:
        raise InvalidInput(f"{location}: {err}") from None
    return ListRecord(location, query, passages, tuple(map(int, order)), reasoning.strip())


def _conversation(messages: list[Any], location: str) -> ListRecord:
    turns = []
    for message in messages:
        if (
            not isinstance(message, Mapping)
            or message.get("role") not in _ROLES
            or not isinstance(message.get("content"), str)
        ):
            raise InvalidInput(f"{location}: a message has a role ({', '.join(_ROLES)}) and a content")
        turns.append((str(message["role"]), str(message["content"])))
    if len(turns) < 2 or turns[-1][0] != "assistant" or not readable(turns[-1][1]):
        raise InvalidInput(f"{location}: the last message must be the assistant's answer")
    return ListRecord(location, turns=tuple(turns[:-1]), answer=turns[-1][1].strip())
