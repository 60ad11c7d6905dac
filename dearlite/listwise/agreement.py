"""A listwise order asked for several times: the documents shuffled, the ranks averaged, and how far they agreed.

An order by a language model depends on the order it was shown (Tang et al. 2024, Found in the Middle); the mean over
shuffles depends on it less, and where the passes disagree the order says little.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from statistics import fmean

from dearlite.ranking import Ranking, kendall_tau


def shuffled_orders(count: int, passes: int) -> list[list[int]]:
    """The orders in which `count` documents are shown: as they are, then shuffled, always the same way."""
    orders = [list(range(count))]
    for number in range(1, passes):
        order = list(range(count))
        random.Random(f"{number} {count}").shuffle(order)
        orders.append(order)
    return orders


def fuse(rankings: Sequence[Ranking], orders: Sequence[Sequence[int]], top_k: int | None = None) -> Ranking:
    """One ranking by mean rank; `orders[p][place]` is the document that pass p was shown at `place`.

    Equal means stand by the first pass. A hit's score is how many documents stand below it on average, its reason the
    first pass's; `agreement` is the mean of Kendall's tau over all pairs of passes.
    """
    count = len(rankings[0])
    places = [[0] * count for _ in rankings]  # pass -> document -> rank
    for ranks, ranking, order in zip(places, rankings, orders, strict=True):
        for hit in ranking:
            ranks[order[hit.index]] = hit.rank
    means = [fmean(ranks[index] for ranks in places) for index in range(count)]
    first = {hit.index: hit for hit in rankings[0]}
    best = sorted(range(count), key=lambda index: (means[index], places[0][index]))
    hits = [
        replace(first[index], rank=rank, score=count - means[index]) for rank, index in enumerate(best[:top_k], start=1)
    ]
    return replace(
        rankings[0],
        hits=tuple(hits),
        elapsed_s=sum(one.elapsed_s for one in rankings),
        reasoning=tuple(text for one in rankings for text in one.reasoning),
        problems=tuple(problem for one in rankings for problem in one.problems),
        agreement=fmean(kendall_tau(a, b) for a, b in combinations(places, 2)) if len(places) > 1 else None,
    )
