"""Fits what a model's logits mean as probabilities, on the judged pairs of a named split, and writes it into a file.

A pair is a query and a document of the first stage's run; it is relevant where its grade is above zero, and a document
that nobody judged counts as not relevant, as in the measures. The probability is therefore of that: how likely a
candidate of such a first stage, with this score, is judged relevant.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dearlite.errors import InvalidInput, UsageError
from dearlite.files.trec import Qrels
from dearlite.models.bundle import Bundle, add_members
from dearlite.models.calibration import MARGIN_CUT
from dearlite.offline import rerank_run
from dearlite.offline.collection.collection import Collection
from dearlite.progress import Progress
from dearlite.reranker import Reranker

_STEPS = 100
BINS = 15
SHARE = 0.95  # of the relevant documents, which the margin covers


@dataclass(frozen=True, slots=True)
class Judged:
    """Pairs with scores (pairs,) float64 and whether each is relevant (pairs,) bool."""

    scores: Any
    relevant: Any
    queries: Any  # (pairs,) int64: which query a pair is of


def judged_pairs(
    collection: Collection,
    qrels: Qrels,
    reranker: Reranker,
    progress: Progress | None = None,
    journal: Path | None = None,
) -> Judged:
    """The model's scores of the collection's run, beside its judgements; queries that nobody judged are left out.

    `journal` keeps scores at once, and what it holds already is not scored again.
    """
    scored = rerank_run(collection, model=reranker, journal=journal or False, progress=progress)
    scores: list[float] = []
    relevant: list[bool] = []
    queries: list[int] = []
    for number, (name, found) in enumerate(scored.run.items()):
        if name in qrels:
            scores += found.values()
            relevant += [qrels[name].get(document, 0) > 0 for document in found]
            queries += [number] * len(found)
    return Judged(np.array(scores, np.float64), np.array(relevant, bool), np.array(queries, np.int64))


def fit_logistic(pairs: Judged) -> tuple[float, float]:
    """(scale, bias) of the least log loss, by Newton's method, with Platt's targets against certainty.

    Raises InvalidInput where one class is missing or scores do not tell relevant documents from others.
    """
    right = int(pairs.relevant.sum())
    wrong = len(pairs.relevant) - right
    if not right or not wrong:
        raise InvalidInput(f"{right} of {len(pairs.relevant)} pairs are relevant: a fit needs some of each")
    target = np.where(pairs.relevant, (right + 1) / (right + 2), 1 / (wrong + 2))
    design = np.stack([pairs.scores, np.ones_like(pairs.scores)], axis=1)
    weights = np.array([0.0, np.log((right + 1) / (wrong + 1))])
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


def margin_of(pairs: Judged, cut: int = MARGIN_CUT, share: float = SHARE) -> float:
    """The least margin by which `share` of the relevant documents lie above their query's score at the cut, less it.

    A later stage that sees what lies above this could bring so many of them up. Example: of two relevant documents one
    stands above the cut and the other 3.0 below: with a share of 1 the margin is 3.0.
    """
    below = []
    for query in np.unique(pairs.queries):
        mine = pairs.queries == query
        scores = pairs.scores[mine]
        at = np.sort(scores)[::-1][min(cut, len(scores)) - 1]
        below += list(np.maximum(0.0, at - scores[pairs.relevant[mine]]))
    return float(np.quantile(below, share, method="higher")) if below else 0.0


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), (n,) float64."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def expected_calibration_error(probability: Sequence[float] | Any, relevant: Any, bins: int = BINS) -> float:
    """The mean of |share relevant - mean probability| over bins of equal width, by their pairs (Guo et al. 2017).

    Example: two pairs at 0.9, one of them relevant -> 0.4.
    """
    probability = np.asarray(probability, np.float64)
    place = np.minimum((probability * bins).astype(int), bins - 1)
    total = 0.0
    for one in np.unique(place):
        inside = place == one
        total += inside.sum() * abs(relevant[inside].mean() - probability[inside].mean())
    return float(total / len(probability))


def calibrate(
    path: Path,
    collection: Collection,
    qrels: Qrels,
    output: Path,
    *,
    split: str,
    progress: Progress | None = None,
    journal: Path | None = None,
) -> dict[str, Any]:
    """Writes `path` to `output` with a calibration fitted on `collection`, and gives the record that stands in it.

    `split` is what the pairs are called. The errors in the record are those of the fit, on the pairs it was fitted on.
    """
    reranker = Reranker.load(path)
    if not reranker.pointwise:
        raise UsageError(f"{path} is a listwise model: it has no score of a document alone to calibrate")
    pairs = judged_pairs(collection, qrels, reranker, progress, journal)
    scale, bias = fit_logistic(pairs)
    record = {
        "kind": "logistic",
        "scale": round(scale, 6),
        "bias": round(bias, 6),
        "margin": round(margin_of(pairs), 4),
        "fitted_on": split,
        "pairs": len(pairs.scores),
        "relevant": int(pairs.relevant.sum()),
        "ece": round(expected_calibration_error(sigmoid(scale * pairs.scores + bias), pairs.relevant), 4),
        "ece_sigmoid": round(expected_calibration_error(sigmoid(pairs.scores), pairs.relevant), 4),
    }
    draft = output.with_name(output.name + ".partial")
    try:
        shutil.copyfile(path, draft)
        add_members(draft, {}, calibration=record)
        Bundle(draft)
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)
    return record
