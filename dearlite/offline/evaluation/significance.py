"""Significance of a difference between two runs: the paired randomisation test, and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_EXACT_UP_TO = 16  # differences; their 65,536 sign patterns are all enumerated
_SIGNS_IN_MEMORY = 4_000_000


def randomisation_test(deltas: Sequence[float], *, samples: int = 100_000, seed: int = 0) -> float:
    """The two-sided p value of the mean of `deltas` (one difference per query) under random signs.

    Fisher's randomisation test as Smucker, Allan and Carterette (CIKM 2007) apply it to retrieval: if both runs have
    the same quality, each difference has either sign with equal probability. With at most 16 nonzero differences all
    sign patterns are enumerated; otherwise `samples` are drawn, and p = (patterns as extreme + 1) / (samples + 1).

    Example: [1, 1, 1] -> 0.25: two of eight patterns, +++ and ---, are as extreme.
    """
    values = np.array([delta for delta in deltas if delta != 0], np.float64)
    if not len(values):
        return 1.0
    least = abs(values.sum()) * (1 - 1e-9) - 1e-12  # sums that differ by rounding alone count as equally extreme
    if len(values) <= _EXACT_UP_TO:
        signs = np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1  # (patterns, values)
        return float(np.mean(np.abs((2.0 * signs - 1.0) @ values) >= least))
    generator, extreme, done = np.random.default_rng(seed), 0, 0
    while done < samples:
        count = min(samples - done, max(1, _SIGNS_IN_MEMORY // len(values)))
        signs = generator.integers(0, 2, (count, len(values)), np.int8)
        extreme += int(np.sum(np.abs(2.0 * (signs @ values) - values.sum()) >= least))
        done += count
    return (extreme + 1) / (samples + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """`p_values` adjusted for multiple comparisons (Holm 1979), in the given order.

    Example: [0.01, 0.04, 0.03] -> [0.03, 0.06, 0.06].
    """
    adjusted, floor = [0.0] * len(p_values), 0.0
    for position, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        floor = max(floor, min(1.0, (len(p_values) - position) * p_values[index]))
        adjusted[index] = floor
    return adjusted
