"""A score as a probability: what a model file says its logits mean, as `dearlite models calibrate` fitted it.

A cross-encoder's sigmoid is not that: it was trained on batches with as many negatives as its authors chose. Where a
file says nothing, nothing is claimed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dearlite.errors import ModelFileError


@dataclass(frozen=True, slots=True)
class Calibration:
    """P(relevant | score) = 1 / (1 + exp(-(scale · score + bias))): Platt 1999. It keeps the order of scores."""

    scale: float
    bias: float
    margin: float | None = None  # below the cut by so much at most lie 95% of the relevant documents; None: not known

    def __call__(self, score: float) -> float:
        """The probability for a raw logit, between 0 and 1."""
        x = self.scale * score + self.bias
        return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def read_calibration(record: Mapping[str, Any] | None, where: str) -> Calibration | None:
    """The manifest's `calibration`, None where it has none. Raises ModelFileError for a kind that is not known.

    Format: {"kind": "logistic", "scale": …, "bias": …, "margin": …} and what is only to be read: "fitted_on", "pairs",
    "relevant", "ece", "ece_sigmoid".
    """
    if record is None:
        return None
    if record.get("kind") != "logistic":
        raise ModelFileError(f"{where} has a calibration of kind {record.get('kind')!r}: update dearlite")
    values = [record.get("scale"), record.get("bias")]
    numbers = [float(v) for v in values if isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)]
    if len(numbers) != 2 or numbers[0] <= 0:
        raise ModelFileError(f"{where}: its calibration is not a scale above 0 and a bias: calibrate the model again")
    margin = record.get("margin")
    if margin is not None and (isinstance(margin, bool) or not isinstance(margin, (int, float)) or not margin >= 0):
        raise ModelFileError(f"{where}: the margin of its calibration is {margin!r}: calibrate the model again")
    return Calibration(numbers[0], numbers[1], None if margin is None else float(margin))
