"""Separate inputs for the leading directions, so that these do not determine the int8 step of the rest of a row.

In the rows that a LLaMA layer reads, about half of the length is in one direction and 60 percent in four, on all inputs
at once because the basis is random. A row x, (inputs,), is therefore split into its rest, which is x minus its
components along the leading directions V (inputs, r), and these components, which are appended in many small copies:

    extended(x) = [x - x V Vᵀ, x V T]     extended(W) = [W; C Vᵀ W]     extended(x) extended(W) = x W

T (r, copies) divides a component among its copies, and C (copies, r) has T's signs. No copy is larger than the
largest values of the rest, so the rest determines the row's scale. The copies of a component differ by up to 5 percent:
their rounding errors are independent and average out. So do those of their weights, which GPTQ rounds differently.
Neighbouring copies have opposite signs, so that they never reach the limit of pairs (dearlite/models/pair_limit.py).
The layer remains a single int8 product, with 1 to 4 percent more inputs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

DIRECTIONS = 4
_ITERATIONS = 24
_SPARE = 4  # extra directions in the iteration, so that the first DIRECTIONS converge


def copy_counts(inputs: int) -> tuple[int, ...]:
    """The copies of each component: half of a row's length over a Gaussian's largest values, with a margin."""
    first = math.ceil(math.sqrt(inputs) / 2.4)
    others = math.ceil(first / 3)
    total = 8 * math.ceil((first + (DIRECTIONS - 1) * others) / 8)  # a multiple of 8 suits the int8 kernels
    return (total - (DIRECTIONS - 1) * others, *(others,) * (DIRECTIONS - 1))


def sharing_matrix(inputs: int) -> Any:
    """T: (DIRECTIONS, copies) float32; the magnitudes of each row sum to 1."""
    counts = copy_counts(inputs)
    matrix = np.zeros((DIRECTIONS, sum(counts)), np.float32)
    start = 0
    for row, count in enumerate(counts):
        matrix[row, start : start + count] = (1 + np.linspace(-0.05, 0.05, count)) / count
        start += count
    return matrix * _signs(inputs)


def _signs(inputs: int) -> Any:
    """The sign of each copy, (copies,) float32: + and - in turn."""
    return np.resize(np.array([1, -1], np.float32), sum(copy_counts(inputs)))


def leading_directions(moments: Any) -> Any:
    """V: (inputs, DIRECTIONS) float32, the leading eigenvectors of second moments (inputs, inputs), orthonormal."""
    start = np.random.default_rng(0).standard_normal((len(moments), DIRECTIONS + _SPARE)).astype(np.float32)
    basis = np.linalg.qr(start)[0]
    for _ in range(_ITERATIONS):
        basis = np.linalg.qr(moments @ basis)[0]
    values, vectors = np.linalg.eigh((basis.T @ moments @ basis).astype(np.float64))
    strongest = vectors[:, np.argsort(-values)[:DIRECTIONS]]
    return np.ascontiguousarray(np.linalg.qr(basis @ strongest)[0], np.float32)


def extend_weight(weight: Any, directions: Any) -> Any:
    """extended(W): (inputs + copies, out) of `weight` (inputs, out)."""
    copies = (directions.T @ weight)[np.repeat(np.arange(DIRECTIONS), copy_counts(len(weight)))]
    return np.concatenate([weight, copies * _signs(len(weight))[:, None]])


def extend_moments(moments: Any, directions: Any) -> Any:
    """The second moments of extended(x), a square matrix of inputs + copies, from the moments of x.

    Computed in float64, because large terms cancel.
    """
    moments, directions = moments.astype(np.float64), directions.astype(np.float64)
    shared = directions @ sharing_matrix(len(moments))  # x V T = x `shared`
    projected = moments @ directions
    cross = projected @ directions.T
    inner = directions @ (directions.T @ projected) @ directions.T
    rest = moments - cross - cross.T + inner
    mixed = (moments - directions @ (directions.T @ moments)) @ shared
    return np.block([[rest, mixed], [mixed.T, shared.T @ moments @ shared]])
