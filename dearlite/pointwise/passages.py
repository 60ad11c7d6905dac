"""Splits long documents into passages that fit a pointwise model's input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dearlite.documents import Document
from dearlite.errors import UsageError
from dearlite.options import LEAST_PASSAGE_TOKENS, Long
from dearlite.passages import DocumentPart, Span, part_of_document, window_spans_of
from dearlite.readable import readable

if TYPE_CHECKING:
    from dearlite.pointwise.prompting import Texts

_CASCADE_TOKENS = 180  # length of a passage for the next stage of a cascade: DeAR reads 196 tokens of a document
_SLACK_TOKENS = 4  # a passage encoded alone may have this many tokens more than within its document


def split_documents(documents: Sequence[Document], encoder: Texts, room: int, long: Long) -> list[DocumentPart]:
    """The passages of all documents, in order. Each begins with its document's title, like the document itself.

    `room` is the number of a document's tokens that the model reads beside the query. Raises UsageError if the passages
    are longer.
    """
    room -= _SLACK_TOKENS
    if long.passage_tokens is not None and long.passage_tokens > room:
        raise UsageError(
            f"passages of {long.passage_tokens} tokens are longer than the {room} that the model reads beside this "
            "query: take fewer"
        )
    size = long.passage_tokens or (min(room, _CASCADE_TOKENS) if long.mode == "cascade" else room)
    passages = []
    for index, document in enumerate(documents):
        title, _ = encoder.first_ids(document.title)
        most = max(LEAST_PASSAGE_TOKENS, min(size, room - len(title)))
        spans = window_spans_of(encoder.offsets(document.text), most, len(document.text))
        parts = [part_of_document(document, index, span) for span in spans if _shows(document.text, span, encoder)]
        passages += parts or [part_of_document(document, index, spans[0])]
    return passages


def _shows(text: str, span: Span, encoder: Texts) -> bool:
    """True if the passage `span` has something to read. A passage of nothing would be scored by the query alone."""
    passage = text[slice(*span)]
    return readable(passage) and encoder.has_tokens(passage)
