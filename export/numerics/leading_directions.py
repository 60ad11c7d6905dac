"""Leading directions apart: what dominates every row must not set the step in which int8 rounds the rest of it.

The rows that a LLaMA layer reads have about half of their length in one direction and 60 percent in four, all of them
together in a random basis. A row x, (inputs,), is therefore written as its rest, which is x less its components along
the leading directions V (inputs, r), and those components in many small copies beside it:

    extended(x) = [x - x V Vᵀ, x V T]     extended(W) = [W; C Vᵀ W]     extended(x) extended(W) = x W

T (r, copies) shares a component out among its copies, and C (copies, r) is 1 where T is not 0. A copy is no larger
than the rest's largest values, so the row's scale is the rest's. The copies of a component differ by up to 5 percent,
so that their roundings are independent and average out; so do the roundings of their weights, which GPTQ makes differ.
It is one int8 product as before, of some 1 to 4 percent more inputs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

DIRECTIONS = 4
_ITERATIONS = 24
_SPARE = 4  # directions followed beside those wanted, so that these converge


def copies(inputs: int) -> tuple[int, ...]:
    """How many copies each component has: half of a row's length, over a Gaussian's largest values, and a margin."""
    first = math.ceil(math.sqrt(inputs) / 2.4)
    others = math.ceil(first / 3)
    total = 8 * math.ceil((first + (DIRECTIONS - 1) * others) / 8)  # a round number of inputs for the int8 kernels
    return (total - (DIRECTIONS - 1) * others, *(others,) * (DIRECTIONS - 1))


def sharing(inputs: int) -> Any:
    """T: (DIRECTIONS, copies) float32; each row sums to 1."""
    counts = copies(inputs)
    matrix = np.zeros((DIRECTIONS, sum(counts)), np.float32)
    start = 0
    for row, count in enumerate(counts):
        matrix[row, start : start + count] = (1 + np.linspace(-0.05, 0.05, count)) / count
        start += count
    return matrix


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
    components = directions.T @ weight
    return np.concatenate([weight, components[np.repeat(np.arange(DIRECTIONS), copies(len(weight)))]])


def extend_moments(moments: Any, directions: Any) -> Any:
    """The second moments of extended(x), (inputs + copies,) squared, from those of x, in float64: much cancels."""
    moments, directions = moments.astype(np.float64), directions.astype(np.float64)
    shared = directions @ sharing(len(moments))  # x V T = x `shared`
    seen = moments @ directions
    cross = seen @ directions.T
    inner = directions @ (directions.T @ seen) @ directions.T
    rest = moments - cross - cross.T + inner
    mixed = (moments - directions @ (directions.T @ moments)) @ shared
    return np.block([[rest, mixed], [mixed.T, shared.T @ moments @ shared]])
