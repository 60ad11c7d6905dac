"""Significance of a difference between two runs: paired tests, Holm's correction, and bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

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


def t_test(deltas: Sequence[float]) -> float:
    """The two-sided p value of the paired t-test of `deltas` (one difference per query) against a mean of zero.

    Without a difference, and with fewer than two queries, p is 1. Equal differences other than zero give 0.

    Example: [1, 2, 3] -> 0.0742 (t is 3.4641 with 2 degrees of freedom).
    """
    values = np.asarray(deltas, np.float64)
    if len(values) < 2 or not values.any():
        return 1.0
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    mean = float(values.mean())
    return 0.0 if error <= 1e-15 * abs(mean) else _two_sided(mean / error, len(values) - 1)


def _two_sided(t: float, freedom: int) -> float:
    """P(|T| >= |t|) for Student's t with `freedom` degrees of freedom, exact to 1e-12.

    The finite series of Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    angle = math.atan2(abs(t), math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return min(1.0, max(0.0, 1.0 - inside))


def bootstrap_intervals(
    values: npt.NDArray[np.float64], *, level: float = 0.95, samples: int = 10_000, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Percentile bootstrap intervals of the means of `values` (queries, columns): an array (columns, 2), low and high.

    Queries are drawn with replacement, the same ones for all columns (Efron and Tibshirani 1993, chapter 13; Sakai,
    SIGIR 2006, for retrieval). `level` is the share of the samples between the two ends.
    """
    queries = len(values)
    generator, means, done = np.random.default_rng(seed), [], 0
    while done < samples:
        count = min(samples - done, max(1, _SIGNS_IN_MEMORY // max(1, queries)))
        drawn = generator.multinomial(queries, np.full(queries, 1 / queries), size=count)  # (count, queries)
        means.append(drawn @ values / queries)
        done += count
    tail = (1 - level) / 2
    return np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0).T


def holm(p_values: Sequence[float]) -> list[float]:
    """`p_values` adjusted for multiple comparisons (Holm 1979), in the given order.

    Example: [0.01, 0.04, 0.03] -> [0.03, 0.06, 0.06].
    """
    adjusted, floor = [0.0] * len(p_values), 0.0
    for position, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        floor = max(floor, min(1.0, (len(p_values) - position) * p_values[index]))
        adjusted[index] = floor
    return adjusted
