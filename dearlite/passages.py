"""Passages of documents that are longer than a model's input: their spans, and the ranking by the best passage.

A document of several passages gets the score of its best passage (MaxP: Dai and Callan 2019). Picking passages with a
cheap model first is intra-document cascading (Hofstätter et al. 2021, arXiv 2105.09816).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dearlite.documents import Document
from dearlite.errors import Cancelled
from dearlite.hits import unread_hit
from dearlite.readable import readable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dearlite.ranking import Hit, Ranking


Span = tuple[int, int]  # (start, end) characters of a document's text


@dataclass(frozen=True, slots=True)
class DocumentPart:
    """A passage of the document at `index`: its span, and a Document with its text that the model reads."""

    index: int
    span: Span
    document: Document


def window_spans_of(offsets: Sequence[Span] | NDArray[np.int32], size: int, length: int) -> list[Span]:
    """Spans of windows of `size` tokens that overlap by a quarter and together cover the text.

    `offsets` are the spans of the tokens, pairs or an array (tokens, 2), `length` the number of characters of the text.
    The last window ends with the text and has `size` tokens too. Example: eight tokens of one character, size 4 ->
    (0, 4), (3, 7), (4, 8).
    """
    if len(offsets) <= size:
        return [(0, length)]
    stride = max(1, size - size // 4)
    starts = [*range(0, len(offsets) - size, stride), len(offsets) - size]
    spans = [(int(offsets[start][0]), int(offsets[start + size - 1][1])) for start in starts]
    return [(0, spans[0][1]), *spans[1:-1], (spans[-1][0], length)]


def part_of_document(document: Document, index: int, span: Span) -> DocumentPart:
    """The passage `span` of the document at `index`; the document's full text if the span has nothing to read."""
    text = document.text[slice(*span)]
    return DocumentPart(index, span, replace(document, text=text if readable(text) else document.text))


def best_passages(ranking: Ranking, parts: Sequence[DocumentPart], documents: Sequence[Document], keep: int) -> Ranking:
    """The ranking of `documents` by best passage, from a ranking of `parts`. Each hit gets its best `keep` spans."""
    hits: dict[int, Hit] = {}  # of the best passage of each document
    spans: dict[int, list[Span]] = {}
    for hit in ranking:
        if hit.score is None:  # a call that was ended early
            continue
        part = parts[hit.index]
        document_spans = spans.setdefault(part.index, [])
        if len(document_spans) < keep:
            document_spans.append(part.span)
        hits.setdefault(part.index, hit)
    document_hits = [
        replace(hit, rank=rank, index=index, text=documents[index].text, passages=tuple(spans[index]))
        for rank, (index, hit) in enumerate(hits.items(), start=1)
    ]
    unread = [index for index in range(len(documents)) if index not in hits]
    document_hits += [unread_hit(documents[i], rank, i) for rank, i in enumerate(unread, start=len(hits) + 1)]
    return replace(ranking, hits=tuple(document_hits), total=len(documents), unscored=len(unread))


def rank_by_passages(
    rank: Callable[[], Ranking], parts: Sequence[DocumentPart], documents: Sequence[Document], keep: int
) -> Ranking:
    """`best_passages` of the ranking that `rank` makes of `parts`; of a cancelled call, of the ranking so far."""
    try:
        return best_passages(rank(), parts, documents, keep)
    except Cancelled as err:
        if err.partial is not None:
            err.partial = best_passages(err.partial, parts, documents, keep)
        raise
