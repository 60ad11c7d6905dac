"""Rotations that spread outliers before int8 rounding, folded into the weights (QuaRot, arXiv 2404.00456).

The residual stream can use any orthonormal basis if all matrices that read or write it use the same one. RMSNorm's gain
is folded into the next matrix first; the remaining norm depends on the length of a row only, which no rotation changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

HADAMARD_BLOCK = 64  # inputs of the down projection that are mixed together at run time
_SEED = 20260  # any fixed number: the same model gives the same file


def residual_rotation(size: int) -> Any:
    """A random orthonormal matrix (size, size), float32: Q of a Gaussian matrix, its signs fixed by R's diagonal."""
    gaussian = np.random.default_rng(_SEED).standard_normal((size, size))
    q, r = np.linalg.qr(gaussian)
    return (q * np.sign(np.diag(r))).astype(np.float32)


def is_power_of_two(size: int) -> bool:
    """True if Sylvester's construction gives a Hadamard matrix of that size."""
    return size > 0 and size & (size - 1) == 0


def hadamard(size: int) -> Any:
    """The orthonormal Hadamard matrix (size, size) of Sylvester's construction, float64; `size` is a power of two."""
    assert is_power_of_two(size), f"{size} is not a power of two"
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / np.sqrt(size)


def mix_rows_in_blocks(weight: Any, block: int) -> Any:
    """`weight` (in, out), each block of `block` rows multiplied by the Hadamard matrix, which is its own inverse."""
    rows, columns = weight.shape
    mixed = hadamard(block).astype(np.float32) @ weight.reshape(rows // block, block, columns)
    return mixed.reshape(rows, columns)
