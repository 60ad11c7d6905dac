"""Hits made of documents, scores and token counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from dearlite.documents import Document
from dearlite.ranking import Hit
from dearlite.scores import rank_order

# Tokens used, tokens in total, and True if the latter is a lower bound (left out: False).
TokenCounts = tuple[int, int] | tuple[int, int, bool]


def make_hits(
    documents: Sequence[Document],
    scores: Sequence[float],
    tokens: Sequence[TokenCounts],
    top_k: int | None,
    relevance: Callable[[float], float] | None = None,
    relevance_from: str | None = None,
) -> tuple[Hit, ...]:
    """The best `top_k` documents (all if None) as hits; `tokens` has one entry per score.

    Documents beyond the `scores` were not read: they come last, in the caller's order.
    `relevance` maps a score to a probability, and `relevance_from` says where it comes from; None without one.
    """
    hits = [make_hit(documents[i], rank, i, scores[i], tokens[i]) for rank, i in enumerate(rank_order(scores), start=1)]
    if relevance is not None:
        hits = [replace(hit, relevance=relevance(scores[hit.index]), relevance_from=relevance_from) for hit in hits]
    hits += [unread_hit(documents[i], i + 1, i) for i in range(len(scores), len(documents))]
    return tuple(hits[:top_k])


def unread_hit(document: Document, rank: int, index: int) -> Hit:
    """The hit for a `document` that no model read."""
    return make_hit(document, rank, index, None, (0, 0))


def make_hit(
    document: Document, rank: int, index: int, score: float | None, tokens: TokenCounts, reason: str | None = None
) -> Hit:
    """The hit for `document`."""
    used, total, is_bound = tokens if len(tokens) == 3 else (*tokens, False)
    return Hit(
        rank=rank,
        index=index,
        id=document.id,
        score=None if score is None else float(score),
        relevance=None,
        text=document.text,
        title=document.title,
        document=document.record,
        tokens_used=used,
        tokens_total=total,
        truncated=used < total,
        reason=reason,
        tokens_total_is_bound=is_bound,
    )
