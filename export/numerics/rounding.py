"""Rounding a matrix to int8: to the nearest, or so that each rounding error is made up for by the rows still to come.

The second is GPTQ (arXiv 2210.17323): it needs the second moments of the matrix's inputs. Both give one scale a column,
its largest magnitude / 127, so the file and the run time are the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dearlite.export.numerics.leading_directions import extend_moments

_ROWS = 4096  # rounded at a time, where no row knows of another
# GPTQ: rows whose errors are spread together, and inside of them (a product each, instead of a row at a time) ...
_OUTER, _INNER = 256, 16
_COLUMNS = 2048  # ... and columns at a time: they are independent
# Inputs whose covariance is kept, together: past it the matrix is rounded in groups of its rows, which knows nothing of
# covariance between groups, but needs group^2 numbers instead of inputs^2 (8B: 14,336^2 for the down projection).
GROUP = 2048
_DAMPING = 0.01  # the least weight of the identity in the moments: GPTQ's own


class Moments:
    """Second moments of a matrix's inputs, group by group: `sums` holds (group, group) float32 arrays."""

    def __init__(self, inputs: int, group: int | None = None) -> None:
        group = group or GROUP
        self.rows = 0
        self.spans = [(start, min(start + group, inputs)) for start in range(0, inputs, group)]
        self.sums = [np.zeros((stop - start,) * 2, np.float32) for start, stop in self.spans]

    def add(self, rows: Any) -> None:
        """Counts `rows`, (tokens, inputs) float32, each scaled to unit length.

        Int8 rounds a row against its own largest value, so what matters of a row is its direction. Unscaled, the
        attention sink's row, forty times the rest, would outweigh all others.
        """
        self.rows += len(rows)
        unit = rows / np.maximum(np.sqrt(np.einsum("ti,ti->t", rows, rows))[:, None], 1e-30)
        for (start, stop), total in zip(self.spans, self.sums, strict=True):
            part = unit[:, start:stop]
            np.add(total, part.T @ part, out=total)

    def extended(self, directions: Any) -> Moments:
        """The moments of the inputs as leading_directions.py extends them; only where they are one group."""
        (total,) = self.sums
        wider = Moments(0)
        wider.rows, wider.sums = self.rows, [extend_moments(total, directions)]
        wider.spans = [(0, len(wider.sums[0]))]
        return wider

    def damped(self, number: int) -> Any:
        """Group `number`'s moments, mean diagonal 1, drawn towards the identity by the Ledoit-Wolf weight.

        Few rows look as if most directions never occurred, and GPTQ would move its errors there. The weight that brings
        the estimate nearest to the truth (Ledoit and Wolf 2004, doi:10.1016/S0047-259X(03)00096-4) is here, for n rows
        of one length in k dimensions, (t^2 - |S|^2) / n / (|S|^2 - t^2/k), S their mean product and t its trace.
        """
        total = self.sums[number].astype(np.float64)
        size, trace = len(total), total.trace()
        if trace <= 0:
            return np.eye(size)
        squares = sum(float(np.vdot(part, part)) for part in self.sums)
        whole = sum(float(part.trace()) for part in self.sums) ** 2
        inputs = self.spans[-1][1]
        weight = (whole - squares) / self.rows / max(squares - whole / inputs, 1e-9 * whole)
        weight = min(max(weight, _DAMPING), 1.0)
        total *= (1 - weight) * size / trace
        total[np.diag_indices(size)] += weight
        return total


def column_scales(weight: Any) -> Any:
    """(out,) float32 of `weight` (in, out): the largest magnitude of each column / 127, so int8 covers -127 to 127."""
    largest = np.maximum(weight.max(axis=0), -weight.min(axis=0))
    return np.where(largest > 0, largest / 127, 1).astype(np.float32)


def round_to_nearest(weight: Any, scale: Any) -> Any:
    """`weight` (in, out) float32 as int8 steps of its columns' scales."""
    steps = np.empty(weight.shape, np.int8)
    for start in range(0, len(weight), _ROWS):  # in blocks: the rounding's temporary is fp32
        steps[start : start + _ROWS] = np.round(weight[start : start + _ROWS] / scale)
    return steps


def round_with_moments(weight: Any, scale: Any, moments: Moments) -> Any:
    """`weight` (in, out) float32 as int8 steps of its columns' scales, by GPTQ over the inputs' second moments."""
    steps = np.empty(weight.shape, np.int8)
    for number, (start, _) in enumerate(moments.spans):
        moment = moments.damped(number)
        order = np.argsort(-np.diag(moment), kind="stable")  # the strongest input first, as GPTQ's act_order has it
        spread = _spread(moment[np.ix_(order, order)])
        rows = start + order
        for column in range(0, weight.shape[1], _COLUMNS):
            at = slice(column, column + _COLUMNS)
            steps[rows, at] = _round_in_order(weight[rows, at] / scale[at], spread)
    return steps


def _spread(moment: Any) -> Any:
    """(n, n) float32, upper: row i says how a rounding error of row i is spread over the rows after it.

    It is the Cholesky factor U of the inverse of `moment` (inverse = UᵀU), each row over its diagonal.
    """
    # The Cholesky factor of the matrix with its order reversed gives the inverse's upper factor by one inversion.
    lower = _cholesky(np.ascontiguousarray(moment[::-1, ::-1]))
    upper = _inverse_of_lower(lower)[::-1, ::-1]
    return (upper / np.diag(upper)[:, None]).astype(np.float32)


def _cholesky(moment: Any) -> Any:
    """The lower factor of `moment`, damped further where its sums, in float32, are not positive definite."""
    while True:
        try:
            return np.linalg.cholesky(moment)
        except np.linalg.LinAlgError:
            moment[np.diag_indices(len(moment))] += 10 * _DAMPING


def _inverse_of_lower(lower: Any) -> Any:
    """The inverse of a lower triangular matrix, by halves: a sixth of the work of a general inverse."""
    n = len(lower)
    if n <= 128:
        return np.linalg.inv(lower)
    half = n // 2
    inverse = np.zeros_like(lower)
    inverse[:half, :half] = first = _inverse_of_lower(lower[:half, :half])
    inverse[half:, half:] = second = _inverse_of_lower(lower[half:, half:])
    inverse[half:, :half] = -second @ (lower[half:, :half] @ first)
    return inverse


def _round_in_order(steps: Any, spread: Any) -> Any:
    """`steps` (n, columns) float32, in units of the scale, rounded from the first row on; it is changed."""
    n = len(steps)
    rounded = np.empty(steps.shape, np.int8)
    for outer in range(0, n, _OUTER):
        stop = min(outer + _OUTER, n)
        errors = np.empty((stop - outer, steps.shape[1]), np.float32)
        for inner in range(outer, stop, _INNER):
            end = min(inner + _INNER, stop)
            for row in range(inner, end):
                nearest = np.clip(np.round(steps[row]), -127, 127)
                rounded[row] = nearest
                error = steps[row] - nearest
                errors[row - outer] = error
                steps[row + 1 : end] -= spread[row, row + 1 : end, None] * error
            steps[end:stop] -= spread[inner:end, end:stop].T @ errors[inner - outer : end - outer]
        steps[stop:] -= spread[outer:stop, stop:].T @ errors
    return rounded
