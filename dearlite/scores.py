"""Scores of documents as numbers: their order, their form in a run, and the agreement of two orders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, pairwise

from dearlite.errors import ScoringError


def rank_order(scores: Sequence[float]) -> list[int]:
    """Positions by descending score; ties keep the caller's order. Raises ScoringError for NaN and infinite scores.

    Example: [0.1, 0.9, 0.5] -> [1, 2, 0]; [0.5, 0.5] -> [0, 1].
    """
    for index, score in enumerate(scores):
        if not math.isfinite(score):
            raise ScoringError(
                f"the model scored document {index} as {score}: its file may be damaged, run `dearlite models verify`"
            )
    return sorted(range(len(scores)), key=lambda index: -scores[index])


def falling_scores(scores: Sequence[float | None], total: int) -> list[float]:
    """One number per document, best first, that never rises: for formats and programs that sort by score.

    These are `scores` where they never rise; otherwise the number of the `total` documents that are ranked below.
    Example: [3.5, None] of 2 documents -> [1.0, 0.0].
    """
    numbers = [score for score in scores if score is not None]
    if len(numbers) == len(scores) and all(a >= b for a, b in pairwise(numbers)):
        return numbers
    return [float(total - rank) for rank in range(1, len(scores) + 1)]


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's tau-a of two lists over the same documents, of scores or of ranks: -1 to 1.

    (Concordant - discordant pairs) / all pairs. A pair tied in both lists is concordant, so that equal lists have 1.0;
    a pair tied in one list counts 0. Fewer than two documents have 1.0. Example: [1, 2, 3] and [1, 3, 2] -> 1/3.
    """
    signs = [(_sign(a[i] - a[j]), _sign(b[i] - b[j])) for i, j in combinations(range(len(a)), 2)]
    return sum(1 if x == y else x * y for x, y in signs) / len(signs) if signs else 1.0


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
