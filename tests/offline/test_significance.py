"""The randomisation test against patterns counted by hand, and Holm's correction."""

import numpy as np
import pytest

from dearlite.offline.evaluation.significance import bootstrap_intervals, holm, randomisation_test, t_test


@pytest.mark.parametrize(
    ("deltas", "p"),
    [
        ([], 1.0),
        ([0.0, 0.0], 1.0),
        ([0.3], 1.0),  # + and - are both as extreme
        ([1, 1, 1], 2 / 8),  # +++ and ---
        ([1, 1, 1, 0], 2 / 8),  # a tie says nothing
        ([3, -1], 1.0),  # sum 2; |3+1|=4 twice, |3-1|=2 twice: all four
        ([2, 1, 1], 2 / 8),  # sum 4 of 4: +++ and ---
        ([2, 1, -1], 6 / 8),  # sum 2: of the eight sums 4 2 2 0 0 -2 -2 -4 six reach it
        ([0.1, 0.2, -0.3], 1.0),  # sums that are zero but for rounding
    ],
)
def test_patterns_counted_by_hand(deltas, p):
    assert randomisation_test(deltas) == pytest.approx(p)


def test_samples_agree_with_all_patterns():
    deltas = np.random.default_rng(1).normal(0.05, 0.3, 16)
    exact = randomisation_test(deltas)
    twice = [*deltas, 1e-12]  # one more than the exact test takes, too small to matter
    sampled = randomisation_test(twice, samples=200_000, seed=3)
    assert 0.01 < exact < 0.5
    assert sampled == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 200_000) ** 0.5)
    assert sampled == randomisation_test(twice, samples=200_000, seed=3)


def test_sampling_agrees_with_the_normal_law_for_many_queries():
    """300 differences: the test's p is that of a normal sum with the same squares, to three standard errors."""
    from math import erfc, sqrt

    deltas = np.random.default_rng(2).normal(0.02, 0.2, 300)
    expected = erfc(abs(deltas.sum()) / sqrt(2 * float(deltas @ deltas)))
    assert randomisation_test(deltas) == pytest.approx(expected, abs=3 * sqrt(expected / 100_000) + 0.002)


def test_certain_differences_never_give_zero():
    assert randomisation_test([1.0] * 100, samples=999) == 1 / 1000


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("deltas", "p"),
    [
        ([], 1.0),
        ([0.4], 1.0),
        ([0.0, 0.0, 0.0], 1.0),
        ([0.5, 0.5, 0.5], 0.0),
        ([1, 3], 2 / np.pi * np.arctan2(1, 2)),  # t is 2 with one degree of freedom: the Cauchy law
        ([1, 2, 3], 1 - 12**0.5 / (12 + 2) ** 0.5),  # t is sqrt(12) with two: 1 - t / sqrt(t^2 + 2)
    ],
)
def test_t_tests_by_hand(deltas, p):
    assert t_test(deltas) == pytest.approx(p, abs=1e-12)


@pytest.mark.parametrize("queries", [2, 3, 4, 5, 20, 21, 300, 6980])
def test_t_tests_agree_with_scipy(queries):
    stats = pytest.importorskip("scipy.stats")
    deltas = np.random.default_rng(queries).normal(0.02, 0.3, queries)
    assert t_test(deltas) == pytest.approx(float(stats.ttest_1samp(deltas, 0).pvalue), abs=1e-11)


def test_bootstrap_intervals_of_a_normal_sample_are_those_of_the_normal_law():
    values = np.random.default_rng(5).normal([0.5, 1.0], [0.2, 0.1], (400, 2))
    ends = bootstrap_intervals(values, level=0.95, seed=1)
    error = values.std(axis=0) / 20
    assert ends[:, 0] == pytest.approx(values.mean(axis=0) - 1.96 * error, abs=0.1 * error.max())
    assert ends[:, 1] == pytest.approx(values.mean(axis=0) + 1.96 * error, abs=0.1 * error.max())
    assert (ends == bootstrap_intervals(values, level=0.95, seed=1)).all()
    assert not (ends == bootstrap_intervals(values, level=0.95, seed=2)).all()


def test_a_bootstrap_of_two_queries_by_hand():
    """Means 0, 0.5 and 1 with shares 1/4, 1/2 and 1/4: the middle 40% is 0.5 alone, the middle 60% all."""
    values = np.array([[0.0], [1.0]])
    assert bootstrap_intervals(values, level=0.4).tolist() == [[0.5, 0.5]]
    assert bootstrap_intervals(values, level=0.6).tolist() == [[0.0, 1.0]]
