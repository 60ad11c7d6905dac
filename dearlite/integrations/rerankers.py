"""A ranker for the package rerankers."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from dearlite.errors import UsageError
from dearlite.integrations.ordering import Order, aorder_texts, as_reranker, missing, order_texts

try:
    from rerankers.documents import Document
    from rerankers.models.ranker import BaseRanker
    from rerankers.results import RankedResults, Result
except ModuleNotFoundError as err:
    raise missing(err, "rerankers", "rerankers") from None

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from dearlite.models.chain import Model
    from dearlite.options import Device
    from dearlite.reranker import Reranker

    Docs: TypeAlias = str | Document | Sequence[str | Document]
    Ids: TypeAlias = Sequence[str | int] | None


class DearliteRanker(BaseRanker):
    """A ranker with the methods `rank`, `rank_async`, `score` and `as_langchain_compressor` of the package.

    The results hold copies of Documents that were given; `doc_id` is the position of a text without an id.

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

    def score(self, query: str, doc: str) -> float:
        """The score of one document. Raises UsageError for a listwise model or a cascade, which have none."""
        (score,) = self.reranker.score([(query, doc)])
        return score if self.raw_scores else self.reranker.relevance_of(score)

    def rank(
        self, query: str, docs: Docs, doc_ids: Ids = None, metadata: Sequence[dict[str, object]] | None = None
    ) -> RankedResults:
        """All documents by relevance, best first. Raises UsageError for lists of ids or metadata of another length."""
        documents = _documents(docs, doc_ids, metadata)
        return _results(query, documents, order_texts(self.reranker, query, _texts(documents), raw=self.raw_scores))

    async def rank_async(
        self, query: str, docs: Docs, doc_ids: Ids = None, metadata: Sequence[dict[str, object]] | None = None
    ) -> RankedResults:
        """`rank`; the end of the task stops the model."""
        documents = _documents(docs, doc_ids, metadata)
        order = await aorder_texts(self.reranker, query, _texts(documents), raw=self.raw_scores)
        return _results(query, documents, order)


def _documents(docs: Docs, ids: Ids, metadata: Sequence[dict[str, object]] | None) -> list[Document]:
    """Copies of `docs` as Documents, with `ids` and `metadata` in place of their own."""
    items = [docs] if isinstance(docs, (str, Document)) else list(docs)
    for name, values in (("doc_ids", ids), ("metadata", metadata)):
        if values is not None and len(values) != len(items):
            raise UsageError(f"{name} has {len(values)} values for {len(items)} documents: give one for each")
    documents = [copy(item) if isinstance(item, Document) else Document(item) for item in items]
    for position, document in enumerate(documents):
        if ids is not None:
            document.doc_id = ids[position]
        elif document.doc_id is None:
            document.doc_id = position
        document.metadata = dict(document.metadata if metadata is None else metadata[position])
    return documents


def _texts(documents: list[Document]) -> list[str | None]:
    return [document.text for document in documents]


def _results(query: str, documents: list[Document], order: Order) -> RankedResults:
    results = [
        Result(document=documents[position], score=score, rank=rank)
        for rank, (position, score) in enumerate(order, start=1)
    ]
    return RankedResults(results=results, query=query, has_scores=True)
