"""The conditions under which an exported file is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dearlite.errors import DearliteError

MIN_TAU = 0.95  # least Kendall's tau of the orders of a pointwise file and of fp32
# Least share of positions with fp32's likeliest token. A file with a matrix in the wrong order agrees at hardly any
# position; the worst correct file measured, SmolLM2 135M in iq4_xs, agrees at 0.74.
MIN_AGREEMENT = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityGate:
    """The comparison of a written file with fp32, and its least result.

    Without `card` nothing is compared and every file is kept.
    """

    card: bool = True
    floor: float = MIN_TAU  # of Kendall's tau; of a listwise file the share of positions with fp32's likeliest token
    force: bool = False  # keep a file below the floor; its card names the fault under "below_floor"

    def apply(self, output: Path, card: dict[str, Any], fault: str, remedy: str = "") -> None:
        """Raises DearliteError for a `fault`; with `force` the card records it under "below_floor" instead."""
        if not fault:
            return
        if not self.force:
            stated = f"{fault}: {remedy}" if remedy else fault
            raise DearliteError(f"{output} is not written: {stated} (--force keeps it)")
        card["below_floor"] = fault


DEFAULT_GATE = QualityGate()
