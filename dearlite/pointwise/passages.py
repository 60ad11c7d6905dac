"""Splits long documents into passages that fit a pointwise model's input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dearlite.documents import Document
from dearlite.errors import UsageError
from dearlite.options import LEAST_PASSAGE_TOKENS, Long
from dearlite.passages import DocumentPart, part_of_document, window_spans_of

if TYPE_CHECKING:
    from dearlite.pointwise.tokens import PairEncoder

_CASCADE_TOKENS = 180  # length of a passage for the next stage of a cascade: DeAR reads 196 tokens of a document
_SLACK_TOKENS = 4  # a passage encoded alone may have this many tokens more than within its document


def split_documents(
    documents: Sequence[Document], encoder: PairEncoder, query_tokens: int, head_tokens: int, long: Long
) -> list[DocumentPart]:
    """The passages of all documents, in order. Each begins with its document's title, like the document itself.

    `head_tokens` is the number of tokens that the prompt form puts before a document. Raises UsageError if the passages
    are longer than the room that the model has beside this query.
    """
    room = encoder.room(query_tokens) - head_tokens - _SLACK_TOKENS
    if long.passage_tokens is not None and long.passage_tokens > room:
        raise UsageError(
            f"passages of {long.passage_tokens} tokens are longer than the {room} that the model reads beside this "
            "query: take fewer"
        )
    size = long.passage_tokens or (min(room, _CASCADE_TOKENS) if long.mode == "cascade" else room)
    passages = []
    for index, document in enumerate(documents):
        most = max(LEAST_PASSAGE_TOKENS, min(size, room - len(encoder.ids(document.title))))
        for span in window_spans_of(encoder.offsets(document.text), most, len(document.text)):
            passages.append(part_of_document(document, index, span))
    return passages
