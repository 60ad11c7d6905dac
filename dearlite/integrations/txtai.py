"""A similarity function for txtai: for its `Reranker` pipeline, or instead of its `Similarity`; it imports no txtai."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

from dearlite.integrations.ordering import Order, as_reranker, order_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dearlite.models.chain import Model
    from dearlite.options import Device
    from dearlite.reranker import Reranker


class DearliteSimilarity:
    """A callable of (query, texts) that returns (position, score) pairs, best first.

    `txtai.pipeline.Reranker(embeddings, DearliteSimilarity())` searches and reranks.

    - `model`, `device`, `threads`, `instruction`: those of `Reranker.load`; `model` may also be a loaded Reranker.
    - `raw_scores`: logits instead of scores from 0 to 1.
    """

    def __init__(
        self,
        model: Model | Reranker = None,
        *,
        device: Device = "auto",
        threads: int | None = None,
        instruction: str | None = None,
        raw_scores: bool = False,
    ) -> None:
        self.reranker = as_reranker(model, device=device, threads=threads, instruction=instruction)
        self.raw_scores = raw_scores

    @overload
    def __call__(self, query: str, texts: Sequence[str]) -> Order: ...
    @overload
    def __call__(self, query: list[str], texts: Sequence[str]) -> list[Order]: ...
    def __call__(self, query: str | list[str], texts: Sequence[str]) -> Order | list[Order]:
        """The order of `texts`, or a list of orders for a list of queries. Raises as `Reranker.rerank`."""
        if isinstance(query, str):
            return order_texts(self.reranker, query, texts, raw=self.raw_scores)
        return [order_texts(self.reranker, text, texts, raw=self.raw_scores) for text in query]
