"""Several queries about the same documents: their rankings fused into one, by score or by rank."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, cast

from dearlite.deadline import Deadline
from dearlite.documents import as_documents, check_query
from dearlite.errors import BudgetTooShort, Cancelled, InvalidInput, UsageError
from dearlite.options import FUSIONS, Call, Fuse
from dearlite.progress import part_of
from dearlite.ranking import Hit, Ranking, StageReport, check_top_k
from dearlite.scores import rank_order

if TYPE_CHECKING:
    from dearlite.documents import Document
    from dearlite.jobs import Job

Fused = Callable[[Sequence[Ranking]], Ranking]

MOST_QUERIES = 64  # each of them reads every document
_RRF_K = 60  # Cormack, Clarke and Buettcher, SIGIR 2009


class Ranks(Protocol):
    """A Reranker as this module sees it."""

    @property
    def pointwise(self) -> bool: ...
    def rank(self, jobs: Sequence[Job], call: Call) -> list[Ranking]: ...


def rank_queries(
    reranker: Ranks,
    query: str | Sequence[str],
    docs: Iterable[object],
    call: Call,
    fuse: Fuse | None = None,
) -> Ranking:
    """The ranking for a query, or the fused ranking for a list of queries about the same documents.

    Raises UsageError for an unknown `fuse` and for one beside a single query, InvalidInput for a query that cannot be
    read, and the errors of `reranker.rank`.
    """
    if isinstance(query, (list, tuple)) and isinstance(docs, (str, bytes)):
        raise InvalidInput(f"docs is one {type(docs).__name__}, and the query a list: the order is rerank(query, docs)")
    if not isinstance(query, (list, tuple)):
        if fuse is not None:
            raise UsageError(f"fuse is {fuse!r}, and there is one query: give a list of queries, or leave fuse out")
        return reranker.rank([(cast("str", query), docs)], call)[0]
    if fuse is not None and fuse not in tuple(FUSIONS):
        raise UsageError(f"no fusion {fuse!r}: it is one of {', '.join(FUSIONS)}")
    texts, top_k = check_queries(query), check_top_k(call.top_k)
    documents, start = as_documents(docs), time.perf_counter()

    def fused(rankings: Sequence[Ranking]) -> Ranking:
        by_score = reranker.pointwise and fuse != "rrf"
        whole = fuse_rankings(texts, rankings, documents, fuse or "max", by_score=by_score)
        return replace(whole, elapsed_s=time.perf_counter() - start)

    rankings = _rank_each(reranker, texts, documents, replace(call, top_k=None), fused)
    return fused(rankings).top(top_k)


def check_queries(queries: Sequence[object]) -> list[str]:
    """The queries without spaces around them. Raises InvalidInput for none, too many, or one that cannot be read."""
    if not 1 <= len(queries) <= MOST_QUERIES:
        raise InvalidInput(f"the list of queries has {len(queries)}: give 1 to {MOST_QUERIES}")
    texts = []
    for position, query in enumerate(queries):
        try:
            texts.append(check_query(query))
        except InvalidInput as err:
            raise InvalidInput(f"query {position} of the list: {err}") from None
    return texts


def _rank_each(
    reranker: Ranks, texts: Sequence[str], documents: Sequence[Document], call: Call, fused: Fused
) -> list[Ranking]:
    """A ranking per query. Under a budget each query gets its share of the time left; those without time have none."""
    jobs: list[tuple[str, Iterable[object]]] = [(text, documents) for text in texts]
    if call.budget_s is None and not reranker.pointwise:
        try:
            return reranker.rank(jobs, call)
        except Cancelled as err:
            err.partial = None  # that of one of the queries
            raise
    deadline = None if call.budget_s is None else Deadline(call.budget_s, call.cancel)
    rankings: list[Ranking] = []
    for number, job in enumerate(jobs):
        options = replace(call, progress=part_of(call.progress, number, len(jobs)))
        if deadline is not None:
            share_s = deadline.left_s / (len(jobs) - number)
            if rankings and not share_s:
                break
            options = replace(options, budget_s=share_s or call.budget_s)
        try:
            rankings += reranker.rank([job], options)
        except BudgetTooShort as err:
            if rankings:
                break
            if len(jobs) == 1:
                raise
            message = f"a budget of {call.budget_s:g} s, which {len(jobs)} queries share, is too short for the first"
            raise BudgetTooShort(f"{message}: give more", batch_s=err.batch_s) from None
        except Cancelled as err:
            ended = [*rankings, *([] if err.partial is None else [err.partial])]
            err.partial = replace(fused(ended), complete=False) if ended else None
            raise
    return rankings


def fuse_rankings(
    queries: Sequence[str], rankings: Sequence[Ranking], documents: Sequence[Document], fuse: Fuse, *, by_score: bool
) -> Ranking:
    """One ranking of the `documents` made of one per query; fewer than `queries` if the time ended.

    A document that the time of a query did not reach counts as the lowest score of that query, or as its rank among
    the unread ones. Documents that no model read come last, in the caller's order. Of equal
    maxima the better mean is first; other ties keep the caller's order.
    """
    by_index = [{hit.index: hit for hit in ranking} for ranking in rankings]
    points = [_points(ranking, fuse, by_score=by_score) for ranking in rankings]
    totals = [_fused([of_query[index] for of_query in points], fuse) for index in range(len(documents))]
    best = [_best_query([hits[index] for hits in by_index], by_score=by_score) for index in range(len(documents))]
    means = [sum(of_query[index] for of_query in points) for index in range(len(documents))]
    by_mean = sorted(rank_order(means), key=lambda index: -totals[index])  # of equal maxima the better mean
    order = [index for index in by_mean if best[index] is not None]
    order += [index for index, query in enumerate(best) if query is None]
    hits = [
        replace(by_index[query or 0][index], rank=rank, best_query=None if query is None else queries[query])
        for rank, index in enumerate(order, start=1)
        for query in [best[index]]
    ]
    agreements = [ranking.agreement for ranking in rankings if ranking.agreement is not None]
    return replace(
        rankings[0],
        hits=tuple(hit if hit.best_query is None else replace(hit, score=totals[hit.index]) for hit in hits),
        query=" | ".join(queries),
        queries=tuple(queries),
        fusion=fuse,
        total=len(documents),
        query_truncated=any(ranking.query_truncated for ranking in rankings),
        reasoning=tuple(text for ranking in rankings for text in ranking.reasoning),
        problems=tuple(problem for ranking in rankings for problem in ranking.problems),
        complete=len(rankings) == len(queries) and all(ranking.complete for ranking in rankings),
        stages=tuple(map(_summed, zip(*(ranking.stages for ranking in rankings), strict=False))),
        agreement=sum(agreements) / len(agreements) if agreements else None,
        unscored=sum(query is None for query in best),
    )


def _points(ranking: Ranking, fuse: Fuse, *, by_score: bool) -> dict[int, float]:
    """Document index -> what a query gives it: a logit, the number of documents ranked below, or 1 / (60 + rank)."""
    if fuse == "rrf":
        return {hit.index: 0.0 if hit.score is None else 1 / (_RRF_K + hit.rank) for hit in ranking}
    if not by_score:
        return {hit.index: float(ranking.total - hit.rank) for hit in ranking}
    lowest = min((hit.score for hit in ranking if hit.score is not None), default=0.0)
    return {hit.index: lowest if hit.score is None else hit.score for hit in ranking}


def _fused(points: Sequence[float], fuse: Fuse) -> float:
    if fuse == "max":
        return max(points)
    return sum(points) / len(points) if fuse == "mean" else sum(points)


def _best_query(hits: Sequence[Hit], *, by_score: bool) -> int | None:
    """Position of the query that a document answers best, the first of equal ones; None if no query reached it."""
    reached = [query for query, hit in enumerate(hits) if hit.score is not None]
    if by_score:
        return max(reached, key=lambda query: cast("float", hits[query].score), default=None)
    return min(reached, key=lambda query: hits[query].rank, default=None)


def _summed(reports: Sequence[StageReport]) -> StageReport:
    """The work of one stage for all queries: its `depth` and `scored` count (query, document) pairs."""
    return replace(
        reports[0],
        depth=sum(report.depth for report in reports),
        scored=sum(report.scored for report in reports),
        elapsed_s=sum(report.elapsed_s for report in reports),
        error=next((report.error for report in reports if report.error), ""),
    )
