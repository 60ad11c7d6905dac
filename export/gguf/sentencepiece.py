"""The pieces of a SentencePiece `tokenizer.model`, read with a minimal protobuf reader.

Source: the wire format (https://protobuf.dev/programming-guides/encoding) and two messages of
sentencepiece_model.proto: ModelProto has `repeated SentencePiece pieces = 1`; SentencePiece has `string piece = 1`,
`float score = 2`, `Type type = 3`. Everything else in the file (the trainer's settings) is skipped.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dearlite.errors import CheckpointError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # SentencePiece.Type
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types; groups (3, 4) are gone from the format


@dataclass(frozen=True, slots=True)
class SentencePiece:
    """A token: its text with ▁ for a space, its score (higher merges first) and its type."""

    text: str
    score: float
    type: int


def read_pieces(path: Path) -> list[SentencePiece]:
    """Every piece, in the order of ids. Raises CheckpointError for a file that is not a SentencePiece model."""
    try:
        pieces = [
            _piece(value) for field, value in _fields(path.read_bytes()) if field == 1 and isinstance(value, bytes)
        ]
    except OSError as err:
        raise CheckpointError(f"{path} cannot be read ({err.strerror}): fetch it again") from None
    except (ValueError, struct.error) as err:
        raise CheckpointError(f"{path} is not a SentencePiece model ({err}): fetch it again") from None
    if not pieces:
        raise CheckpointError(f"{path} is not a SentencePiece model (it holds no pieces): fetch it again")
    return pieces


def _piece(data: bytes) -> SentencePiece:
    text, score, kind = "", 0.0, NORMAL
    for field, value in _fields(data):
        match field, value:
            case 1, bytes():
                text = value.decode("utf-8")
            case 2, bytes():
                (score,) = struct.unpack("<f", value)
            case 3, int():
                kind = value
    if not NORMAL <= kind <= BYTE:
        raise ValueError(f"piece {text!r} is of type {kind}")
    return SentencePiece(text, score, kind)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The number and the value of each field: an int for a varint, otherwise bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        field, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield field, value
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at + size > len(data):
            raise ValueError(f"it ends within field {field}")
        yield field, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at byte `at` (seven bits per byte, lowest first) and the position after it."""
    number, shift = 0, 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError(f"it ends within a number at byte {at}")
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
