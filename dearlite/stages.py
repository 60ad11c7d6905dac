"""A cascade on its way: one query's documents, the order so far, and what each stage made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from dearlite.documents import Document
from dearlite.passages import Span, piece_of
from dearlite.progress import Meter, Progress
from dearlite.ranking import Hit, Ranking, StageReport, StageScore, make_hit


@dataclass(slots=True)
class QueryState:
    """One query on its way: the order so far, and what the stages made of each document."""

    text: str
    documents: list[Document]
    order: list[int] = field(init=False)  # indices into `documents`
    hits: dict[int, Hit] = field(default_factory=dict)  # of the last stage that looked at the document
    stages: dict[int, list[StageScore]] = field(default_factory=dict)
    reports: list[StageReport] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    query_truncated: bool = False
    complete: bool = True
    margin: float | None = None  # of the last stage's scores
    agreement: float | None = None  # of the last stage that has one

    def __post_init__(self) -> None:
        self.order = list(range(len(self.documents)))

    def head(self, depth: int | None) -> int:
        """How many documents a stage of `depth` gets."""
        return min(len(self.order), depth or len(self.order))

    def head_of(self, head: Sequence[int]) -> tuple[list[Document], list[tuple[Span, ...]]]:
        """The documents of `head`, and the passages that the stages before picked of each; empty where none did."""
        known = [self.hits.get(index) for index in head]
        return [self.documents[index] for index in head], [() if hit is None else hit.passages for hit in known]

    def shown(self, head: Sequence[int], *, passages: bool) -> list[Document]:
        """The documents of `head` as a listwise model sees them: with `passages` by their best one alone."""
        documents, picked = self.head_of(head)
        if not passages:
            return documents
        pairs = zip(documents, picked, strict=True)
        return [piece_of(document, 0, spans[0]).document if spans else document for document, spans in pairs]

    def band(self, head: Sequence[int], cut: int) -> int:
        """How many of `head` the next stage could still bring above `cut`, by the last stage's scores and margin."""
        if self.margin is None or not all(index in self.stages for index in head):
            return len(head)
        return band([self.stages[index][-1].score for index in head], cut, self.margin, len(head))

    def take(self, model: str, head: list[int], found: Ranking, read: set[int], margin: float | None = None) -> None:
        """What a stage made of `head`: `read` are the places in it of the documents that it looked at."""
        self.order[: len(head)] = [head[hit.index] for hit in found]
        for hit in found:
            if hit.index in read:
                index = head[hit.index]
                known = self.hits.get(index)  # a listwise stage has no probability: the one before it stays
                relevance = hit.relevance if hit.relevance is not None or known is None else known.relevance
                passages = hit.passages or (() if known is None else known.passages)
                self.hits[index] = replace(hit, relevance=relevance, passages=passages)
                self.stages.setdefault(index, []).append(StageScore(model, hit.rank, hit.score))
        self.margin = margin
        self.reasoning += found.reasoning
        self.problems += found.problems
        self.query_truncated |= found.query_truncated
        self.agreement = found.agreement if found.agreement is not None else self.agreement
        self.complete &= len(read) == len(head)
        self.reports.append(StageReport(model, found.device, len(head), len(read), found.elapsed_s))

    def ranking(self, model: str, elapsed_s: float, top_k: int | None) -> Ranking:
        """What came of it: every document once."""
        count = len(self.order)
        hits = [self._hit(index, rank, count) for rank, index in enumerate(self.order[:top_k], start=1)]
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
        )

    def _hit(self, index: int, rank: int, count: int) -> Hit:
        document, stages = self.documents[index], tuple(self.stages.get(index, ()))
        known = self.hits.get(index)
        if known is not None:
            score = float(count - rank)
            return replace(known, rank=rank, index=index, score=score, stages=stages, text=document.text)
        return make_hit(document, rank, index, count - rank, (0, 0))


class StageMeter(Meter):
    """Counts documents over all stages and queries."""

    @contextmanager
    def stage(self, documents: int) -> Iterator[Progress]:
        """What to tell of a stage that has so many documents to look at, in its own numbers."""
        before = self.done
        yield lambda done, of: self.reach(before + documents * done // max(1, of))
        self.reach(before + documents)


def band(scores: Sequence[float], cut: int, margin: float, depth: int) -> int:
    """How many of `scores`, which fall, a later stage should see: what lies above the cut less the margin.

    At least `cut`, at most `depth`. Example: [9, 8, 5, 4, 1] with cut 2 and margin 3.5 -> 3, down to 4.5.
    """
    depth = min(depth, len(scores))
    if depth <= cut:
        return depth
    least = scores[cut - 1] - margin
    return max(cut, next((place for place in range(cut, depth) if scores[place] < least), depth))
