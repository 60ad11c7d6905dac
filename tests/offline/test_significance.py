"""The randomisation test against patterns counted by hand, and Holm's correction."""

import numpy as np
import pytest

from dearlite.offline.evaluation.significance import holm, randomisation_test


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
