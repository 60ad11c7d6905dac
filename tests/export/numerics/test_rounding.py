"""Rounding to int8, to the nearest and by GPTQ, with moments and leading directions."""

import numpy as np
import pytest

from dearlite.export.numerics.leading_directions import (
    DIRECTIONS,
    copy_counts,
    extend_moments,
    extend_weight,
    leading_directions,
    sharing_matrix,
)
from dearlite.export.numerics.rounding import GROUP, Moments, pair_scales, round_pairs, round_with_moments

RNG = np.random.default_rng(7)


def correlated(tokens, inputs):
    return (RNG.standard_normal((tokens, inputs // 4)) @ RNG.standard_normal((inputs // 4, inputs))).astype(np.float32)


def relative(rows, weight, steps, scale):
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.linalg.norm(unit @ (steps * scale - weight)) / np.linalg.norm(unit @ weight)


def test_gptq_beats_nearest_on_rows_it_has_not_seen():
    rows = correlated(2000, 300)
    weight = RNG.standard_normal((300, 70)).astype(np.float32)
    scale = pair_scales(weight)
    moments = Moments(300)
    moments.add(rows[:1500])
    by_gptq = relative(rows[1500:], weight, round_with_moments(weight, scale, moments), scale)
    nearest = relative(rows[1500:], weight, round_pairs(weight, scale), scale)
    assert by_gptq < 0.5 * nearest


def test_uncorrelated_inputs_are_rounded_to_the_nearest():
    weight = RNG.standard_normal((300, 40)).astype(np.float32)
    scale = pair_scales(weight)
    moments = Moments(300)
    moments.add(np.eye(300, dtype=np.float32))
    assert (round_with_moments(weight, scale, moments) == round_pairs(weight, scale)).all()


def test_no_step_leaves_int8_and_no_moment_is_fine():
    weight = (RNG.standard_normal((90, 8)) ** 9).astype(np.float32)
    scale = pair_scales(weight)
    steps = round_with_moments(weight, scale, Moments(90))
    assert steps.dtype == np.int8 and steps.min() >= -127
    assert (steps == round_pairs(weight, scale)).all()


def test_moments_count_a_row_by_its_direction():
    rows = correlated(50, 40)
    moments, scaled = Moments(40), Moments(40)
    moments.add(rows)
    scaled.add(rows * RNG.uniform(0.01, 1000, (50, 1)).astype(np.float32))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert moments.sums[0] == pytest.approx(unit.T @ unit, abs=1e-4)
    assert scaled.sums[0] == pytest.approx(moments.sums[0], abs=1e-4)


def test_wide_matrices_are_rounded_in_groups_of_their_rows(monkeypatch):
    from dearlite.export.numerics import rounding

    assert len(Moments(GROUP + 1).sums) == 2
    monkeypatch.setattr(rounding, "GROUP", 100)
    rows, weight = correlated(900, 250), RNG.standard_normal((250, 30)).astype(np.float32)
    scale = pair_scales(weight)
    moments = Moments(250)
    moments.add(rows)
    assert [len(part) for part in moments.sums] == [100, 100, 50]
    steps = round_with_moments(weight, scale, moments)
    assert relative(rows, weight, steps, scale) < relative(rows, weight, round_pairs(weight, scale), scale)


def test_rows_that_are_all_alike_are_no_obstacle():
    """The moments have a single direction: in float32 they are positive definite only with more damping."""
    row = RNG.standard_normal((1, 400)).astype(np.float32) * 50
    rows = np.repeat(row, 3000, axis=0)
    weight = RNG.standard_normal((400, 30)).astype(np.float32)
    moments = Moments(400, group=400)
    moments.add(rows)
    directions = leading_directions(moments.sums[0])
    wider = extend_weight(weight, directions)
    scale = pair_scales(wider)
    steps = round_with_moments(wider, scale, moments.extended(directions))
    components = rows[:1] @ directions
    extended = np.concatenate([rows[:1] - components @ directions.T, components @ sharing_matrix(400)], axis=1)
    assert extended @ wider == pytest.approx(rows[:1] @ weight, abs=0.01)
    assert np.abs(extended @ (steps * scale) - rows[:1] @ weight).max() < 0.01 * np.abs(rows[:1] @ weight).max()


def test_extended_rows_and_weights_have_the_same_product_and_moments():
    rows, weight = correlated(500, 200), RNG.standard_normal((200, 30)).astype(np.float32)
    moments = rows.T @ rows
    directions = leading_directions(moments)
    assert directions.T @ directions == pytest.approx(np.eye(DIRECTIONS), abs=1e-5)
    _, vectors = np.linalg.eigh(moments)
    assert np.abs((directions * vectors[:, ::-1][:, :DIRECTIONS]).sum(axis=0)) == pytest.approx(1, abs=1e-2)
    components = rows @ directions
    extended = np.concatenate([rows - components @ directions.T, components @ sharing_matrix(200)], axis=1)
    assert extended.shape[1] == 200 + sum(copy_counts(200)) and sum(copy_counts(200)) % 8 == 0
    scale = float(np.abs(rows @ weight).max())
    assert extended @ extend_weight(weight, directions) == pytest.approx(rows @ weight, abs=1e-4 * scale)
    wider = extend_moments(moments, directions)
    assert wider == pytest.approx(extended.T @ extended, abs=1e-4 * float(np.abs(wider).max()))
