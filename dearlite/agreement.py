"""Several passes over one query: documents in shuffled orders, mean ranks, and the agreement of the passes.

The ranking of a language model depends on the order of its input (Tang et al. 2024, Found in the Middle). The mean over
shuffled inputs depends on it less, and low agreement marks a ranking that is not reliable.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import fmean

from dearlite.documents import as_documents
from dearlite.errors import Cancelled
from dearlite.jobs import Job
from dearlite.ranking import Ranking
from dearlite.scores import kendall_tau


def rank_in_passes(
    rank: Callable[[Sequence[Job]], list[Ranking]], jobs: Sequence[Job], passes: int, top_k: int | None
) -> list[Ranking]:
    """One Ranking per job, fused of `passes` rankings of its documents in shuffled orders; `rank` makes them.

    Raises Cancelled without a partial ranking: the passes are fused at their end.
    """
    queries = [(query, as_documents(docs)) for query, docs in jobs]
    orders = [shuffled_orders(len(documents), passes) for _, documents in queries]
    shuffled: list[Job] = [
        (query, [documents[index] for index in order])
        for (query, documents), orders_of_query in zip(queries, orders, strict=True)
        for order in orders_of_query
    ]
    try:
        rankings = rank(shuffled)
    except Cancelled as err:
        err.partial = None
        raise
    return [
        fuse(rankings[number * passes : (number + 1) * passes], orders_of_query, top_k)
        for number, orders_of_query in enumerate(orders)
    ]


def shuffled_orders(count: int, passes: int) -> list[list[int]]:
    """One input order of `count` documents per pass: the given order first, then shuffles, the same in every run."""
    orders = [list(range(count))]
    for number in range(1, passes):
        order = list(range(count))
        random.Random(f"{number} {count}").shuffle(order)
        orders.append(order)
    return orders


def fuse(rankings: Sequence[Ranking], orders: Sequence[Sequence[int]], top_k: int | None = None) -> Ranking:
    """One ranking by mean rank. `orders[p][i]` is the index of the document at position i of pass p's input.

    Ties keep the first pass's order. A hit's score is the mean number of documents below it, its reason that of the
    first pass. `agreement` is the mean of Kendall's tau over all pairs of passes.
    """
    count = len(rankings[0])
    ranks_by_pass = [[0] * count for _ in rankings]  # pass -> document -> rank
    for ranks, ranking, order in zip(ranks_by_pass, rankings, orders, strict=True):
        for hit in ranking:
            ranks[order[hit.index]] = hit.rank
    means = [fmean(ranks[index] for ranks in ranks_by_pass) for index in range(count)]
    first = {hit.index: hit for hit in rankings[0]}
    best = sorted(range(count), key=lambda index: (means[index], ranks_by_pass[0][index]))
    hits = [
        replace(first[index], rank=rank, score=count - means[index]) for rank, index in enumerate(best[:top_k], start=1)
    ]
    return replace(
        rankings[0],
        hits=tuple(hits),
        elapsed_s=sum(ranking.elapsed_s for ranking in rankings),
        reasoning=tuple(text for ranking in rankings for text in ranking.reasoning),
        problems=tuple(problem for ranking in rankings for problem in ranking.problems),
        complete=all(ranking.complete for ranking in rankings),
        agreement=_mean_tau(ranks_by_pass) if len(rankings) > 1 else None,
    )


def _mean_tau(ranks_by_pass: Sequence[Sequence[int]]) -> float:
    return fmean(kendall_tau(a, b) for a, b in combinations(ranks_by_pass, 2))
