"""Ranked documents as records. Display is in the room `render`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, overload

from dearlite.checks import whole_number
from dearlite.display import shown_by
from dearlite.errors import UsageError, need
from dearlite.rows import PLACE_NUMBERS, row_of, whole_columns

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T_co = TypeVar("T_co", covariant=True, default=object)  # the caller's own type of document
else:  # PEP 696's default is for type checkers
    from typing import TypeVar

    T_co = TypeVar("T_co", covariant=True)

_TOKENS = ("tokens_used", "tokens_total")  # of truncated documents alone


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

    `depth` is the number of documents that it was given, `scored` the number that it scored, `elapsed_s` its time in
    seconds, which is not compared. `error` is the reason why it did not run, empty if it ran.
    """

    model: str
    device: str
    depth: int
    scored: int
    elapsed_s: float = field(compare=False)
    error: str = ""

    @property
    def looked_at(self) -> int:
        """The former name of `scored`, for one version."""
        return self.scored

    def to_dict(self) -> dict[str, Any]:
        """The fields, and `looked_at`, the former name of `scored`."""
        return asdict(self) | {"looked_at": self.scored}


@dataclass(frozen=True, slots=True)
class Hit(Generic[T_co]):
    """One document of a ranking, `Hit[T]` for documents of type T. Hits of equal values are equal.

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
    - `text`, `title`: the document's text and title; `document`: the caller's own object, of a table a row's dict.
    - `tokens_used`, `tokens_total`: number of tokens read, and before truncation. They count query and document for a
      pointwise model, the document for a listwise model.
    - `truncated`: True if tokens were cut.
    - `tokens_total_is_bound`: True if `tokens_total` is a lower bound. Of a text above 100,000 characters only the
      beginning that can be read is split into tokens.
    - `reason`: the sentence of a listwise model's reasoning that names this document, None if there is none.
    - `stages`: the score and rank by each stage of a cascade that read the document.
    - `passages`: (start, end) characters in `text` of the best passages, best first. Empty if the document was not read
      in passages.
    - `more`: ids of the other passages of the same file, best first, in a ranking that `group_by_file` made.
    - `best_query`: the one of several queries that it answers best, None after a single query. Relevance, passages and
      reason are those of that query.
    """

    rank: int
    index: int
    id: str | None
    score: float | None
    relevance: float | None
    text: str
    title: str
    document: T_co
    tokens_used: int
    tokens_total: int
    truncated: bool
    reason: str | None = None
    stages: tuple[StageScore, ...] = ()
    passages: tuple[tuple[int, int], ...] = ()
    relevance_from: str | None = None
    tokens_total_is_bound: bool = False
    more: tuple[str, ...] = ()
    best_query: str | None = None

    @property
    def passage(self) -> tuple[int, int] | None:
        """(start, end) characters in `text` of the best passage; None if the document was not read in passages."""
        return self.passages[0] if self.passages else None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Hit):
            return NotImplemented
        names = (each.name for each in fields(self) if each.name != "document")
        values_equal = all(getattr(self, name) == getattr(other, name) for name in names)
        return values_equal and _equal(self.document, other.document)

    def __hash__(self) -> int:  # without the document, which may be a dict
        return hash((self.rank, self.index, self.id, self.score, self.text))

    def __repr__(self) -> str:
        text = repr(shorten(f"{self.title} {self.text[:200]}", 60, placeholder="…"))
        name = "" if self.id is None else f" {self.id!r}"
        score = "not scored" if self.score is None else f"score {self.score:.3f}"
        probability = "" if self.relevance is None else f", relevance {self.relevance:.3f}"
        return f"<Hit {self.rank}{name}: {text}, {score}{probability}>"

    __rich__ = shown_by("dearlite.render.hit", "hit_table")
    _repr_html_ = shown_by("dearlite.render.hit", "hit_html")


def _equal(a: object, b: object) -> bool:
    """True for equal documents, and for the same object; False where == gives no truth value, as that of arrays."""
    try:
        return a is b or bool(a == b)
    except (ValueError, TypeError):
        return False


@dataclass(frozen=True, slots=True)
class Ranking(Sequence[Hit[T_co]]):
    """A sequence of hits, best first, with the facts of the call. `ranking[:3]` is a Ranking too.

    `Ranking[T]` has documents of type T. Rankings are equal if all but their times is. `in`, `len` and `reversed` work.

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
    - `queries`, `fusion`: several queries, and how their rankings were fused into the scores, a key of
      `dearlite.options.FUSIONS`; empty and None after a single one.
    """

    hits: tuple[Hit[T_co], ...]
    query: str
    model: str
    device: str
    elapsed_s: float = field(compare=False)
    total: int
    query_truncated: bool = False
    reasoning: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    complete: bool = True
    stages: tuple[StageReport, ...] = ()
    agreement: float | None = None
    unscored: int = 0
    queries: tuple[str, ...] = ()
    fusion: str | None = None

    @overload
    def __getitem__(self, position: int) -> Hit[T_co]: ...
    @overload
    def __getitem__(self, position: slice) -> Ranking[T_co]: ...
    def __getitem__(self, position: int | slice) -> Hit[T_co] | Ranking[T_co]:
        return replace(self, hits=self.hits[position]) if isinstance(position, slice) else self.hits[position]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit[T_co]]:
        return iter(self.hits)

    def above(self, min_relevance: float) -> Ranking[T_co]:
        """The hits with a relevance of at least `min_relevance`, a probability from 0 to 1. Ranks count from 1 again.

        Hits that no model scored have no relevance and are dropped. Raises UsageError for a number outside 0 to 1, and
        if the model has no calibration.

        Examples:
            >>> from dearlite import rerank
            >>> ranking = rerank("Who invented the light bulb?", ["Coffee is healthy", "Edison invented the bulb"])
            >>> [hit.document for hit in ranking.above(0.5)]
            ['Edison invented the bulb']

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

    def top(self, count: int | None) -> Ranking[T_co]:
        """The first `count` hits, all if None. Raises UsageError unless `count` is 1 or more."""
        return replace(self, hits=self.hits[: check_top_k(count)])

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dict per hit: the fields of the caller's record, then `rank`, `score`, `index`.

        `relevance` (with `relevance_from` where it is the makers' own), `best_query`, `reason`, `more`, `passage`,
        `stages`, and of a truncated document `truncated`, `tokens_used`, `tokens_total` and `tokens_total_is_bound` are
        added where they exist. A field of the caller with one of these names is kept as `input_NAME`.

        Examples:
            >>> from dearlite import rerank
            >>> rows = rerank("light bulb", [{"id": 7, "text": "Edison's bulb, 1879", "page": 3}]).to_dicts()
            >>> [(row["id"], row["page"], row["rank"], row["index"]) for row in rows]
            [(7, 3, 1, 0)]

        """
        return [hit_fields(hit) for hit in self.hits]

    def to_pandas(self) -> Any:
        """The rows of `to_dicts()` as a pandas DataFrame. Raises MissingExtra if pandas is not installed.

        Lines, pages and numbers of tokens, which some documents lack, are of the dtype Int64.
        """
        passages = any(hasattr(hit.document, "place_fields") for hit in self.hits)
        rows, names = self.to_dicts(), [*_TOKENS, *(PLACE_NUMBERS if passages else ())]
        frame = need("pandas", extra="pandas").DataFrame(rows)
        return frame.astype(dict.fromkeys(whole_columns(rows, names), "Int64"))

    def __repr__(self) -> str:
        best = "" if not self.hits or self.hits[0].score is None else f", best {self.hits[0].score:.3f}"
        shown = f"{len(self)} of {self.total}" if len(self) < self.total else f"{self.total}"
        return f"<Ranking of {shown} documents by {self.model} on {self.device}{best}>"

    __rich__ = shown_by("dearlite.render.table", "ranking_table")
    _repr_html_ = shown_by("dearlite.render.notebook", "ranking_html")


def hit_fields(hit: Hit) -> dict[str, Any]:
    """The caller's record with the fields of the hit added; a field with the same name is kept as `input_NAME`.

    `id` is the document's id, whatever field holds it in the record.
    """
    row, named = row_of(hit.document, hit.id, hit.title, hit.text)
    added: dict[str, Any] = named | {"rank": hit.rank, "score": hit.score, "index": hit.index}
    if hit.relevance is not None:
        added["relevance"] = hit.relevance
    if hit.relevance_from == "activation":
        added["relevance_from"] = hit.relevance_from
    if hit.best_query is not None:
        added["best_query"] = hit.best_query
    if hit.reason is not None:
        added["reason"] = hit.reason
    if hit.more:
        added["more"] = list(hit.more)
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


def check_top_k(top_k: int | None) -> int | None:
    """`top_k` as an int, or None for all. Raises UsageError unless it is None or a whole number from 1."""
    return None if top_k is None else whole_number("top_k", top_k, otherwise=", or None for all")
