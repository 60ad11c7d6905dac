"""Training groups for stage 1: a query with its positives and negatives, and the teacher's scores where there are any.

    {"query_id": "1", "query": "…", "positives": [{"docid": "7", "title": "", "text": "…", "teacher_score": 9.1}],
     "negatives": [{"docid": "9", "title": "", "text": "…", "teacher_score": -3.2}]}

One object a line (JSON Lines, also .gz, or Parquet). Tevatron's `positive_passages` and `negative_passages` are the
same lists without the scores.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dearlite.documents import Document, as_document, check_query
from dearlite.errors import InvalidInput
from dearlite.files.readers import open_stream, reader_for, report_damage

_LISTS = {"positives": ("positives", "positive_passages"), "negatives": ("negatives", "negative_passages")}


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage; `teacher_score` is NaN where there is none."""

    document: Document
    teacher_score: float


@dataclass(frozen=True, slots=True)
class Group:
    """One query; `place` is where it stands, for messages."""

    query_id: str
    query: str
    positives: tuple[Passage, ...]
    negatives: tuple[Passage, ...]
    place: str

    @property
    def scored(self) -> bool:
        """Whether the teacher's score of every passage is here."""
        return not any(math.isnan(one.teacher_score) for one in (*self.positives, *self.negatives))

    def sample(self, size: int, rng: random.Random) -> tuple[Passage, ...]:
        """A positive first, then `size` - 1 different negatives, fewer where there are no more."""
        negatives = rng.sample(self.negatives, min(size - 1, len(self.negatives)))
        return (rng.choice(self.positives), *negatives)


def read_groups(paths: Iterable[Path], *, skip_bad: bool = False) -> tuple[list[Group], int]:
    """Every group of the files, and how many were left out (`skip_bad`).

    Raises InvalidInput naming the place: no positive, no negative, an empty text, a score that is no number; or where a
    part of the passages has the teacher's scores and another has none, for that is an accident.
    """
    groups, skipped = [], 0
    for path in paths:
        for group in _read(path):
            if isinstance(group, InvalidInput):
                if not skip_bad:
                    raise group
                skipped += 1
            else:
                groups.append(group)
    if not groups:
        raise InvalidInput("there is nothing to train on: no group is left")
    _check_scores(groups)
    return groups, skipped


def _read(path: Path) -> Iterator[Group | InvalidInput]:
    with closing(open_stream(str(path))) as stream:
        for place, record in report_damage(reader_for(str(path))(stream, path.name), path.name):
            try:
                yield record if isinstance(record, InvalidInput) else _group(record, place)
            except InvalidInput as err:
                yield err


def _group(value: object, place: str) -> Group:
    if not isinstance(value, Mapping) or not isinstance(value.get("query"), str):
        raise InvalidInput(f"{place}: a training record has a query, positives and negatives (see docs/training.md)")
    query_id = str(value.get("query_id", place))
    sides = {
        side: tuple(_passages(value, names, f"{place}: query {query_id!r}, {side}")) for side, names in _LISTS.items()
    }
    for side, passages in sides.items():
        if not passages:
            raise InvalidInput(f"{place}: query {query_id!r} has no {side}: add some, or set skip_bad")
    try:
        query = check_query(value["query"])
    except InvalidInput as err:
        raise InvalidInput(f"{place}: {err}") from None
    return Group(query_id, query, **sides, place=place)


def _passages(value: Mapping[str, Any], names: Iterable[str], what: str) -> Iterator[Passage]:
    rows: Iterable[Any] = next((value[name] for name in names if value.get(name) is not None), [])
    for row in rows:
        if not isinstance(row, Mapping):
            raise InvalidInput(f"{what}: a passage is an object with docid, title and text")
        document = replace(as_document(row, what), id=str(row.get("docid", "")) or None, record=None)
        score = row.get("teacher_score")
        if score is not None and (isinstance(score, bool) or not isinstance(score, (int, float))):
            raise InvalidInput(f"{what}: teacher_score is {score!r}, not a number")
        if score is not None and not math.isfinite(score):
            raise InvalidInput(f"{what}: teacher_score is {score}: it must be finite")
        yield Passage(document, math.nan if score is None else float(score))


def _check_scores(groups: list[Group]) -> None:
    passages = [(group, one) for group in groups for one in (*group.positives, *group.negatives)]
    without = [group for group, one in passages if math.isnan(one.teacher_score)]
    if without and len(without) < len(passages):
        raise InvalidInput(
            f"{without[0].place}: {len(without)} of {len(passages)} passages have no teacher_score "
            f"(query {without[0].query_id!r} first): score all of them, or none (dearlite train mine)"
        )
