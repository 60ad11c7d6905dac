"""Offsets of the tokens of a text, which is encoded in pieces: memory follows a piece, not the text.

Neighbouring pieces overlap. A cut changes only tokens near it, so that both pieces have the same tokens in the middle
of the overlap; they are joined there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PIECE_CHARACTERS = 200_000
_OVERLAP_CHARACTERS = 8_000
_AGREED_TOKENS = 32  # in a row, at the place where two pieces are joined


def joined_offsets(text: str, encode: Callable[[str], Any]) -> NDArray[np.int32]:
    """(start, end) of each token of `text` in characters, (tokens, 2). `encode` is a tokenizer's, without specials."""

    def encoded(start: int, end: int) -> NDArray[np.int32]:
        encoding = encode(text[start:end])
        table = np.empty((len(encoding.ids), 3), np.int32)  # id, start, end
        table[:, 0] = encoding.ids
        table[:, 1:] = np.array(encoding.offsets, np.int32).reshape(-1, 2) + start
        return table

    parts: list[NDArray[np.int32]] = []
    start, begin, end = 0, 0, _PIECE_CHARACTERS  # the piece is text[start:end], its tokens from `begin` on are new
    piece = encoded(start, end)
    while end < len(text):
        after = encoded(end - _OVERLAP_CHARACTERS, end + _PIECE_CHARACTERS)
        join = _agreement(piece, after, end, text)
        if join is None:  # a word longer than the overlap: it must be within one piece
            end = start + 2 * (end - start)
            piece = encoded(start, end)
            piece = piece[piece[:, 1] >= begin]
            continue
        parts.append(piece[: join[0], 1:].copy())
        piece = after[join[1] :]
        start, begin = end - _OVERLAP_CHARACTERS, int(piece[0, 1]) if len(piece) else end
        end += _PIECE_CHARACTERS
    return np.concatenate([*parts, piece[:, 1:]])


def _agreement(left: NDArray[np.int32], right: NDArray[np.int32], end: int, text: str) -> tuple[int, int] | None:
    """Positions in `left`, which ends at `end`, and in `right` from which both have the same tokens.

    At the beginning of a word of `text`, if there is one. None if they agree nowhere in the second half of the overlap.
    """
    if not (left[:, 2] > end - _OVERLAP_CHARACTERS).any() and not (right[:, 1] < end).any():
        # The overlap holds no tokens. Without a blank in it a word may go on behind characters that have none.
        blank = any(map(str.isspace, text[end - _OVERLAP_CHARACTERS : end]))
        return (len(left), 0) if blank else None
    first = int(np.searchsorted(left[:, 1], end - _OVERLAP_CHARACTERS // 2))
    positions = range(first, len(left) - _AGREED_TOKENS)
    for at in sorted(positions, key=lambda at: " " not in text[max(0, left[at, 1] - 1) : left[at, 1] + 1]):
        same = int(np.searchsorted(right[:, 1], left[at, 1]))
        if np.array_equal(left[at : at + _AGREED_TOKENS], right[same : same + _AGREED_TOKENS]):
            return at, same
    return None
