"""Documents that are longer than a model reads: cut, in overlapping passages, or in those that a cheap model picked.

A document of several passages gets the score of its best one (MaxP: Dai and Callan 2019). Picking passages with a cheap
model first is intra-document cascading (Hofstätter et al. 2021, arXiv 2105.09816).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dearlite.documents import Document

if TYPE_CHECKING:
    from dearlite.ranking import Hit, Ranking


Span = tuple[int, int]  # characters of a document's text, from and to


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
