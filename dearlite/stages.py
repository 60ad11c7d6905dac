"""The state of one query in a cascade: its documents, their current order, and the results of each stage."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Event
from typing import TYPE_CHECKING, Protocol

import numpy as np

from dearlite.documents import Document
from dearlite.hits import make_hit, unread_hit
from dearlite.passages import Span, part_of_document
from dearlite.progress import Meter, Progress
from dearlite.ranking import Hit, Ranking, StageReport, StageScore

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class WordScores:
    """The result of a lexical stage: scores of documents, (documents,), and indices, best first, (documents,)."""

    model: str
    scores: NDArray[np.float32]
    order: NDArray[np.intp]
    ranks: NDArray[np.intp] = field(init=False)  # of each document, from 1

    def __post_init__(self) -> None:
        ranks = np.empty_like(self.order)
        ranks[self.order] = np.arange(1, len(self.order) + 1)
        object.__setattr__(self, "ranks", ranks)

    def of(self, index: int) -> StageScore:
        """The result for one document."""
        return StageScore(self.model, int(self.ranks[index]), float(self.scores[index]))


class RanksWords(Protocol):
    """A lexical stage."""

    @property
    def model(self) -> str: ...
    @property
    def device(self) -> str: ...
    def words(self, query: str, documents: Sequence[Document], cancel: Event | None) -> WordScores: ...


@dataclass(slots=True)
class QueryState:
    """One query in a cascade: the current order, and the results of the stages for each document."""

    text: str
    documents: Sequence[Document]
    order: list[int] = field(init=False)  # indices into `documents`
    hits: dict[int, Hit] = field(default_factory=dict)  # index -> hit of the last stage that read the document
    stages: dict[int, list[StageScore]] = field(default_factory=dict)  # index -> results of the stages that read it
    reports: list[StageReport] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    query_truncated: bool = False
    complete: bool = True
    margin: float | None = None  # of the last stage's scores
    agreement: float | None = None  # of the last stage that had several passes
    words: WordScores | None = None  # of a lexical stage

    def __post_init__(self) -> None:
        self.order = list(range(len(self.documents)))

    def head_size(self, depth: int | None) -> int:
        """Number of documents that a stage of `depth` gets."""
        return min(len(self.order), depth or len(self.order))

    def head_of(self, head: Sequence[int]) -> tuple[list[Document], list[tuple[Span, ...]]]:
        """The documents at the indices `head`, and the spans that previous stages picked of each, empty if none did."""
        hits = [self.hits.get(index) for index in head]
        return [self.documents[index] for index in head], [() if hit is None else hit.passages for hit in hits]

    def shown(self, head: Sequence[int], *, passages: bool) -> list[Document]:
        """The documents at the indices `head` for a listwise model; with `passages`, cut to their best passage."""
        documents, picked = self.head_of(head)
        if not passages:
            return documents
        pairs = zip(documents, picked, strict=True)
        return [part_of_document(document, 0, spans[0]).document if spans else document for document, spans in pairs]

    def band(self, head: Sequence[int], cut: int) -> int:
        """Number of documents in `head` whose last score is within `margin` of the score at rank `cut`.

        All of them if the last stage has no margin or did not read all of `head`.
        """
        if self.margin is None or not all(index in self.stages for index in head):
            return len(head)
        return band([self.stages[index][-1].score for index in head], cut, self.margin, len(head))

    def add_result(
        self, model: str, head: list[int], ranking: Ranking, read: set[int], margin: float | None = None
    ) -> None:
        """Adds a stage's `ranking` of the documents `head`; `read` are the positions in `head` that it had time for."""
        self.order[: len(head)] = [head[hit.index] for hit in ranking]
        for hit in ranking:
            if hit.index in read and hit.score is not None:
                index = head[hit.index]
                previous = self.hits.get(index)  # a listwise stage has no relevance and no passages: keep the previous
                probable = hit if hit.relevance is not None or previous is None else previous
                passages = hit.passages or (() if previous is None else previous.passages)
                self.hits[index] = replace(
                    hit, relevance=probable.relevance, relevance_from=probable.relevance_from, passages=passages
                )
                self.stages.setdefault(index, []).append(StageScore(model, hit.rank, hit.score))
        self.margin = margin
        self.reasoning += ranking.reasoning
        self.problems += ranking.problems
        self.query_truncated |= ranking.query_truncated
        self.agreement = ranking.agreement if ranking.agreement is not None else self.agreement
        self.complete &= len(read) == len(head) and ranking.complete
        self.reports.append(StageReport(model, ranking.device, len(head), len(read), ranking.elapsed_s))

    def add_words(self, stage: RanksWords, cancel: Event | None) -> None:
        """Adds the result of a lexical `stage`, which reads all documents. Their hits are made when they are needed."""
        start, count = time.perf_counter(), len(self.documents)
        self.words = stage.words(self.text, self.documents, cancel)
        self.order = self.words.order.tolist()
        self.reports.append(StageReport(stage.model, stage.device, count, count, time.perf_counter() - start))

    def ranking(self, model: str, elapsed_s: float, top_k: int | None) -> Ranking:
        """The final ranking of the first `top_k` documents, all if None."""
        count = len(self.order)
        hits = [self._hit(index, rank) for rank, index in enumerate(self.order[:top_k], start=1)]
        devices = dict.fromkeys(report.device for report in self.reports if report.device)
        return Ranking(
            hits=tuple(hits),
            query=self.text,
            model=model,
            device=", ".join(devices) or "none",
            elapsed_s=elapsed_s,
            total=count,
            query_truncated=self.query_truncated,
            reasoning=tuple(self.reasoning),
            problems=tuple(self.problems),
            complete=self.complete,
            stages=tuple(self.reports),
            agreement=self.agreement,
            unscored=0 if self.words is not None else count - len(self.stages),
        )

    def partial(self, model: str, elapsed_s: float) -> Ranking | None:
        """The ranking so far of a call that was ended early; None if no model has read a document."""
        return replace(self.ranking(model, elapsed_s, None), complete=False) if self.stages else None

    def _hit(self, index: int, rank: int) -> Hit:
        document, hit = self.documents[index], self.hits.get(index)
        words: tuple[StageScore, ...] = () if self.words is None else (self.words.of(index),)
        if hit is None and not words:
            return unread_hit(document, rank, index)
        if hit is None:
            return replace(make_hit(document, rank, index, words[0].score, (0, 0)), stages=words)
        return replace(hit, rank=rank, index=index, stages=(*words, *self.stages[index]), text=document.text)


class StageMeter(Meter):
    """A Meter of the documents of all stages and queries."""

    @contextmanager
    def stage(self, documents: int) -> Iterator[Progress]:
        """The progress callback of a stage that reads `documents`; the stage calls it with counts of its own work."""
        before = self.done
        yield lambda done, of: self.reach(before + documents * done // max(1, of))
        self.reach(before + documents)


def band(scores: Sequence[float], cut: int, margin: float, depth: int) -> int:
    """Number of the descending `scores` that are at least (score at rank `cut`) - `margin`.

    At least `cut`, at most `depth`. Example: [9, 8, 5, 4, 1] with cut 2 and margin 3.5 -> 3: 9, 8 and 5 are >= 4.5.
    """
    depth = min(depth, len(scores))
    if depth <= cut:
        return depth
    least = scores[cut - 1] - margin
    return max(cut, next((position for position in range(cut, depth) if scores[position] < least), depth))
