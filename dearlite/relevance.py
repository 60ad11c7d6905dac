"""Scores from 0 to 1 for programs that expect them, HTTP clients and frameworks. dearlite sorts by raw scores."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dearlite.scores import falling_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dearlite.ranking import Hit, Ranking
    from dearlite.reranker import Reranker


def shown_scores(reranker: Reranker, ranking: Ranking, *, raw: bool = False) -> list[float]:
    """One score from 0 to 1 per hit, best first, never rising: a program that sorts by it keeps the order.

    Of a pointwise model it is the calibrated relevance, else the makers' probability, else the sigmoid of the logit; 0
    for a document that the budget left unread. Of a cascade it is the hits' relevance, made to fall by isotonic
    regression (later stages change the order); 0 for a document without one. Where no hit has a relevance, as of a
    listwise model, it is the share of documents that are not ranked above: 1 for the best of n, 1/n for the last.

    Equal scores stand in the order of the caller's list: others are moved apart by the least step of a float.

    `raw`: `Hit.score` instead, the logit of a pointwise model, and the lowest of them for a document that was left
    unread; the number of documents ranked below where scores rise, as those of different stages can.
    """
    if raw:
        lowest = min((hit.score for hit in ranking if hit.score is not None), default=0.0)
        return falling_scores([lowest if hit.score is None else hit.score for hit in ranking], ranking.total)
    if reranker.pointwise:
        scores = [_probability(reranker, hit) for hit in ranking]
    elif all(hit.relevance is None for hit in ranking):
        scores = [1.0 - (hit.rank - 1) / ranking.total for hit in ranking]
    else:
        scores = [hit.relevance or 0.0 for hit in ranking]
    return _apart(_falling(scores), [hit.index for hit in ranking])


def _probability(reranker: Reranker, hit: Hit) -> float:
    """The relevance of a pointwise model's hit, 0 for a document that was not read."""
    if hit.relevance is not None:
        return hit.relevance
    return 0.0 if hit.score is None else reranker.relevance_of(hit.score)


def _falling(values: Sequence[float]) -> list[float]:
    """The sequence without a rise that is nearest to `values` by squares: neighbours that rise share their mean.

    Pool-adjacent-violators (Ayer et al. 1955). Example: [0.9, 0.2, 0.4, 0.1] -> [0.9, 0.3, 0.3, 0.1].
    """
    blocks: list[tuple[float, int]] = []  # mean, number of values
    for value in values:
        mean, count = value, 1
        while blocks and blocks[-1][0] < mean:
            before, size = blocks.pop()
            mean, count = (before * size + mean * count) / (size + count), size + count
        blocks.append((mean, count))
    return [mean for mean, count in blocks for _ in range(count)]


def _apart(scores: list[float], indices: Sequence[int]) -> list[float]:
    """Falling `scores`; of two equal ones the first is raised by the least step if its index is the larger."""
    for position in range(len(scores) - 2, -1, -1):
        least = scores[position + 1]
        if indices[position] > indices[position + 1]:
            least = min(1.0, math.nextafter(least, 2.0))
        scores[position] = max(scores[position], least)
    return scores
