"""The log-probability of a query's tokens, and the calls in which llama.cpp gives the logits for it.

Each token of the query needs the logits of the whole vocabulary, so that a call asks for few of them: their memory, and
not the length or number of queries, bounds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dearlite.llama.context import BATCH_TOKENS

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOGIT_BYTES = 64 * 2**20  # most logits of a call


def log_probability(logits: NDArray[np.float32], token: int) -> float:
    """The natural logarithm of the softmax of `logits`, (vocabulary,), at `token`. The sum is in float64."""
    largest = logits.max()
    return float(logits[token] - largest) - float(np.log(np.exp(logits - largest).sum(dtype=np.float64)))


def asked_at_once(vocabulary: int) -> int:
    """The number of tokens of a call that gives the logits after each of them."""
    return min(BATCH_TOKENS, max(1, LOGIT_BYTES // (4 * vocabulary)))


def pieces(texts: Mapping[int, Sequence[int]], size: int) -> Iterator[dict[int, list[int]]]:
    """The tokens of `texts` (by sequence) in calls of `size` tokens, in order.

    Example: {1: [7, 8, 9], 2: [5]} at 2 -> {1: [7, 8]}, {1: [9], 2: [5]}.
    """
    piece: dict[int, list[int]] = {}
    count = 0
    for sequence, tokens in texts.items():
        for token in tokens:
            piece.setdefault(sequence, []).append(token)
            count += 1
            if count % size == 0:
                yield piece
                piece = {}
    if piece:
        yield piece
