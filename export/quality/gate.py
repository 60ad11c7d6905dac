"""The conditions under which an exported pointwise file is kept."""

from __future__ import annotations

from dataclasses import dataclass

from dearlite.export.quality.check import FLOOR


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityGate:
    """The comparison of a written file with fp32, and its least result.

    Without `card` nothing is compared and every file is kept.
    """

    card: bool = True
    min_tau: float = FLOOR  # Kendall's tau of the two orders of the card's pairs
    force: bool = False  # keep a file below `min_tau`; its card names the fault under "below_floor"


DEFAULT_GATE = QualityGate()
