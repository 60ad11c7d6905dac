"""Fits what a model's logits mean as probabilities, on the judged pairs of a named split, and writes it into a file.

A pair is a query and a document of the first stage's run; it is relevant where its grade is above zero, and a document
that nobody judged counts as not relevant, as in the measures. The probability is therefore of that: how likely a
candidate of such a first stage, with this score, is judged relevant.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dearlite.errors import InvalidInput, UsageError
from dearlite.files.trec import Qrels, read_qrels
from dearlite.files.writing import check_output
from dearlite.models.bundle import Bundle, add_members
from dearlite.models.calibration import MARGIN_CUT
from dearlite.models.registry import find_model
from dearlite.offline import rerank_run
from dearlite.offline.collection.collection import Collection, collection_files, open_collection
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


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationResult:
    """A written `.dear` file, and the calibration in it: relevance = sigmoid(scale * score + bias).

    `ece` is the expected calibration error of the fit, `ece_sigmoid` that of the uncalibrated sigmoid, both on the
    pairs of the fit. `margin` is in score units.
    """

    path: Path
    scale: float
    bias: float
    margin: float
    fitted_on: str
    pairs: int
    relevant: int
    ece: float
    ece_sigmoid: float

    def record(self) -> dict[str, Any]:
        """The object that the file's manifest holds under "calibration"."""
        return {
            "kind": "logistic",
            "scale": self.scale,
            "bias": self.bias,
            "margin": self.margin,
            "fitted_on": self.fitted_on,
            "pairs": self.pairs,
            "relevant": self.relevant,
            "ece": self.ece,
            "ece_sigmoid": self.ece_sigmoid,
        }


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
    model: str | Path,
    source: str | Path | Collection | None = None,
    *,
    split: str,
    output: str | Path,
    queries: str | Path | None = None,
    corpus: str | Path | Sequence[str | Path] = (),
    run: str | Path | None = None,
    qrels: str | Path | Qrels | None = None,
    depth: int | None = 100,
    journal: str | Path | None = None,
    progress: Progress | None = None,
) -> CalibrationResult:
    """The calibration of `model` fitted on the judged pairs of `source`, and the `.dear` file with it at `output`.

    `model` is a pointwise model: a name of models.toml or a file. `source` is a collection's folder or a Collection;
    `queries`, `corpus`, `run` and `qrels` name files in place of the folder's. The first `depth` documents of each
    query are scored. `split` is the name of these pairs in the file: a development split, never a test split. With
    `journal` each score is kept at once, and the same call continues from it. `progress(done, total)` counts pairs.

    Raises UsageError for a listwise model or a missing file, InvalidInput for pairs that no curve fits.

    Examples:
        >>> from dearlite.export import calibrate
        >>> result = calibrate("minilm-l12", "nfcorpus-dev", split="NFCorpus dev", output="m.dear")  # doctest: +SKIP
        >>> result.scale, result.bias  # doctest: +SKIP
        (0.297402, -0.858609)

    """
    path = find_model(str(model))
    check_output(output)
    collection, grades = _judged_collection(source, queries, corpus, run, qrels, depth)
    reranker = Reranker.load(path)
    if not reranker.pointwise:
        raise UsageError(f"{path} is a listwise model, which has no score of a single document: name a pointwise model")
    pairs = judged_pairs(collection, grades, reranker, progress, None if journal is None else Path(journal))
    scale, bias = fit_logistic(pairs)
    result = CalibrationResult(
        path=Path(output),
        scale=round(scale, 6),
        bias=round(bias, 6),
        margin=round(margin_of(pairs), 4),
        fitted_on=split,
        pairs=len(pairs.scores),
        relevant=int(pairs.relevant.sum()),
        ece=round(expected_calibration_error(sigmoid(scale * pairs.scores + bias), pairs.relevant), 4),
        ece_sigmoid=round(expected_calibration_error(sigmoid(pairs.scores), pairs.relevant), 4),
    )
    _write_calibrated(path, result)
    return result


def _judged_collection(
    source: str | Path | Collection | None,
    queries: str | Path | None,
    corpus: str | Path | Sequence[str | Path],
    run: str | Path | None,
    qrels: str | Path | Qrels | None,
    depth: int | None,
) -> tuple[Collection, Qrels]:
    """The collection, opened unless `source` is one, and its judgements. Raises UsageError without judgements."""
    if isinstance(source, Collection):
        judgements = source.qrels if qrels is None else qrels
        if judgements is None:
            raise UsageError(f"the collection {source.name} has no judgements: name them with qrels")
        return source, judgements if isinstance(judgements, Mapping) else read_qrels(judgements)
    parts = {"queries": queries, "run": run}
    parts |= {} if isinstance(qrels, Mapping) else {"qrels": qrels}
    files = collection_files(source, parts, [corpus] if isinstance(corpus, (str, Path)) else corpus)
    collection = open_collection(
        None, queries=files["queries"][0], corpus=files["corpus"], run=files["run"][0], depth=depth, skip_bad=True
    )
    return collection, qrels if isinstance(qrels, Mapping) else read_qrels(files["qrels"][0])


def _write_calibrated(path: Path, result: CalibrationResult) -> None:
    """Copies the bundle at `path` to `result.path`, with the calibration in its manifest."""
    draft = result.path.with_name(result.path.name + ".partial")
    try:
        shutil.copyfile(path, draft)
        add_members(draft, {}, calibration=result.record())
        Bundle(draft)
        draft.replace(result.path)
    finally:
        draft.unlink(missing_ok=True)
