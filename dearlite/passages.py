"""Documents that are longer than a model reads: cut, in overlapping passages, or in those that a cheap model picked.

A document of several passages gets the score of its best one (MaxP: Dai and Callan 2019). Picking passages with a cheap
model first is intra-document cascading (Hofstätter et al. 2021, arXiv 2105.09816).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dearlite.documents import Document
from dearlite.errors import UsageError

if TYPE_CHECKING:
    from dearlite.pointwise.tokens import PairEncoder
    from dearlite.ranking import Hit, Ranking

# name -> what it does, for --help
LONG_MODES = {
    "truncate": "what does not fit is cut, as the model was trained",
    "chunk": "overlapping passages, the best one counts",
    "cascade": "the stage before picks a document's best passages",
}
_LEAST_TOKENS = 16  # a passage of fewer says nothing
_HANDED_ON_TOKENS = 180  # of a passage that the next stage is to read: DeAR reads 196 of a document
_SLACK = 4  # tokens that a passage may gain when it is encoded alone

Span = tuple[int, int]  # characters of a document's text, from and to


@dataclass(frozen=True, slots=True)
class Long:
    """What to do with long documents. `passage_tokens` is the length of a passage, None for what the model reads.

    Neighbouring passages share a quarter of their tokens; `keep` is how many of a document a stage hands on.
    """

    mode: str = "truncate"
    passage_tokens: int | None = None
    keep: int = 1

    def __str__(self) -> str:
        return f"{self.mode} passage_tokens={self.passage_tokens} keep={self.keep}"

    def checked(self) -> Long:
        """These options. Raises UsageError."""
        if self.mode not in LONG_MODES:
            raise UsageError(f"no long mode {self.mode!r}: it is one of {', '.join(LONG_MODES)}")
        for name, least in (("passage_tokens", _LEAST_TOKENS), ("keep", 1)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                raise UsageError(f"{name} is {value!r}: it must be a whole number from {least}")
        return self


@dataclass(frozen=True, slots=True)
class Piece:
    """A passage of a document: which one, its characters, and as the model is to see it."""

    index: int
    span: Span
    document: Document


def window_spans_of(offsets: Sequence[Span], size: int, length: int) -> list[Span]:
    """The characters of windows of `size` tokens that overlap by a quarter and together cover the text.

    `offsets` are the characters of each token, `length` those of the text. The last window ends with the text and is as
    long as the others. Example: eight tokens of a character, size 4 -> (0, 4), (3, 7), (4, 8).
    """
    if len(offsets) <= size:
        return [(0, length)]
    stride = max(1, size - size // 4)
    starts = [*range(0, len(offsets) - size, stride), len(offsets) - size]
    spans = [(offsets[start][0], offsets[start + size - 1][1]) for start in starts]
    return [(0, spans[0][1]), *spans[1:-1], (spans[-1][0], length)]


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
        fits = max(_LEAST_TOKENS, min(size, room - len(encoder.ids(document.title))))
        for span in window_spans_of(encoder.offsets(document.text), fits, len(document.text)):
            pieces.append(piece_of(document, index, span))
    return pieces


def piece_of(document: Document, index: int, span: Span) -> Piece:
    """The passage `span` of the document at `index`."""
    text = document.text[slice(*span)]
    return Piece(index, span, replace(document, text=text if text.strip() else document.text))


def best_passages(ranking: Ranking, pieces: Sequence[Piece], documents: Sequence[Document], keep: int) -> Ranking:
    """A ranking of `pieces` as one of documents: each where its best passage stands, with its best `keep` spans."""
    hits: dict[int, Hit] = {}
    spans: dict[int, list[Span]] = {}
    for hit in ranking:
        piece = pieces[hit.index]
        mine = spans.setdefault(piece.index, [])
        if len(mine) < keep:
            mine.append(piece.span)
        hits.setdefault(piece.index, hit)
    whole = [
        replace(hit, rank=rank, index=index, text=documents[index].text, passages=tuple(spans[index]))
        for rank, (index, hit) in enumerate(hits.items(), start=1)
    ]
    return replace(ranking, hits=tuple(whole), total=len(documents))
