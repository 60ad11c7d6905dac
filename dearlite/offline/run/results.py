"""One query's results while a run is reranked, and the whole of them when it is done. Knows no model and no journal."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dearlite.files.trec import run_line
from dearlite.files.writing import json_text, whole_file
from dearlite.offline.collection.collection import Collection
from dearlite.ranking import PairScore, Ranking, rank_order


@dataclass(slots=True)
class QueryResult:
    """The scores of one query's documents, by their place in the first stage; NaN where there is none yet.

    Of a listwise model `order` holds the places, best first, and `said` what it wrote.
    """

    query_id: str
    ids: tuple[str, ...]
    key: str = ""
    scores: array[float] = field(default_factory=lambda: array("d"))
    tokens_used: array[int] = field(default_factory=lambda: array("l"))
    tokens_total: array[int] = field(default_factory=lambda: array("l"))
    order: list[int] | None = None
    said: dict[str, Any] = field(default_factory=dict)  # reasons by place, reasoning, problems
    seconds: float = 0.0
    unsaved: list[int] = field(default_factory=list)  # places that are not in the journal yet

    def __post_init__(self) -> None:
        self.scores = array("d", [math.nan]) * len(self.ids)
        self.tokens_used = array("l", [0]) * len(self.ids)
        self.tokens_total = array("l", [0]) * len(self.ids)

    def missing(self) -> list[int]:
        """Places without a score."""
        return [place for place, score in enumerate(self.scores) if math.isnan(score)]

    def score(self, place: int) -> PairScore:
        """What is known of the document at `place`."""
        return PairScore(self.scores[place], self.tokens_used[place], self.tokens_total[place])

    def put(self, place: int, score: PairScore) -> None:
        """Takes one score."""
        self.scores[place], self.tokens_used[place], self.tokens_total[place] = score
        self.unsaved.append(place)

    def put_ranking(self, ranking: Ranking) -> None:
        """Takes a listwise model's order of all the documents."""
        for hit in ranking:
            self.put(hit.index, PairScore(hit.score, hit.tokens_used, hit.tokens_total))
        self.order = [hit.index for hit in ranking]
        reasons = {str(hit.index): hit.reason for hit in ranking if hit.reason}
        said = {"reasons": reasons, "reasoning": list(ranking.reasoning), "problems": list(ranking.problems)}
        self.said = {name: value for name, value in said.items() if value}
        self.seconds += ranking.elapsed_s

    def entry(self, seconds: float) -> dict[str, Any]:
        """What the journal gets to hold: all that is new since the last time. `seconds` is what it took."""
        places, self.unsaved = self.unsaved, []
        entry: dict[str, Any] = {"key": self.key, "seconds": round(seconds, 6)}
        if len(places) == len(self.ids) and self.order is None:
            places = list(range(len(self.ids)))
        else:
            entry["places"] = places
        for name in ("scores", "tokens_used", "tokens_total"):
            values = getattr(self, name)
            entry[name] = [values[place] for place in places]
        return entry if self.order is None else entry | {"order": self.order, "said": self.said}

    def take(self, entry: Mapping[str, Any]) -> None:
        """Takes what `entry` gave to the journal."""
        places = entry.get("places", range(len(self.ids)))
        for place, *values in zip(places, entry["scores"], entry["tokens_used"], entry["tokens_total"], strict=True):
            self.scores[place], self.tokens_used[place], self.tokens_total[place] = values
        self.order, self.said = entry.get("order", self.order), entry.get("said", self.said)
        self.seconds += entry["seconds"]

    def ranked(self) -> list[int]:
        """Places, best first; equal scores keep the first stage's order."""
        return self.order if self.order is not None else rank_order(self.scores)


@dataclass(frozen=True)
class RerankedRun:
    """A run and its new order. `identity` is what made it (`Reranker.identity`), `notes` what there is to say.

    `resumed` counts the pairs that the journal had, `cached` those that the cache had; `scored` all others.
    """

    collection: Collection
    results: Sequence[QueryResult]
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
        """How many pairs the model read this time."""
        return sum(len(result.ids) for result in self.results) - self.resumed - self.cached

    @property
    def seconds(self) -> float:
        """How long the model took for all queries, earlier runs of the journal included."""
        return sum(result.seconds for result in self.results)

    @property
    def tokens(self) -> int:
        """How many tokens the model read, a pair's query included; of a listwise model its documents' tokens alone."""
        return sum(sum(result.tokens_used) for result in self.results)

    @property
    def truncated(self) -> int:
        """How many pairs did not fit and were cut."""
        pairs = (zip(r.tokens_used, r.tokens_total, strict=True) for r in self.results)
        return sum(used < total for pair in pairs for used, total in pair)

    @cached_property
    def run(self) -> dict[str, dict[str, float]]:
        """Query id -> document id -> score, best first."""
        return {r.query_id: {r.ids[place]: r.scores[place] for place in r.ranked()} for r in self.results}

    def lines(self) -> Iterator[str]:
        """The lines of a TREC run, queries in the first stage's order."""
        for result in self.results:
            for rank, place in enumerate(result.ranked(), start=1):
                yield run_line(result.query_id, result.ids[place], rank, result.scores[place], self.model)

    def write_trec(self, path: str | Path) -> None:
        """The run as a file, whole or not at all."""
        with whole_file(Path(path)) as stream:
            stream.writelines(self.lines())

    def write_jsonl(self, path: str | Path) -> None:
        """A row for each pair: texts, rank and score in each stage, and what a listwise model said of it."""
        with whole_file(Path(path)) as stream:
            stream.writelines(json_text(row) + "\n" for row in self.rows())

    def rows(self) -> Iterator[dict[str, Any]]:
        """What `write_jsonl` writes."""
        for result in self.results:
            first = list(self.collection.run[result.query_id].values())
            for rank, place in enumerate(result.ranked(), start=1):
                document, score = self.collection.documents[result.ids[place]], result.scores[place]
                row: dict[str, Any] = {
                    "query_id": result.query_id,
                    "query": self.collection.queries[result.query_id],
                    "id": result.ids[place],
                    "title": document.title,
                    "text": document.text,
                    "rank": rank,
                    "score": score,
                    "stages": [
                        {"name": "first stage", "rank": place + 1, "score": first[place]},
                        {"name": self.model, "rank": rank, "score": score},
                    ],
                }
                if reason := result.said.get("reasons", {}).get(str(place)):
                    row["reason"] = reason
                if result.tokens_used[place] < result.tokens_total[place]:
                    row["truncated"] = True
                row |= {"tokens_used": result.tokens_used[place], "tokens_total": result.tokens_total[place]}
                yield row

    def __repr__(self) -> str:
        return f"<RerankedRun of {self.collection.name} by {self.model}: {len(self.results)} queries>"
