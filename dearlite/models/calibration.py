"""The map from raw logit to probability of relevance: fitted by `dearlite models calibrate`, or that of the makers.

The sigmoid of a cross-encoder's logit is no probability of relevance: its training batches had an arbitrary share of
negatives. A file without a calibration therefore gives no relevance, unless its makers publish a probability.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dearlite.errors import ModelFileError

MARGIN_CUT = 10  # rank of the cut-off that the margin is fitted for, and that an adaptive stage uses without a top_k


@dataclass(frozen=True, slots=True)
class Calibration:
    """P(relevant | score) = 1 / (1 + exp(-(scale · score + bias))): Platt 1999. It keeps the order of scores.

    `margin`: 95% of the relevant documents score at least (score at rank MARGIN_CUT) - margin. None: not calibrated.
    `origin` is CALIBRATION for a fit, ACTIVATION for the makers' own probability. `of_log`: the score is the log of
    that probability, which has no scale and bias then.
    """

    scale: float
    bias: float
    margin: float | None = None
    origin: str = "calibration"
    of_log: bool = False

    def __call__(self, score: float) -> float:
        """The probability of relevance for a raw logit, from 0 to 1."""
        if self.of_log:
            return math.exp(min(score, 0.0))
        x = self.scale * score + self.bias
        return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


CALIBRATION, ACTIVATION = "calibration", "activation"  # the origins of a hit's relevance
SIGMOID = Calibration(1.0, 0.0, origin="")  # no relevance: for programs that need a number from 0 to 1


def read_activation(record: Mapping[str, Any] | None, where: str) -> Calibration | None:
    """The makers' probability in a manifest's `activation`; None if it has none.

    It is {"scale": …, "bias": …}, or {"kind": "exp"} for a score that is the log of the probability. Raises
    ModelFileError for any other record.
    """
    if record is None:
        return None
    if record == {"kind": "exp"}:
        return Calibration(1.0, 0.0, origin=ACTIVATION, of_log=True)
    if not isinstance(record, Mapping) or set(record) != {"scale", "bias"}:
        raise ModelFileError(f"{where}: its activation is not a scale and a bias: export the model again")
    return _logistic(record, where, ACTIVATION, "export the model again")


def read_calibration(record: Mapping[str, Any] | None, where: str) -> Calibration | None:
    """The Calibration in a manifest's `calibration`, None if it has none. Raises ModelFileError for an unknown kind.

    Format: {"kind": "logistic", "scale": …, "bias": …, "margin": …}, and for readers only "fitted_on", "pairs",
    "relevant", "ece", "ece_sigmoid".
    """
    if record is None:
        return None
    if not isinstance(record, Mapping):
        raise ModelFileError(f"{where}: its calibration is not an object: calibrate the model again")
    if record.get("kind") != "logistic":
        raise ModelFileError(f"{where} has a calibration of unknown kind {record.get('kind')!r}: update dearlite")
    curve = _logistic(record, where, CALIBRATION, "calibrate the model again")
    margin = record.get("margin")
    if margin is not None and (isinstance(margin, bool) or not isinstance(margin, (int, float)) or not margin >= 0):
        raise ModelFileError(f"{where}: the margin of its calibration is {margin!r}: calibrate the model again")
    return replace(curve, margin=None if margin is None else float(margin))


def _logistic(record: Mapping[str, Any], where: str, origin: str, remedy: str) -> Calibration:
    values = [record.get("scale"), record.get("bias")]
    numbers = [float(v) for v in values if isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)]
    if len(numbers) != 2 or numbers[0] <= 0:
        raise ModelFileError(f"{where}: its {origin} is not a scale above 0 and a bias: {remedy}")
    return Calibration(numbers[0], numbers[1], origin=origin)
