"""One model under a deadline: it reads as many documents as the time allows, in the current order, best first.

Work stops between batches or decode steps. Documents that were not read stay behind those that were, in their order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Literal

from dearlite.deadline import Deadline
from dearlite.documents import Document, as_documents, check_query
from dearlite.errors import BudgetTooShort, Cancelled
from dearlite.hits import unread_hit
from dearlite.jobs import Job
from dearlite.options import Call, Long
from dearlite.passages import Span, part_of_document, rank_by_passages
from dearlite.progress import Progress
from dearlite.ranking import Hit, Ranking, check_top_k
from dearlite.reranker import Reranker
from dearlite.stages import QueryState, StageMeter

if TYPE_CHECKING:
    from dearlite.options import Listwise

_BATCH_S = 0.25  # maximum time of a batch; also at most an eighth of the time left
_BATCH_DOCUMENTS = 256
_SLOWER = 1.15  # a window may take this factor longer than the previous one


@dataclass(frozen=True, slots=True)
class PointwiseStage:
    """A pointwise model and the documents of one query that it is to score.

    It reads them as `long` says: cut, in passages, or, in mode "cascade", only in the passages that the previous stage
    `picked`, as spans per document. `positions` are those of the documents in the caller's list, for messages.
    """

    reranker: Reranker
    query: str
    documents: Sequence[Document]
    picked: Sequence[tuple[Span, ...]]
    long: Long | None
    progress: Progress | None = None
    cancel: Event | None = None
    positions: Sequence[int] | None = None

    @property
    def total(self) -> int:
        """Number of documents."""
        return len(self.documents)

    def rank(self, start: int = 0, stop: int | None = None) -> Ranking:
        """The ranking of the documents from `start` to `stop`; indices count from `start`.

        `progress` and `cancel` are passed on only for all documents: of a part the counts would be wrong.
        """
        documents, picked = self.documents[start:stop], self.picked[start:stop]
        positions = self.positions or range(len(self.documents))
        call = Call(long=self.long, positions=positions[start:stop])
        if start == 0 and stop is None:
            call = replace(call, progress=self.progress, cancel=self.cancel)
        if self.long is not None and self.long.mode == "cascade" and all(picked):
            parts = [
                part_of_document(document, index, span)
                for index, (document, spans) in enumerate(zip(documents, picked, strict=True))
                for span in spans
            ]
            of_parts = [positions[start + part.index] for part in parts]
            of_passages = replace(call, long=None, positions=of_parts)
            rank = partial(self._rank, [part.document for part in parts], of_passages)
            return rank_by_passages(rank, parts, documents, self.long.keep)
        return self._rank(documents, call)

    def _rank(self, documents: Sequence[Document], call: Call) -> Ranking:
        return self.reranker.rank([(self.query, documents)], call)[0]


def score_within(
    stage: PointwiseStage, deadline: Deadline, progress: Progress, *, first: bool
) -> tuple[Ranking, set[int]]:
    """The ranking of a pointwise stage, and the indices of the documents that it had time to read.

    The time of the last batch decides the size of the next, so that it ends before the deadline; a batch that would
    not is skipped. Raises BudgetTooShort if this is the `first` stage and its first batch took all of the budget.
    """
    start, done, size, document_s = time.perf_counter(), 0, 1, 0.0
    reranker, documents = stage.reranker, stage.documents
    reranker.refuse_empty(documents, stage.positions)
    hits: list[Hit] = []
    query_truncated = False
    while done < len(documents) and not deadline.over and document_s * reranker.threads <= deadline.left_s:
        batch_start = time.perf_counter()
        batch = stage.rank(done, done + size)
        batch_s = time.perf_counter() - batch_start
        hits += [replace(hit, index=done + hit.index) for hit in batch]
        query_truncated |= batch.query_truncated
        done += len(batch)
        if first and done < len(documents) and done == len(batch) and batch_s >= deadline.budget_s:
            raise _budget_too_short(deadline, "takes", batch_s)
        document_s = batch_s / len(batch)
        progress(done, len(documents))
        next_batch_s = min(_BATCH_S, deadline.left_s / 8)
        size = max(reranker.threads, min(_BATCH_DOCUMENTS, int(next_batch_s / max(document_s, 1e-6))))
    hits.sort(key=lambda hit: (-(hit.score or 0.0), hit.index))  # each of them has a score
    hits += [unread_hit(document, 0, done + offset) for offset, document in enumerate(documents[done:])]
    ranking = Ranking(
        hits=tuple(replace(hit, rank=rank) for rank, hit in enumerate(hits, start=1)),
        query=stage.query,
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
    progress: Progress,
    *,
    first: bool,
) -> tuple[Ranking, set[int]]:
    """The ranking of a listwise model, and the indices of the documents in the windows that it had time to read.

    The window at the head is read first, since it decides most. If time is left, windows are read once more up to the
    head, from as far down as the time allows. A window that does not end in time leaves the order unchanged; one whose
    model reasons answers in time. A mode without windows gets all documents, and the order that it has reached in time
    is the result. Raises
    BudgetTooShort if this is the `first` stage and its first window or comparison did not end in time.
    """
    start = time.perf_counter()
    window, stride = reranker.span(listwise)
    order, read = list(range(len(documents))), set[int]()
    rankings: list[Ranking] = []
    depth = min(window, len(documents))
    with deadline.as_event() as stop:
        while depth:
            pass_start = time.perf_counter()
            try:
                head: list[object] = [documents[index] for index in order[:depth]]
                ranking = reranker.rerank(query, head, listwise=listwise, cancel=stop)
            except Cancelled as err:
                if len(documents) > window or err.partial is None:
                    break
                ranking = err.partial
            read |= {order[hit.index] for hit in ranking if hit.score is not None}
            order[:depth] = [order[hit.index] for hit in ranking]
            rankings.append(ranking)
            progress(depth, len(documents))
            if len(rankings) > 1 or len(documents) <= window:
                break
            affordable = deadline.left_s / (_SLOWER * (time.perf_counter() - pass_start))
            windows = int(min(affordable, len(documents)))  # infinite without a limit of time
            depth = min(len(documents), window + (windows - 1) * stride) if windows > 1 else 0
    if first and documents and not read and deadline.timed_out:
        raise _budget_too_short(deadline, "had not ended after", time.perf_counter() - start)
    last_hits = {order[position]: hit for position, hit in enumerate(rankings[-1])} if rankings else {}
    total = len(documents)
    hits = [
        replace(last_hits[index], rank=rank, index=index)
        if index in last_hits
        else unread_hit(documents[index], rank, index)
        for rank, index in enumerate(order, start=1)
    ]
    ranking = Ranking(
        hits=tuple(hits),
        query=query,
        model=reranker.model,
        device=reranker.device,
        elapsed_s=time.perf_counter() - start,
        total=total,
        reasoning=tuple(text for ranking in rankings for text in ranking.reasoning),
        problems=tuple(problem for ranking in rankings for problem in ranking.problems),
        complete=all(ranking.complete for ranking in rankings),
        agreement=rankings[-1].agreement if rankings else None,
    )
    return ranking, read


def _budget_too_short(
    deadline: Deadline, verb: Literal["takes", "had not ended after"], seconds: float
) -> BudgetTooShort:
    """The error; a batch that was stopped takes nobody knows how long."""
    return BudgetTooShort(
        f"a budget of {deadline.budget_s:g} s is below the first batch, which {verb} {seconds:.2g} s: give more",
        batch_s=seconds if verb == "takes" else None,
    )


# What a kind of model does within a deadline: the ranking, and the indices of the documents that it read.
RankStage = Callable[[QueryState, Deadline, Progress], tuple[Ranking, set[int]]]


def rank_within(model: str, margin: float | None, job: Job, call: Call, rank_stage: RankStage) -> Ranking:
    """The ranking of one loaded model under the budget of `call`. It has every document, also those not read."""
    assert call.budget_s is not None
    query, top_k = QueryState(check_query(job[0]), as_documents(job[1])), check_top_k(call.top_k)
    start, deadline = time.perf_counter(), Deadline(call.budget_s, call.cancel)
    meter = StageMeter(len(query.documents), call.progress)
    with meter.stage(len(query.documents)) as progress:
        ranking, read = rank_stage(query, deadline, progress)
    query.add_result(model, list(query.order), ranking, read, margin)
    return query.ranking(model, time.perf_counter() - start, top_k)
