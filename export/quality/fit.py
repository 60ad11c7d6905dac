"""The fit of scores to probabilities of relevance, in NumPy: logistic curve, margin, and the error of the fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dearlite.errors import InvalidInput
from dearlite.models.calibration import MARGIN_CUT

BINS = 15
MARGIN_SHARE = 0.95  # share of the relevant documents that the margin covers
_STEPS = 100


@dataclass(frozen=True, slots=True)
class JudgedScores:
    """Scores of judged (query, document) pairs, as arrays with one entry per pair."""

    scores: Any  # (pairs,) float64
    relevant: Any  # (pairs,) bool
    queries: Any  # (pairs,) int64: the number of the pair's query


def fit_logistic(pairs: JudgedScores) -> tuple[float, float]:
    """(scale, bias) of sigmoid(scale * score + bias) with the least log loss.

    Newton's method. The targets are Platt's (1999) instead of 0 and 1, so that separable pairs have a finite fit.
    Raises InvalidInput for pairs of one class, and for scores that do not rise with relevance.
    """
    positives = int(pairs.relevant.sum())
    negatives = len(pairs.relevant) - positives
    if not positives or not negatives:
        raise InvalidInput(
            f"{positives} of {len(pairs.relevant)} pairs are relevant: a fit needs relevant and other pairs"
        )
    target = np.where(pairs.relevant, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.stack([pairs.scores, np.ones_like(pairs.scores)], axis=1)  # (pairs, 2)
    weights = np.array([0.0, np.log((positives + 1) / (negatives + 1))])
    for _ in range(_STEPS):
        probability = sigmoid(design @ weights)
        gradient = design.T @ (probability - target)
        hessian = (design * (probability * (1 - probability))[:, None]).T @ design
        step = np.linalg.solve(hessian + 1e-9 * np.eye(2), gradient)
        weights = weights - step * min(1.0, 5.0 / max(np.abs(step).max(), 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    scale, bias = map(float, weights)
    if scale <= 0:
        raise InvalidInput("higher scores are not more often relevant on these pairs: this model cannot be calibrated")
    return scale, bias


def fit_margin(pairs: JudgedScores, cut: int = MARGIN_CUT, share: float = MARGIN_SHARE) -> float:
    """The smallest m such that `share` of the relevant documents score at least (score at rank `cut`) - m.

    A later stage that reads the documents down to this margin can bring `share` of the relevant ones above the cut-off.
    Example: of two relevant documents one scores above the cut-off and the other 3.0 below it. A share of 1 gives 3.0.
    """
    shortfalls: list[float] = []
    for query in np.unique(pairs.queries):
        of_query = pairs.queries == query
        scores = pairs.scores[of_query]
        score_at_cut = np.sort(scores)[::-1][min(cut, len(scores)) - 1]
        shortfalls += list(np.maximum(0.0, score_at_cut - scores[pairs.relevant[of_query]]))
    return float(np.quantile(shortfalls, share, method="higher")) if shortfalls else 0.0


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), (n,) float64. The form with tanh does not overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def expected_calibration_error(probability: Sequence[float] | Any, relevant: Any, bins: int = BINS) -> float:
    """The mean of |share of relevant pairs - mean probability| over bins of equal width, weighted by their pairs.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks". Example: two pairs at 0.9, one of them
    relevant -> 0.4.
    """
    probability = np.asarray(probability, np.float64)
    bin_of_pair = np.minimum((probability * bins).astype(int), bins - 1)
    total = 0.0
    for number in np.unique(bin_of_pair):
        inside = bin_of_pair == number
        total += inside.sum() * abs(relevant[inside].mean() - probability[inside].mean())
    return float(total / len(probability))
