"""One stage under a deadline: as much of it as the time allows, the best of the order so far first.

Work stops between batches or decode steps; what was not looked at stays behind what was, in the order it had.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Event
from typing import TYPE_CHECKING, Any

from dearlite.deadline import Deadline
from dearlite.documents import Document, as_documents, check_query
from dearlite.errors import Cancelled, UsageError
from dearlite.options import Long
from dearlite.passages import Span, best_passages, piece_of
from dearlite.progress import Progress
from dearlite.ranking import Hit, Ranking, check_top_k, make_hit
from dearlite.reranker import Job, Reranker
from dearlite.stages import QueryState, StageMeter

if TYPE_CHECKING:
    from dearlite.options import Call, Listwise

_BATCH_S = 0.25  # the longest batch, and at most an eighth of what is left
_BATCH_DOCUMENTS = 256
_SLOWER = 1.15  # a window may take so many times what the one before it did


@dataclass(frozen=True, slots=True)
class Reading:
    """How a pointwise stage reads its documents: whole, in passages, or in those `picked` by the stage before."""

    reranker: Reranker
    query: str
    documents: Sequence[Document]
    picked: Sequence[tuple[Span, ...]]
    long: Long | None
    progress: Progress | None = None
    cancel: Event | None = None

    @property
    def total(self) -> int:
        """How many documents there are."""
        return len(self.documents)

    def rank(self, start: int = 0, stop: int | None = None) -> Ranking:
        """The documents from `start` to `stop`, ranked; indices count from `start`."""
        documents, picked = self.documents[start:stop], self.picked[start:stop]
        whole = start == 0 and stop is None
        told: dict[str, Any] = {"progress": self.progress, "cancel": self.cancel} if whole else {}
        if self.long is not None and self.long.mode == "cascade" and all(picked):
            pieces = [
                piece_of(document, index, span)
                for index, (document, spans) in enumerate(zip(documents, picked, strict=True))
                for span in spans
            ]
            found = self.reranker.rerank(self.query, [piece.document for piece in pieces], **told)
            return best_passages(found, pieces, documents, self.long.keep)
        return self.reranker.rerank(self.query, documents, long=self.long, **told)


def score_within(reading: Reading, deadline: Deadline, heard: Progress, *, first: bool) -> tuple[Ranking, set[int]]:
    """A pointwise stage over as many documents as the time allows, and the indices of those.

    A batch is sized by what the last one took, so that it ends in time; one that would not is not begun. Raises
    UsageError where the budget ended with the very first of the `first` stage.
    """
    start, done, size, a_document = time.perf_counter(), 0, 1, 0.0
    reranker, documents = reading.reranker, reading.documents
    hits: list[Hit] = []
    query_truncated = False
    while done < len(documents) and not deadline.over and a_document * reranker.threads <= deadline.left_s:
        began = time.perf_counter()
        batch = reading.rank(done, done + size)
        took = time.perf_counter() - began
        hits += [replace(hit, index=done + hit.index) for hit in batch]
        query_truncated |= batch.query_truncated
        done += len(batch)
        if first and done < len(documents) and done == len(batch) and took >= deadline.budget_s:
            raise UsageError(_too_short(deadline, took))
        a_document = took / len(batch)
        heard(done, len(documents))
        spend = min(_BATCH_S, deadline.left_s / 8)
        size = max(reranker.threads, min(_BATCH_DOCUMENTS, int(spend / max(a_document, 1e-6))))
    hits.sort(key=lambda hit: (-hit.score, hit.index))
    hits += [make_hit(document, 0, done + at, 0.0, (0, 0)) for at, document in enumerate(documents[done:])]
    ranking = Ranking(
        hits=tuple(replace(hit, rank=rank) for rank, hit in enumerate(hits, start=1)),
        query=reading.query,
        model=reranker.model,
        device=reranker.device,
        elapsed_s=time.perf_counter() - start,
        total=len(documents),
        query_truncated=query_truncated,
    )
    return ranking, set(range(done))


def order_within(
    reranker: Reranker,
    query: str,
    documents: Sequence[Document],
    listwise: Listwise | None,
    deadline: Deadline,
    heard: Progress,
    *,
    first: bool,
) -> tuple[Ranking, set[int]]:
    """A listwise model over as many windows as the time allows, and the indices of the documents in them.

    The head is read first, for it decides the most. If time is left, windows from as far down as it allows are read up
    to the head again. A window that does not end in time leaves the order as it was; if that is the head of the `first`
    stage, the budget was too short: UsageError.
    """
    start = time.perf_counter()
    window, stride = reranker.span(listwise)
    order, read = list(range(len(documents))), set[int]()
    rankings: list[Ranking] = []
    depth = min(window, len(documents))
    with deadline.as_event() as stop:
        while depth:
            began = time.perf_counter()
            try:
                found = reranker.rerank(query, [documents[i] for i in order[:depth]], listwise=listwise, cancel=stop)
            except Cancelled:
                break
            order[:depth] = [order[hit.index] for hit in found]
            read |= set(order[:depth])
            rankings.append(found)
            heard(depth, len(documents))
            if len(rankings) > 1 or len(documents) <= window:
                break
            windows = int(deadline.left_s / (_SLOWER * (time.perf_counter() - began)))
            depth = min(len(documents), window + (windows - 1) * stride) if windows > 1 else 0
    if first and documents and not read and deadline.timed_out:
        raise UsageError(_too_short(deadline, time.perf_counter() - start))
    known = {order[at]: hit for at, hit in enumerate(rankings[-1])} if rankings else {}
    total = len(documents)
    hits = [
        replace(known[index], rank=rank, index=index)
        if index in known
        else make_hit(documents[index], rank, index, 0.0, (0, 0))
        for rank, index in enumerate(order, start=1)
    ]
    ranking = Ranking(
        hits=tuple(hits),
        query=query,
        model=reranker.model,
        device=reranker.device,
        elapsed_s=time.perf_counter() - start,
        total=total,
        reasoning=tuple(text for one in rankings for text in one.reasoning),
        problems=tuple(problem for one in rankings for problem in one.problems),
    )
    return ranking, read


def _too_short(deadline: Deadline, took_s: float) -> str:
    return f"a budget of {deadline.budget_s:g} s is below the first batch, which takes {took_s:.2g} s: give more"


Stage = Callable[[QueryState, Deadline, Progress], tuple[Ranking, set[int]]]  # what a kind does within a deadline


def rank_within(model: str, margin: float | None, job: Job, call: Call, stage: Stage) -> Ranking:
    """One loaded model's ranking under the budget of `call`: every document is in it, whatever was looked at."""
    assert call.budget_s is not None
    query, top_k = QueryState(check_query(job[0]), as_documents(job[1])), check_top_k(call.top_k)
    start, deadline = time.perf_counter(), Deadline(call.budget_s, call.cancel)
    meter = StageMeter(len(query.documents), call.progress)
    with meter.stage(len(query.documents)) as heard:
        found, read = stage(query, deadline, heard)
    query.take(model, list(query.order), found, read, margin)
    return query.ranking(model, time.perf_counter() - start, top_k)
