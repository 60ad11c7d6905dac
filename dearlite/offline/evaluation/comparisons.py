"""Comparisons of runs query by query: differences, p values and confidence intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from dearlite.checks import whole_number
from dearlite.errors import UsageError
from dearlite.offline.evaluation.measures import is_count
from dearlite.offline.evaluation.significance import bootstrap_intervals, holm, randomisation_test, t_test

PerQuery = Mapping[str, Mapping[str, Mapping[str, float]]]  # system -> measure -> query id -> value
Interval = tuple[float, float]
TESTS = {"randomisation": "paired randomisation test", "t": "paired t-test"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The statistics of an evaluation. Raises UsageError for values out of range.

    `test` is a name of TESTS. `confidence` is the level of bootstrap intervals, such as 0.95, None for no
    intervals. With `all_pairs` each two runs are compared, not the subject with each other run alone. `seed` is that of
    the random signs and of the bootstrap samples.
    """

    test: str = "randomisation"
    confidence: float | None = None
    all_pairs: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.test not in TESTS:
            raise UsageError(f"test is {self.test!r}: it is one of {', '.join(TESTS)}")
        if self.confidence is not None and not (isinstance(self.confidence, float) and 0 < self.confidence < 1):
            raise UsageError(f"confidence is {self.confidence!r}: it is a share between 0 and 1, such as 0.95")
        whole_number("seed", self.seed, least=0)

    def p_value(self, deltas: Sequence[float]) -> float:
        """The two-sided p value of differences by query."""
        return t_test(deltas) if self.test == "t" else randomisation_test(deltas, seed=self.seed)

    def sentence(self) -> str:
        """The words on the p values, for a line below a table."""
        family = "pairs of runs" if self.all_pairs else "runs"
        intervals = ""
        if self.confidence is not None:
            intervals = f"; in brackets: {100 * self.confidence:g}% intervals, bootstrap over queries"
        return f"p: {TESTS[self.test]} over queries, two-sided, Holm's correction over the {family}{intervals}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run, `subject`, against another, `baseline`, in one measure.

    The mean difference, the queries won, tied and lost, and p values: `p_holm` is `p` with Holm's correction.
    `interval` is the confidence interval of the difference, None if none was asked for.
    """

    baseline: str
    measure: str
    delta: float
    wins: int
    ties: int
    losses: int
    p: float
    p_holm: float
    subject: str = ""
    interval: Interval | None = None


def compare_runs(
    per_query: PerQuery, subject: str, measures: Sequence[str], statistics: Statistics
) -> tuple[Comparison, ...]:
    """The subject against each other run, and with `all_pairs` each later run against each earlier one.

    Holm's correction is over all comparisons, separately for each measure.
    """
    pairs = [(subject, other) for other in per_query if other != subject]
    if statistics.all_pairs:
        pairs += [(b, a) for a, b in combinations([name for name in per_query if name != subject], 2)]
    comparisons: list[Comparison] = []
    for measure in measures:
        of_measure = [_compare(per_query, *pair, measure, statistics) for pair in pairs]
        corrected = holm([comparison.p for comparison in of_measure])
        comparisons += [replace(entry, p_holm=p_holm) for entry, p_holm in zip(of_measure, corrected, strict=True)]
    return _with_intervals(comparisons, per_query, statistics)


def intervals_of_means(
    per_query: PerQuery, measures: Sequence[str], statistics: Statistics
) -> dict[str, dict[str, Interval]]:
    """System -> measure -> interval of the mean; empty without `confidence`. Measures that count have none."""
    level = statistics.confidence
    keys = [(system, measure) for system in per_query for measure in measures if not is_count(measure)]
    if level is None or not keys:
        return {}
    columns = np.array([list(per_query[system][measure].values()) for system, measure in keys]).T
    intervals: dict[str, dict[str, Interval]] = {system: {} for system in per_query}
    ends = bootstrap_intervals(columns, level=level, seed=statistics.seed)
    for (system, measure), (low, high) in zip(keys, ends.tolist(), strict=True):
        intervals[system][measure] = (low, high)
    return intervals


def differences(per_query: PerQuery, subject: str, baseline: str, measure: str) -> dict[str, float]:
    """Query id -> (value of `subject`) - (value of `baseline`); less than 1e-9 is a rounding error, and 0 here."""
    ours, theirs = per_query[subject][measure], per_query[baseline][measure]
    deltas = {query_id: value - theirs[query_id] for query_id, value in ours.items()}
    return {query_id: 0.0 if abs(delta) < 1e-9 else delta for query_id, delta in deltas.items()}


def _compare(per_query: PerQuery, subject: str, baseline: str, measure: str, statistics: Statistics) -> Comparison:
    """One comparison; `p_holm` is not corrected yet."""
    deltas = list(differences(per_query, subject, baseline, measure).values())
    wins, losses = sum(delta > 0 for delta in deltas), sum(delta < 0 for delta in deltas)
    p, mean = statistics.p_value(deltas), sum(deltas) / len(deltas)
    return Comparison(baseline, measure, mean, wins, len(deltas) - wins - losses, losses, p, p, subject)


def _with_intervals(
    comparisons: Sequence[Comparison], per_query: PerQuery, statistics: Statistics
) -> tuple[Comparison, ...]:
    if statistics.confidence is None or not comparisons:
        return tuple(comparisons)
    deltas = [differences(per_query, c.subject, c.baseline, c.measure) for c in comparisons]
    columns = np.array([list(of_queries.values()) for of_queries in deltas]).T
    ends = bootstrap_intervals(columns, level=statistics.confidence, seed=statistics.seed).tolist()
    return tuple(
        replace(comparison, interval=(low, high)) for comparison, (low, high) in zip(comparisons, ends, strict=True)
    )
