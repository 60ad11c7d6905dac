"""dearlite.pointwise.passages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dearlite.documents import Document
from dearlite.errors import UsageError
from dearlite.options import LEAST_PASSAGE_TOKENS, Long
from dearlite.passages import Piece, piece_of, window_spans_of

if TYPE_CHECKING:
    from dearlite.pointwise.tokens import PairEncoder

_HANDED_ON_TOKENS = 180  # of a passage that the next stage is to read: DeAR reads 196 of a document
_SLACK = 4  # tokens that a passage may gain when it is encoded alone


def pieces_of(
    documents: Sequence[Document], encoder: PairEncoder, query_tokens: int, head_tokens: int, long: Long
) -> list[Piece]:
    """The passages of every document, in order. A title stands before each of them, as it does before the document.

    `head_tokens` is how many the prompt form puts before a document. Raises UsageError for passages longer than what
    the model reads beside this query.
    """
    room = encoder.room(query_tokens) - head_tokens - _SLACK
    if long.passage_tokens is not None and long.passage_tokens > room:
        raise UsageError(
            f"passages of {long.passage_tokens} tokens are longer than the {room} that the model reads beside this "
            "query: take fewer"
        )
    size = long.passage_tokens or (min(room, _HANDED_ON_TOKENS) if long.mode == "cascade" else room)
    pieces = []
    for index, document in enumerate(documents):
        fits = max(LEAST_PASSAGE_TOKENS, min(size, room - len(encoder.ids(document.title))))
        for span in window_spans_of(encoder.offsets(document.text), fits, len(document.text)):
            pieces.append(piece_of(document, index, span))
    return pieces
