"""Is a difference between two runs more than chance? The paired randomisation test, and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_EXACT_UP_TO = 16  # differences: 65,536 sign patterns are all tried
_CELLS = 4_000_000  # signs held at once


def randomisation_test(deltas: Sequence[float], *, samples: int = 100_000, seed: int = 0) -> float:
    """The two-sided p value of the mean of `deltas`, one difference a query, under random signs.

    Fisher's randomisation test as Smucker, Allan and Carterette (CIKM 2007) apply it to retrieval: had the two runs the
    same quality, each difference could as well have the other sign. All patterns are tried where at most 16 differences
    are not zero; otherwise `samples` of them, and p is (as extreme + 1) / (samples + 1).

    Example: [1, 1, 1] -> 0.25: of eight patterns two, +++ and ---, are as extreme.
    """
    values = np.array([delta for delta in deltas if delta != 0], np.float64)
    if not len(values):
        return 1.0
    least = abs(values.sum()) * (1 - 1e-9) - 1e-12  # sums that are equal but for rounding are as extreme
    if len(values) <= _EXACT_UP_TO:
        signs = np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1  # (patterns, values)
        return float(np.mean(np.abs((2.0 * signs - 1.0) @ values) >= least))
    generator, extreme, done = np.random.default_rng(seed), 0, 0
    while done < samples:
        count = min(samples - done, max(1, _CELLS // len(values)))
        signs = generator.integers(0, 2, (count, len(values)), np.int8)
        extreme += int(np.sum(np.abs(2.0 * (signs @ values) - values.sum()) >= least))
        done += count
    return (extreme + 1) / (samples + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """`p_values` adjusted for being several (Holm 1979), in their order.

    Example: [0.01, 0.04, 0.03] -> [0.03, 0.06, 0.06].
    """
    adjusted, floor = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        floor = max(floor, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = floor
    return adjusted
