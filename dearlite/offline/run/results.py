"""Scores of a run: those of one query while it is reranked, and the reranked run at the end.

This module knows no model and no journal file.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dearlite.errors import counted
from dearlite.files.json_text import write_rows
from dearlite.files.trec import run_line
from dearlite.files.writing import standard_output, whole_file
from dearlite.offline.collection.collection import Collection
from dearlite.prefixes import WHOLE_CHARACTERS
from dearlite.ranking import PairScore, Ranking
from dearlite.scores import falling_scores, rank_order

_MOST = 2**31  # of a number in a journal entry: the arrays below hold no more on every system


@dataclass(slots=True)
class QueryScores:
    """The scores of one query's documents. A position counts from 0 in the first stage's order; NaN is no score.

    A listwise model or a cascade also gives `order` (positions, best first) and `texts` (the text it wrote). A document
    that a cascade did not read keeps NaN.
    """

    query_id: str
    ids: tuple[str, ...]
    key: str = ""
    scores: array[float] = field(default_factory=lambda: array("d"))
    tokens_used: array[int] = field(default_factory=lambda: array("l"))
    tokens_total: array[int] = field(default_factory=lambda: array("l"))
    order: list[int] | None = None
    texts: dict[str, Any] = field(default_factory=dict)  # "reasons" (by position), "reasoning", "problems"
    seconds: float = 0.0
    restored_s: float = 0.0  # of `seconds`, those of earlier calls
    unsaved: list[int] = field(default_factory=list)  # positions that the journal does not hold yet

    def __post_init__(self) -> None:
        self.scores = array("d", [math.nan]) * len(self.ids)
        self.tokens_used = array("l", [0]) * len(self.ids)
        self.tokens_total = array("l", [0]) * len(self.ids)

    def missing(self) -> list[int]:
        """Positions that are still to be scored."""
        return (
            []
            if self.order is not None
            else [position for position, score in enumerate(self.scores) if math.isnan(score)]
        )

    def score(self, position: int) -> PairScore:
        """The score and token counts of the document at `position`."""
        return PairScore(self.scores[position], self.tokens_used[position], self.tokens_total[position])

    def put(self, position: int, score: PairScore) -> None:
        """Stores one score and marks it as unsaved, unless it is no number: then it is none, and is not kept."""
        self.scores[position], self.tokens_used[position], self.tokens_total[position] = score
        if math.isfinite(score.score):
            self.unsaved.append(position)

    def put_ranking(self, ranking: Ranking) -> None:
        """Stores a ranking of all documents of the query."""
        for hit in ranking:
            score = math.nan if hit.score is None else hit.score
            self.put(hit.index, PairScore(score, hit.tokens_used, hit.tokens_total))
        self.order = [hit.index for hit in ranking]
        reasons = {str(hit.index): hit.reason for hit in ranking if hit.reason}
        texts = {"reasons": reasons, "reasoning": list(ranking.reasoning), "problems": list(ranking.problems)}
        self.texts = {name: value for name, value in texts.items() if value}
        self.seconds += ranking.elapsed_s

    def entry(self, seconds: float) -> dict[str, Any]:
        """A journal entry with the unsaved scores, which then count as saved. `seconds`: time that they took."""
        positions, self.unsaved = self.unsaved, []
        entry: dict[str, Any] = {"key": self.key, "seconds": round(seconds, 6)}
        if len(positions) == len(self.ids) and self.order is None:
            positions = list(range(len(self.ids)))
        else:
            entry["places"] = positions
        for name in ("scores", "tokens_used", "tokens_total"):
            values = getattr(self, name)
            entry[name] = [values[position] for position in positions]
        return entry if self.order is None else entry | {"order": self.order, "said": self.texts}

    def restore(self, entry: Mapping[str, Any]) -> bool:
        """Stores the scores of a journal entry that `entry` made; False for one of another form, which is left out."""
        if not _fits(entry, len(self.ids)):
            return False
        positions = entry.get("places", range(len(self.ids)))
        columns = (entry["scores"], entry["tokens_used"], entry["tokens_total"])
        for position, *values in zip(positions, *columns, strict=True):
            self.scores[position], self.tokens_used[position], self.tokens_total[position] = values
        self.order, self.texts = entry.get("order", self.order), entry.get("said", self.texts)
        self.seconds += entry["seconds"]
        self.restored_s += entry["seconds"]
        return True

    def ranked(self) -> list[int]:
        """Positions, best first; equal scores keep the first stage's order."""
        return self.order if self.order is not None else rank_order(self.scores)

    def own(self, position: int) -> float | None:
        """The score of the last model that read the document at `position`, None if none did."""
        score = self.scores[position]
        return None if math.isnan(score) else score

    def falling(self) -> list[float]:
        """One number per document of `ranked`, never rising: for runs, which are sorted by score."""
        return falling_scores(list(map(self.own, self.ranked())), len(self.ids))


def _fits(entry: Mapping[str, Any], count: int) -> bool:
    """True if a journal entry has the form of `QueryScores.entry` for `count` documents."""
    positions, order, texts = entry.get("places", list(range(count))), entry.get("order"), entry.get("said", {})
    columns = {name: entry.get(name) for name in ("scores", "tokens_used", "tokens_total")}
    lists = [positions, *columns.values()]
    if not all(isinstance(values, list) and len(values) == len(lists[0]) for values in lists):
        return False
    tokens = [*columns["tokens_used"], *columns["tokens_total"]]  # type: ignore[misc]
    numbers = [*columns["scores"], entry.get("seconds")]  # type: ignore[misc]
    return (
        all(type(position) is int and 0 <= position < count for position in positions)
        and all(type(number) is float or (type(number) is int and abs(number) < _MOST) for number in numbers)
        and all(type(number) is int and 0 <= number < _MOST for number in tokens)
        and (order is None or (isinstance(order, list) and sorted(map(str, order)) == sorted(map(str, range(count)))))
        and (order is None or all(type(position) is int for position in order))
        and isinstance(texts, dict)
        and isinstance(texts.get("reasons", {}), dict)
        and all(isinstance(texts.get(name, []), list) for name in ("reasoning", "problems"))
    )


@dataclass(frozen=True)
class RerankedRun:
    """A run in its new order. `identity` is the model's (`Reranker.identity`); `notes` are remarks, a line each.

    `resumed` counts the pairs whose scores came from the journal, `cached` those from the cache.
    """

    collection: Collection
    results: Sequence[QueryScores]
    identity: Mapping[str, str]
    resumed: int = 0
    cached: int = 0
    notes: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """The model's name."""
        return self.identity["model"]

    @property
    def scored(self) -> int:
        """Number of pairs that the model scored in this call."""
        return sum(len(scores.ids) for scores in self.results) - self.resumed - self.cached

    @property
    def seconds(self) -> float:
        """Time that the model took for all queries, earlier calls with the same journal included."""
        return sum(scores.seconds for scores in self.results)

    @property
    def seconds_now(self) -> float:
        """Time in seconds that the model took in this call."""
        return self.seconds - sum(scores.restored_s for scores in self.results)

    @property
    def tokens(self) -> int:
        """Number of tokens that the model read: of the pair for a pointwise model, of the document for a listwise one.

        Tokens of a listwise model's prompt and query are not counted.
        """
        return sum(sum(scores.tokens_used) for scores in self.results)

    @property
    def truncated(self) -> int:
        """Number of pairs that were longer than the model's limit and were cut."""
        counts = (zip(scores.tokens_used, scores.tokens_total, strict=True) for scores in self.results)
        return sum(used < total for pairs in counts for used, total in pairs)

    @cached_property
    def run(self) -> dict[str, dict[str, float]]:
        """Query id -> document id -> score, best first. Scores that rise, as a cascade's can, are `falling_scores`."""
        return {
            scores.query_id: dict(zip((scores.ids[n] for n in scores.ranked()), scores.falling(), strict=True))
            for scores in self.results
        }

    def lines(self) -> Iterator[str]:
        """The lines of a TREC run, queries in the first stage's order."""
        for scores in self.results:
            ranked = zip(scores.ranked(), scores.falling(), strict=True)
            for rank, (position, score) in enumerate(ranked, start=1):
                yield run_line(scores.query_id, scores.ids[position], rank, score, self.model)

    def write_trec(self, path: str | Path) -> None:
        """Writes the TREC run to `path`, "-" for stdout. An error leaves no partial file."""
        with standard_output() if str(path) == "-" else whole_file(path) as stream:
            stream.writelines(self.lines())

    def write_jsonl(self, path: str | Path) -> None:
        """Writes `rows` to `path` as JSON Lines, "-" for stdout. An error leaves no partial file.

        Numbers that JSON cannot hold, NaN and infinity, become null, with one warning that counts them.
        """
        with standard_output(json=True) if str(path) == "-" else whole_file(path) as stream:
            write_rows(self.rows(), stream)

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row per pair: texts, rank and score in both stages, token counts, and a listwise model's reason."""
        for scores in self.results:
            first_scores = list(self.collection.run[scores.query_id].values())
            for rank, position in enumerate(scores.ranked(), start=1):
                document, score = self.collection.documents[scores.ids[position]], scores.own(position)
                stages: list[dict[str, Any]] = [{"name": self.model, "rank": rank, "score": score}]
                if self.collection.first_stage:
                    first = {"name": "first stage", "rank": position + 1, "score": first_scores[position]}
                    stages.insert(0, first)
                row: dict[str, Any] = {
                    "query_id": scores.query_id,
                    "query": self.collection.queries[scores.query_id],
                    "id": scores.ids[position],
                    "title": document.title,
                    "text": document.text,
                    "rank": rank,
                    "score": score,
                    "stages": stages,
                }
                if reason := scores.texts.get("reasons", {}).get(str(position)):
                    row["reason"] = reason
                if scores.tokens_used[position] < scores.tokens_total[position]:
                    row["truncated"] = True
                    if max(len(row["query"]), len(document.title) + len(document.text)) > WHOLE_CHARACTERS:
                        row["tokens_total_is_bound"] = True
                row |= {"tokens_used": scores.tokens_used[position], "tokens_total": scores.tokens_total[position]}
                yield row

    def __repr__(self) -> str:
        return f"<RerankedRun of {self.collection.name} by {self.model}: {counted(len(self.results), 'query')}>"
