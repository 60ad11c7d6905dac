"""Ranked documents as records. Display is in the room `render`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, overload

from dearlite.checks import whole_number
from dearlite.display import shown_by
from dearlite.documents import Document
from dearlite.errors import UsageError, need
from dearlite.scores import rank_order

# Tokens used, tokens in total, and True if the latter is a lower bound (left out: False).
TokenCounts = tuple[int, int] | tuple[int, int, bool]


class PairScore(NamedTuple):
    """The raw logit of one (query, document) pair, and its number of tokens after and before truncation."""

    score: float
    tokens_used: int
    tokens_total: int


@dataclass(frozen=True, slots=True)
class StageScore:
    """The result of one stage of a cascade for a document: the model's own score, and the document's rank, from 1."""

    model: str
    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class StageReport:
    """The work of one stage of a cascade.

    `depth` is the number of documents that it was given, `looked_at` the number that it read, `elapsed_s` its time in
    seconds. `error` is the reason why it did not run, empty if it ran.
    """

    model: str
    device: str
    depth: int
    looked_at: int
    elapsed_s: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """One document of a ranking.

    - `rank`: its position in the ranking, from 1.
    - `index`: its position in the caller's list, from 0.
    - `id`: its id as text, None if it has none.
    - `score`: the score of the last model that read the document, None if none did. Of a pointwise model that is the
      raw logit, which sorts the documents of one query and has no other meaning. Of a listwise model it is the number
      of documents that the model ranked below this one; in mode "first" a log-probability, comparable within one
      window. Scores of two models do not compare: in a cascade `rank` has the order, not `score`.
    - `relevance`: probability of relevance, from 0 to 1. None if the model has neither a calibration nor a probability
      of its makers.
    - `relevance_from`: "calibration" for a `relevance` that `dearlite models calibrate` fitted, "activation" for the
      makers' own, None without one.
    - `text`, `title`: the document's text and title; `document`: the caller's own object.
    - `tokens_used`, `tokens_total`: number of tokens read, and before truncation. They count query and document for a
      pointwise model, the document for a listwise model.
    - `truncated`: True if tokens were cut.
    - `tokens_total_is_bound`: True if `tokens_total` is a lower bound. Of a text above 100,000 characters only the
      beginning that can be read is split into tokens.
    - `reason`: the sentence of a listwise model's reasoning that names this document, None if there is none.
    - `stages`: the score and rank by each stage of a cascade that read the document.
    - `passages`: (start, end) characters in `text` of the best passages, best first. Empty if the document was not read
      in passages.
    """

    rank: int
    index: int
    id: str | None
    score: float | None
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
    relevance_from: str | None = None
    tokens_total_is_bound: bool = False

    @property
    def passage(self) -> tuple[int, int] | None:
        """(start, end) characters in `text` of the best passage; None if the document was not read in passages."""
        return self.passages[0] if self.passages else None


@dataclass(frozen=True, slots=True)
class Ranking(Sequence[Hit]):
    """A sequence of hits, best first, with the facts of the call.

    - `query`: the query without spaces around it.
    - `model`, `device`: the model's name and the device that ran it; several are separated by ">" and ", ".
    - `elapsed_s`: time in seconds, without loading.
    - `total`: number of documents before any `top_k`; `unscored`: number of those that no model read, because a budget
      ended or a cascade's first stage has a depth. They come last, in the caller's order.
    - `query_truncated`: True if the query was too long for some document and only a part of it was read.
    - `reasoning`: the text that a listwise model wrote for each window, from the end of the list to its head.
    - `problems`: errors in orders that a listwise model wrote as free text.
    - `complete`: False if a budget or an event ended the call early. All documents are in the ranking all the same, and
      `stages` has the number that each stage read.
    - `stages`: a `StageReport` per stage of a cascade or of a call with a budget.
    - `agreement`: mean Kendall's tau between the passes of a listwise model, None for a single pass.
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
    unscored: int = 0

    @overload
    def __getitem__(self, position: int) -> Hit: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Hit]: ...
    def __getitem__(self, position: int | slice) -> Hit | Sequence[Hit]:
        return self.hits[position]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def above(self, min_relevance: float) -> Ranking:
        """The hits with a relevance of at least `min_relevance`, a probability from 0 to 1. Ranks count from 1 again.

        Hits that no model scored have no relevance and are dropped. Raises UsageError for a number outside 0 to 1, and
        if the model has no calibration.
        """
        if isinstance(min_relevance, bool) or not 0 <= min_relevance <= 1:
            raise UsageError(f"min_relevance is {min_relevance!r}: it must be a probability from 0 to 1")
        if self.hits and all(hit.relevance is None for hit in self.hits):
            raise UsageError(
                f"{self.model} has no calibration, so its scores have no relevance to compare with "
                f"{min_relevance}: fit one with `dearlite models calibrate`"
            )
        kept = tuple(hit for hit in self.hits if hit.relevance is not None and hit.relevance >= min_relevance)
        return replace(self, hits=tuple(replace(hit, rank=rank) for rank, hit in enumerate(kept, start=1)))

    def top(self, count: int | None) -> Ranking:
        """The first `count` hits, all if None. Raises UsageError unless `count` is 1 or more."""
        return replace(self, hits=self.hits[: check_top_k(count)])

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dict per hit: the fields of the caller's record, then `rank`, `score`, `index`.

        `relevance` (with `relevance_from` where it is the makers' own), `reason`, `passage`, `stages`, and of a
        truncated document `truncated`, `tokens_used`, `tokens_total` and `tokens_total_is_bound` are added where they
        exist. A field of the caller with one of these names is kept as `input_NAME`.
        """
        return [hit_fields(hit) for hit in self.hits]

    def to_pandas(self) -> Any:
        """The rows of `to_dicts()` as a pandas DataFrame. Raises MissingExtra if pandas is not installed."""
        return need("pandas", extra="pandas").DataFrame(self.to_dicts())

    def __repr__(self) -> str:
        best = "" if not self.hits or self.hits[0].score is None else f", best {self.hits[0].score:.3f}"
        shown = f"{len(self)} of {self.total}" if len(self) < self.total else f"{self.total}"
        return f"<Ranking of {shown} documents by {self.model} on {self.device}{best}>"

    __rich__ = shown_by("dearlite.render.table", "ranking_table")
    _repr_html_ = shown_by("dearlite.render.notebook", "ranking_html")


def hit_fields(hit: Hit) -> dict[str, Any]:
    """The caller's record with the fields of the hit added; a field with the same name is kept as `input_NAME`."""
    record = hit.document
    if isinstance(record, Mapping):
        row = dict(record)
    else:
        fields = {"id": hit.id, "title": hit.title or None, "text": hit.text}
        row = {name: value for name, value in fields.items() if value is not None}
    added: dict[str, Any] = {"rank": hit.rank, "score": hit.score, "index": hit.index}
    if hit.relevance is not None:
        added["relevance"] = hit.relevance
    if hit.relevance_from == "activation":
        added["relevance_from"] = hit.relevance_from
    if hit.reason is not None:
        added["reason"] = hit.reason
    if hit.passage is not None:
        added["passage"] = list(hit.passage)
    if hit.stages:
        added["stages"] = [asdict(stage) for stage in hit.stages]
    if hit.truncated:
        added |= {"truncated": True, "tokens_used": hit.tokens_used, "tokens_total": hit.tokens_total}
    if hit.truncated and hit.tokens_total_is_bound:
        added["tokens_total_is_bound"] = True
    kept = {name: value for name, value in row.items() if name not in added}
    return kept | {f"input_{name}": row[name] for name in added if name in row} | added


def make_hits(
    documents: Sequence[Document],
    scores: Sequence[float],
    tokens: Sequence[TokenCounts],
    top_k: int | None,
    relevance: Callable[[float], float] | None = None,
    relevance_from: str | None = None,
) -> tuple[Hit, ...]:
    """The best `top_k` documents (all if None) as hits; `tokens` has one entry per score.

    Documents beyond the `scores` were not read: they come last, in the caller's order.
    `relevance` maps a score to a probability, and `relevance_from` says where it comes from; None without one.
    """
    hits = [make_hit(documents[i], rank, i, scores[i], tokens[i]) for rank, i in enumerate(rank_order(scores), start=1)]
    if relevance is not None:
        hits = [replace(hit, relevance=relevance(scores[hit.index]), relevance_from=relevance_from) for hit in hits]
    hits += [unread_hit(documents[i], i + 1, i) for i in range(len(scores), len(documents))]
    return tuple(hits[:top_k])


def unread_hit(document: Document, rank: int, index: int) -> Hit:
    """The hit for a `document` that no model read."""
    return make_hit(document, rank, index, None, (0, 0))


def make_hit(
    document: Document, rank: int, index: int, score: float | None, tokens: TokenCounts, reason: str | None = None
) -> Hit:
    """The hit for `document`."""
    used, total, is_bound = tokens if len(tokens) == 3 else (*tokens, False)
    return Hit(
        rank=rank,
        index=index,
        id=document.id,
        score=None if score is None else float(score),
        relevance=None,
        text=document.text,
        title=document.title,
        document=document.record,
        tokens_used=used,
        tokens_total=total,
        truncated=used < total,
        reason=reason,
        tokens_total_is_bound=is_bound,
    )


def check_top_k(top_k: int | None) -> int | None:
    """`top_k` as an int, or None for all. Raises UsageError unless it is None or a whole number from 1."""
    return None if top_k is None else whole_number("top_k", top_k, otherwise=", or None for all")
