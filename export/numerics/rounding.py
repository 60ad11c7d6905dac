"""Rounds a matrix to int8: to the nearest step, or by GPTQ, which compensates each rounding error in later rows.

GPTQ (arXiv 2210.17323) needs the second moments of the matrix's inputs. Both methods use one scale per column and keep
the limit of pairs (PAIR_LIMIT), so the file and the run time are the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dearlite.export.numerics.leading_directions import extend_moments
from dearlite.models.pair_limit import LARGEST, PAIR_LIMIT, keeps_limit

_ROWS = 4096  # rows that are rounded to the nearest in one step, since rows are independent there
# GPTQ: the errors of _OUTER rows are propagated to the later rows in one product, and inside these rows the errors of
# _INNER rows at a time; only inside _INNER rows the propagation goes row by row. Columns are independent.
_OUTER, _INNER = 256, 16
_COLUMNS = 2048
# Largest number of inputs with a common covariance matrix. A wider matrix is rounded in groups of its rows: the
# covariance between groups is ignored, for group^2 numbers instead of inputs^2 (8B: 14,336^2 for the down projection).
GROUP = 2048
_SHRINKS = [1 - 0.01 * percent for percent in range(11)]  # of a column's scale below that of its largest pair
_DAMPING = 0.01  # the minimum weight of the identity in the moments, as in GPTQ


class Moments:
    """Second moments of a matrix's inputs, one group of inputs at a time: `sums` are (group, group) float32 arrays."""

    def __init__(self, inputs: int, group: int | None = None) -> None:
        group = group or GROUP
        self.rows = 0
        self.spans = [(start, min(start + group, inputs)) for start in range(0, inputs, group)]
        self.sums = [np.zeros((stop - start,) * 2, np.float32) for start, stop in self.spans]

    def add(self, rows: Any) -> None:
        """Adds the moments of `rows`, (tokens, inputs) float32, after scaling each row to unit length.

        int8 rounds a row relative to its own largest value, so only the direction of a row matters. Without the scaling
        the row of the attention sink, forty times as long as the others, would dominate the sum.
        """
        self.rows += len(rows)
        unit = rows / np.maximum(np.sqrt(np.einsum("ti,ti->t", rows, rows))[:, None], 1e-30)
        for (start, stop), total in zip(self.spans, self.sums, strict=True):
            part = unit[:, start:stop]
            np.add(total, part.T @ part, out=total)

    def extended(self, directions: Any) -> Moments:
        """The moments of the inputs extended as in leading_directions.py; needs a single group."""
        (total,) = self.sums
        wider = Moments(0)
        wider.rows, wider.sums = self.rows, [extend_moments(total, directions)]
        wider.spans = [(0, len(wider.sums[0]))]
        return wider

    def damped(self, number: int) -> Any:
        """The moments of group `number`, mean diagonal 1, shrunk towards the identity by the Ledoit-Wolf weight.

        With few rows most directions seem never to occur, and GPTQ would move its errors there. The weight with the
        least expected error (Ledoit and Wolf 2004, doi:10.1016/S0047-259X(03)00096-4), for n rows of equal length in k
        dimensions, is (t^2 - |S|^2) / n / (|S|^2 - t^2/k), where S is their mean product and t its trace.
        """
        total = self.sums[number].astype(np.float64)
        size, trace = len(total), total.trace()
        if trace <= 0:
            return np.eye(size)
        norm_squared = sum(float(np.vdot(part, part)) for part in self.sums)
        trace_squared = sum(float(part.trace()) for part in self.sums) ** 2
        inputs = self.spans[-1][1]
        weight = (trace_squared - norm_squared) / self.rows
        weight /= max(norm_squared - trace_squared / inputs, 1e-9 * trace_squared)
        weight = min(max(weight, _DAMPING), 1.0)
        total *= (1 - weight) * size / trace
        total[np.diag_indices(size)] += weight
        return total


def column_scales(weight: Any) -> Any:
    """(out,) float32 for `weight` (in, out): each column's largest magnitude / 127, so that int8 spans -127 to 127."""
    largest = np.maximum(weight.max(axis=0), -weight.min(axis=0))
    least = np.finfo(np.float32).tiny  # a 127th of a smaller number has few bits, or none
    return np.where(largest > 0, np.maximum(largest / LARGEST, least), 1).astype(np.float32)


def pair_scales(weight: Any) -> Any:
    """(out,) float32 for `weight` (in, out): the smallest scales at which no weight and no pair leaves its limit.

    A pair is two weights of a column in rows 2i and 2i + 1. With opposite signs its sum is the smaller of the two
    bounds, so that the largest sum alone decides.
    """
    scale = column_scales(weight)
    for start in range(0, len(weight) - 1, _ROWS):
        sums = np.add(*_pairs(weight[start : start + _ROWS]))
        np.maximum(
            scale, np.maximum(sums.max(axis=0), -sums.min(axis=0)) / PAIR_LIMIT, out=scale, where=sums.any(axis=0)
        )
    return scale


def round_to_nearest(weight: Any, scale: Any) -> Any:
    """`weight` (in, out) float32 in int8 multiples of `scale`, each rounded to the nearest.

    `scale` is (out,) with a scale per column, or (in, 1) with a scale per row.
    """
    steps, scales = np.empty(weight.shape, np.int8), np.broadcast_to(scale, weight.shape)
    for start in range(0, len(weight), _ROWS):  # in blocks: the temporary array of the division is fp32
        steps[start : start + _ROWS] = np.round(weight[start : start + _ROWS] / scales[start : start + _ROWS])
    return steps


def round_pairs(weight: Any, scale: Any) -> Any:
    """`weight` (in, out) float32 in int8 multiples of the column scales, each pair rounded to near values in its limit.

    Both weights of a pair beyond the limit give way by half of the excess. Where rounding lifts both, so that the sum
    is one step beyond the limit, the second gives way.
    """
    steps = np.empty(weight.shape, np.int8)
    for start in range(0, len(weight), _ROWS):
        block = weight[start : start + _ROWS] / scale
        first, second = _pairs(block)
        sums = first + second
        excess = (sums - np.clip(sums, -PAIR_LIMIT, PAIR_LIMIT)) / 2
        first -= excess
        second -= excess
        steps[start : start + _ROWS] = np.clip(np.round(block), -LARGEST, LARGEST)
    first, second = _pairs(steps)
    np.clip(second, *_room(first), out=second, casting="unsafe")
    return steps


def limit_pairs(steps: Any, scale: Any) -> tuple[Any, Any]:
    """int8 `steps` (in, out) within the limits, and their column scales (out,) float32, from steps beyond them.

    A column that keeps the limits stays as it is, with its scale. Any other is rounded again, at the scale with the
    least error of some from its `pair_scales` down.
    """
    weight = steps.astype(np.float32)
    sums = np.abs(np.add(*_pairs(steps.astype(np.int16))))
    within = (sums <= PAIR_LIMIT).all(axis=0) & (steps >= -LARGEST).all(axis=0)
    limited, factors = steps.copy(), np.ones(len(within), np.float32)
    least = np.where(within, 0, np.inf)
    for shrink in _SHRINKS:
        trial = np.maximum(pair_scales(weight) * np.float32(shrink), column_scales(weight))
        rounded = round_pairs(weight, trial)
        error = np.square(rounded * trial - weight).sum(axis=0, dtype=np.float64)
        better = error < least
        limited[:, better], factors[better], least[better] = rounded[:, better], trial[better], error[better]
    assert keeps_limit(limited)
    return limited, scale * factors


def _pairs(rows: Any) -> tuple[Any, Any]:
    """Views of the first and the second rows of the pairs; a last row without a neighbour is in none."""
    paired = len(rows) // 2 * 2
    return rows[0:paired:2], rows[1:paired:2]


def _room(other: Any) -> tuple[Any, Any]:
    """The least and the greatest step that a weight may have beside its int8 neighbour `other`."""
    other = other.astype(np.int16)
    return np.maximum(-PAIR_LIMIT - other, -LARGEST), np.minimum(PAIR_LIMIT - other, LARGEST)


def round_with_moments(weight: Any, scale: Any, moments: Moments) -> Any:
    """`weight` (in, out) float32 in int8 multiples of the column scales, rounded by GPTQ with the inputs' moments.

    The limit of pairs is a constraint of the rounding: the later weight of a pair is clipped to the room that the
    earlier one left, and the rows after it compensate the error.
    """
    steps = np.empty(weight.shape, np.int8)
    for number, (start, _) in enumerate(moments.spans):
        moment = moments.damped(number)
        order = np.argsort(-np.diag(moment), kind="stable")  # the strongest input first, as GPTQ's act_order
        propagation = _error_propagation(moment[np.ix_(order, order)])
        rows = start + order
        neighbours = _neighbours(order)
        for column in range(0, weight.shape[1], _COLUMNS):
            columns = slice(column, column + _COLUMNS)
            steps[rows, columns] = _round_in_order(weight[rows, columns] / scale[columns], propagation, neighbours)
    return steps


def _neighbours(order: Any) -> Any:
    """For each position of `order`, (n,) rows, the earlier position with the other row of its pair; -1 if none."""
    position = np.full(len(order) + 1, -1)
    position[order] = np.arange(len(order))
    other = position[order ^ 1]
    return np.where(other < np.arange(len(order)), other, -1)


def _error_propagation(moment: Any) -> Any:
    """(n, n) float32, upper triangular: row i holds the factors by which row i's rounding error changes later rows.

    It is the Cholesky factor U of the inverse of `moment` (inverse = UᵀU), each row divided by its diagonal element.
    """
    # The Cholesky factor of `moment` in reversed order, inverted, is the inverse's upper factor in reversed order.
    lower = _cholesky(np.ascontiguousarray(moment[::-1, ::-1]))
    upper = _invert_lower(lower)[::-1, ::-1]
    return (upper / np.diag(upper)[:, None]).astype(np.float32)


def _cholesky(moment: Any) -> Any:
    """The lower factor of `moment`, with more damping where float32 sums have left it not positive definite."""
    while True:
        try:
            return np.linalg.cholesky(moment)
        except np.linalg.LinAlgError:
            moment[np.diag_indices(len(moment))] += 10 * _DAMPING


def _invert_lower(lower: Any) -> Any:
    """The inverse of a lower triangular matrix, computed by halves: a sixth of the work of a general inverse."""
    n = len(lower)
    if n <= 128:
        return np.linalg.inv(lower)
    half = n // 2
    inverse = np.zeros_like(lower)
    inverse[:half, :half] = first = _invert_lower(lower[:half, :half])
    inverse[half:, half:] = second = _invert_lower(lower[half:, half:])
    inverse[half:, :half] = -second @ (lower[half:, :half] @ first)
    return inverse


def _round_in_order(steps: Any, propagation: Any, neighbours: Any) -> Any:
    """`steps` (n, columns) float32, in units of the scale, as int8, rounded from the first row on. Changes `steps`.

    `neighbours` are those of `_neighbours`.
    """
    n = len(steps)
    rounded = np.empty(steps.shape, np.int8)
    for outer in range(0, n, _OUTER):
        stop = min(outer + _OUTER, n)
        errors = np.empty((stop - outer, steps.shape[1]), np.float32)
        for inner in range(outer, stop, _INNER):
            end = min(inner + _INNER, stop)
            for row in range(inner, end):
                other = neighbours[row]
                room = (-LARGEST, LARGEST) if other < 0 else _room(rounded[other])
                nearest = np.clip(np.round(steps[row]), *room)
                rounded[row] = nearest
                error = steps[row] - nearest
                errors[row - outer] = error
                steps[row + 1 : end] -= propagation[row, row + 1 : end, None] * error
            steps[end:stop] -= propagation[inner:end, end:stop].T @ errors[inner - outer : end - outer]
        steps[stop:] -= propagation[outer:stop, stop:].T @ errors
    return rounded
