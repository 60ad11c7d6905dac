"""Training records for stage 2: a query's passages, the order that is right, and the reasoning where there is one.

{"query_id": "1", "query": "…", "passages": [{"docid": "7", "title": "", "text": "…"}], "order": [1, 0],
"reasoning": "…"}                                           ours; `order` holds places in `passages`, best first
{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "[2] > [1]"}]}
a conversation as it stands (RankZephyr's, DeAR-COT's)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dearlite.documents import Document, as_document, check_query
from dearlite.errors import InvalidInput
from dearlite.files.readers import open_stream, reader_for, report_damage
from dearlite.listwise.prompts import Turn

_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class ListRecord:
    """One record: either passages with their order, or `turns` up to the answer, with the answer."""

    place: str
    query: str = ""
    passages: tuple[Document, ...] = ()
    order: tuple[int, ...] = ()
    reasoning: str = ""
    turns: tuple[Turn, ...] = ()
    answer: str = ""

    def written(self, identifiers: Iterable[str]) -> str:
        """The answer's text: the reasoning, then the order."""
        if self.turns:
            return self.answer
        names = list(identifiers)
        order = " > ".join(f"[{names[place]}]" for place in self.order)
        return f"{self.reasoning}\n\n{order}" if self.reasoning else order


def read_list_records(paths: Iterable[Path], *, skip_bad: bool = False) -> tuple[list[ListRecord], int]:
    """Every record of the files, and how many were left out (`skip_bad`). Raises InvalidInput naming the place."""
    records, skipped = [], 0
    for path in paths:
        for record in _read(path):
            if isinstance(record, InvalidInput):
                if not skip_bad:
                    raise record
                skipped += 1
            else:
                records.append(record)
    if not records:
        raise InvalidInput("there is nothing to train on: no record is left")
    return records, skipped


def _read(path: Path) -> Iterator[ListRecord | InvalidInput]:
    with closing(open_stream(str(path))) as stream:
        for place, value in report_damage(reader_for(str(path))(stream, path.name), path.name):
            try:
                yield value if isinstance(value, InvalidInput) else _record(value, place)
            except InvalidInput as err:
                yield err


def _record(value: object, place: str) -> ListRecord:
    if isinstance(value, Mapping) and isinstance(value.get("messages"), list):
        return _conversation(value["messages"], place)
    if not isinstance(value, Mapping) or not isinstance(value.get("passages"), list):
        raise InvalidInput(f"{place}: a record has query, passages and order, or messages (see docs/training.md)")
    passages = tuple(
        replace(as_document(row, f"{place}: passage {at}"), record=None) for at, row in enumerate(value["passages"])
    )
    order, reasoning = value.get("order"), value.get("reasoning") or ""
    if not isinstance(order, list) or sorted(map(str, order)) != sorted(map(str, range(len(passages)))):
        raise InvalidInput(f"{place}: order must hold each place from 0 to {len(passages) - 1} once")
    if not isinstance(reasoning, str):
        raise InvalidInput(f"{place}: reasoning is a {type(reasoning).__name__}, not a string")
    if len(passages) < 2:
        raise InvalidInput(f"{place}: {len(passages)} passages have no order to learn: give two or more")
    try:
        query = check_query(value.get("query"))
    except InvalidInput as err:
        raise InvalidInput(f"{place}: {err}") from None
    return ListRecord(place, query, passages, tuple(map(int, order)), reasoning.strip())


def _conversation(messages: list[Any], place: str) -> ListRecord:
    turns = []
    for message in messages:
        if (
            not isinstance(message, Mapping)
            or message.get("role") not in _ROLES
            or not isinstance(message.get("content"), str)
        ):
            raise InvalidInput(f"{place}: a message has a role ({', '.join(_ROLES)}) and a content")
        turns.append((str(message["role"]), str(message["content"])))
    if len(turns) < 2 or turns[-1][0] != "assistant" or not turns[-1][1].strip():
        raise InvalidInput(f"{place}: the last message must be the assistant's answer")
    return ListRecord(place, turns=tuple(turns[:-1]), answer=turns[-1][1].strip())
