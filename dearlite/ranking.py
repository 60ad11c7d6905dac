"""Scores to an order. Knows documents and numbers; printing is render's business."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any, NamedTuple, overload

from dearlite.checks import whole_number
from dearlite.display import shown_by
from dearlite.documents import Document
from dearlite.errors import ScoringError, UsageError, need


class PairScore(NamedTuple):
    """What a pointwise model says of one (query, document) pair: its raw logit, tokens read, and tokens there were."""

    score: float
    tokens_used: int
    tokens_total: int


@dataclass(frozen=True, slots=True)
class StageScore:
    """What one stage of a cascade made of a document: the model's own score, and the rank that it gave, from 1."""

    model: str
    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class StageReport:
    """One stage of a cascade: how many documents it was to look at, how many it did, and how long that took.

    `error` says why it did not run, where it did not.
    """

    model: str
    device: str
    depth: int
    looked_at: int
    elapsed_s: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """One document at its place. `rank` counts from 1; `index` is its place in the caller's list, from 0.

    `score` is the model's raw logit: it orders the documents of one query and means nothing else. `relevance` is a
    calibrated probability, None where the model carries no calibration. `tokens_used` and `tokens_total` count the
    whole pair that the model read; `truncated` says that some of it was cut. `document` is the caller's own object.

    Of a listwise model `score` is how many documents stand below this one; in mode "first" it is a log-probability, by
    which documents of the same window can be compared. `tokens_used` and `tokens_total` then count the document alone,
    and `reason` is what the model said of it, where it said something.

    Where documents were read in passages, `passages` are the spans in `text` of the best ones, best first.

    Of a cascade, and wherever a budget was given, `score` is how many documents stand below this one, for the scores of
    two models do not compare; `stages` has what each stage that the document reached made of it.
    """

    rank: int
    index: int
    id: str | None
    score: float
    relevance: float | None
    text: str
    title: str
    document: object
    tokens_used: int
    tokens_total: int
    truncated: bool
    reason: str | None = None
    stages: tuple[StageScore, ...] = ()
    passages: tuple[tuple[int, int], ...] = ()

    @property
    def passage(self) -> tuple[int, int] | None:
        """The characters of `text` that the score is of, where a long document was read in passages."""
        return self.passages[0] if self.passages else None


@dataclass(frozen=True, slots=True)
class Ranking(Sequence[Hit]):
    """Hits, best first, and how they came about.

    `total` counts the documents that were scored, before any top_k. `query_truncated` says that the query was so long
    that some document was read with a part of it only. `reasoning` is what a listwise model wrote, a text for each
    window from the end of the list to its head; `problems` are what was wrong with orders that it wrote freely.

    `complete` is False where a budget or an event ended the work early: every document is there all the same, and
    `stages` says how many each stage of a cascade looked at. `agreement` is Kendall's tau between the passes of a
    listwise model, their mean, where there were several.
    """

    hits: tuple[Hit, ...]
    query: str
    model: str
    device: str
    elapsed_s: float
    total: int
    query_truncated: bool = False
    reasoning: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    complete: bool = True
    stages: tuple[StageReport, ...] = ()
    agreement: float | None = None

    @overload
    def __getitem__(self, place: int) -> Hit: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Hit]: ...
    def __getitem__(self, place: int | slice) -> Hit | Sequence[Hit]:
        return self.hits[place]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def above(self, min_relevance: float) -> Ranking:
        """The hits whose relevance is at least so much, a probability; those that no model looked at have none.

        Raises UsageError for a number that is none, and where the model carries no calibration.
        """
        if isinstance(min_relevance, bool) or not 0 <= min_relevance <= 1:
            raise UsageError(f"the least relevance is {min_relevance!r}: it is a probability from 0 to 1")
        if self.hits and all(hit.relevance is None for hit in self.hits):
            raise UsageError(
                f"{self.model} carries no calibration, so its scores have no relevance to compare with "
                f"{min_relevance}: `dearlite models calibrate` fits one"
            )
        kept = tuple(hit for hit in self.hits if hit.relevance is not None and hit.relevance >= min_relevance)
        return replace(self, hits=tuple(replace(hit, rank=rank) for rank, hit in enumerate(kept, start=1)))

    def top(self, count: int | None) -> Ranking:
        """The first `count` hits, all when None."""
        return replace(self, hits=self.hits[: check_top_k(count)])

    def to_dicts(self) -> list[dict[str, Any]]:
        """A dict for each hit: the caller's own fields, then `rank`, `score`, `index` and what else there is."""
        return [hit_fields(hit) for hit in self.hits]

    def to_pandas(self) -> Any:
        """A pandas DataFrame of `to_dicts()`. Raises MissingExtra where pandas is not installed."""
        return need("pandas", extra="pandas").DataFrame(self.to_dicts())

    def __repr__(self) -> str:
        best = f", best {self.hits[0].score:.3f}" if self.hits else ""
        shown = f"{len(self)} of {self.total}" if len(self) < self.total else f"{self.total}"
        return f"<Ranking of {shown} documents by {self.model} on {self.device}{best}>"

    __rich__ = shown_by("dearlite.render.table", "ranking_table")
    _repr_html_ = shown_by("dearlite.render.notebook", "ranking_html")


def hit_fields(hit: Hit) -> dict[str, Any]:
    """The caller's own record with ours added. A field of theirs that has one of our names stays, as `input_NAME`."""
    record = hit.document
    if isinstance(record, Mapping):
        row = dict(record)
    else:
        named = {"id": hit.id, "title": hit.title or None, "text": hit.text}
        row = {name: value for name, value in named.items() if value is not None}
    ours: dict[str, Any] = {"rank": hit.rank, "score": hit.score, "index": hit.index}
    if hit.relevance is not None:
        ours["relevance"] = hit.relevance
    if hit.reason is not None:
        ours["reason"] = hit.reason
    if hit.passage is not None:
        ours["passage"] = list(hit.passage)
    if hit.stages:
        ours["stages"] = [asdict(stage) for stage in hit.stages]
    if hit.truncated:
        ours |= {"truncated": True, "tokens_used": hit.tokens_used, "tokens_total": hit.tokens_total}
    kept = {name: value for name, value in row.items() if name not in ours}
    return kept | {f"input_{name}": row[name] for name in ours if name in row} | ours


def rank_order(scores: Sequence[float]) -> list[int]:
    """Positions by falling score; ties keep the caller's order. Raises ScoringError for a score that is no number.

    Example: [0.1, 0.9, 0.5] -> [1, 2, 0]; [0.5, 0.5] -> [0, 1].
    """
    for index, score in enumerate(scores):
        if not math.isfinite(score):
            raise ScoringError(f"the model scored document {index} as {score}: its file may be damaged, verify it")
    return sorted(range(len(scores)), key=lambda index: -scores[index])


def make_hits(
    documents: Sequence[Document],
    scores: Sequence[float],
    tokens: Sequence[tuple[int, int]],
    top_k: int | None,
    relevance: Callable[[float], float] | None = None,
) -> tuple[Hit, ...]:
    """The best `top_k` documents (all when None) as Hits; `tokens` holds (used, total) for each document.

    `relevance` turns a score into a probability, where there is a calibration.
    """
    hits = (
        make_hit(documents[i], rank, i, scores[i], tokens[i])
        for rank, i in enumerate(rank_order(scores)[:top_k], start=1)
    )
    return tuple(hits if relevance is None else (replace(hit, relevance=relevance(hit.score)) for hit in hits))


def make_hit(
    document: Document, rank: int, index: int, score: float, tokens: tuple[int, int], reason: str | None = None
) -> Hit:
    """One Hit; `tokens` is (used, total)."""
    used, total = tokens
    return Hit(
        rank=rank,
        index=index,
        id=document.id,
        score=float(score),
        relevance=None,
        text=document.text,
        title=document.title,
        document=document.record,
        tokens_used=used,
        tokens_total=total,
        truncated=used < total,
        reason=reason,
    )


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's tau-a of two lists over the same documents, of scores or of ranks: -1 to 1.

    (Concordant - discordant pairs) / all pairs. A pair tied in both lists is concordant, so that equal lists have 1.0;
    a pair tied in one list counts 0. Fewer than two documents have 1.0. Example: [1, 2, 3] and [1, 3, 2] -> 1/3.
    """
    signs = [(_sign(a[i] - a[j]), _sign(b[i] - b[j])) for i, j in combinations(range(len(a)), 2)]
    return sum(1 if x == y else x * y for x, y in signs) / len(signs) if signs else 1.0


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def check_top_k(top_k: int | None) -> int | None:
    """`top_k` as an int or None. Raises UsageError unless it is None or a whole number from 1."""
    return None if top_k is None else whole_number("top_k", top_k, otherwise=", or None for all")
