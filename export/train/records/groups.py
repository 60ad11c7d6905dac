"""Training records of stage 1: groups of a query, its positives and negatives, optionally with a teacher's scores.

    {"query_id": "1", "query": "…", "positives": [{"docid": "7", "title": "", "text": "…", "teacher_score": 9.1}],
     "negatives": [{"docid": "9", "title": "", "text": "…", "teacher_score": -3.2}]}

One object per line (JSON Lines, also gzipped) or one row of a Parquet file. Tevatron's `positive_passages` and
`negative_passages` are the same lists without scores.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dearlite.documents import Document, as_document, check_query
from dearlite.errors import InvalidInput
from dearlite.export.train.records.reading import read_records

# the fields that hold each list; the first that is present is read
_FIELDS = {"positives": ("positives", "positive_passages"), "negatives": ("negatives", "negative_passages")}


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage with the teacher's logit for its query; NaN: not scored."""

    document: Document
    teacher_score: float


@dataclass(frozen=True, slots=True)
class Group:
    """A query with its positives and negatives; `location` (file:line) is for messages."""

    query_id: str
    query: str
    positives: tuple[Passage, ...]
    negatives: tuple[Passage, ...]
    location: str

    @property
    def scored(self) -> bool:
        """True if every passage has a teacher's score."""
        return not any(math.isnan(passage.teacher_score) for passage in (*self.positives, *self.negatives))

    def sample(self, size: int, rng: random.Random) -> tuple[Passage, ...]:
        """One positive, then `size` - 1 distinct negatives, or all negatives if there are fewer."""
        negatives = rng.sample(self.negatives, min(size - 1, len(self.negatives)))
        return (rng.choice(self.positives), *negatives)


def read_groups(paths: Iterable[Path], *, skip_bad: bool = False) -> tuple[list[Group], int]:
    """The groups of all files, in order, and the number of bad ones that `skip_bad` left out.

    Raises InvalidInput with the location of a group without a positive or a negative, of an empty text, or of a score
    that is not a number. Raises it too when some passages have a teacher's score and others have none: that is taken
    for a mistake in the data.
    """
    groups, skipped = read_records(paths, _group, skip_bad=skip_bad)
    _check_scores(groups)
    return groups, skipped


def _group(value: object, location: str) -> Group:
    if not isinstance(value, Mapping) or not isinstance(value.get("query"), str):
        raise InvalidInput(f"{location}: a training record has a query, positives and negatives (see docs/training.md)")
    query_id = str(value.get("query_id", location))
    sides = {
        side: tuple(_passages(value, names, f"{location}: query {query_id!r}, {side}"))
        for side, names in _FIELDS.items()
    }
    for side, passages in sides.items():
        if not passages:
            raise InvalidInput(f"{location}: query {query_id!r} has no {side}: add some, or set skip_bad")
    try:
        query = check_query(value["query"])
    except InvalidInput as err:
        raise InvalidInput(f"{location}: {err}") from None
    return Group(query_id, query, **sides, location=location)


def _passages(value: Mapping[str, Any], names: Iterable[str], location: str) -> Iterator[Passage]:
    """The passages in the first field of `names` that is present."""
    rows: Iterable[Any] = next((value[name] for name in names if value.get(name) is not None), [])
    if not isinstance(rows, list):
        raise InvalidInput(f"{location}: passages are a list of objects with docid, title and text")
    for row in rows:
        if not isinstance(row, Mapping):
            raise InvalidInput(f"{location}: a passage is an object with docid, title and text")
        document = replace(as_document(row, location), id=str(row.get("docid", "")) or None, record=None)
        score = row.get("teacher_score")
        if score is not None and (isinstance(score, bool) or not isinstance(score, (int, float))):
            raise InvalidInput(f"{location}: teacher_score is {score!r}, not a number")
        if score is not None and not -sys.float_info.max <= score <= sys.float_info.max:
            raise InvalidInput(f"{location}: teacher_score is {str(score)[:20]}: it must be finite")
        yield Passage(document, math.nan if score is None else float(score))


def _check_scores(groups: list[Group]) -> None:
    passages = [(group, passage) for group in groups for passage in (*group.positives, *group.negatives)]
    unscored = [group for group, passage in passages if math.isnan(passage.teacher_score)]
    if unscored and len(unscored) < len(passages):
        raise InvalidInput(
            f"{unscored[0].location}: {len(unscored)} of {len(passages)} passages have no teacher_score "
            f"(query {unscored[0].query_id!r} first): score all of them, or none (dearlite train mine)"
        )
