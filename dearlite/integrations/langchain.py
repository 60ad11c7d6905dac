"""A document compressor for LangChain (langchain-core)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dearlite.integrations.ordering import Order, aorder_texts, as_reranker, missing, order_texts

try:
    from langchain_core.documents import BaseDocumentCompressor, Document
    from pydantic import ConfigDict, PrivateAttr
except ModuleNotFoundError as err:
    raise missing(err, "langchain", "langchain_core") from None

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dearlite.reranker import Reranker


class DearliteReranker(BaseDocumentCompressor):
    """Sorts documents by relevance, best first: a compressor of `ContextualCompressionRetriever`, sync and async.

    The documents that it returns are copies with `metadata["relevance_score"]`; ids and other metadata are kept. A
    document's `page_content` is read.

    - `model`, `device`, `threads`, `instruction`: those of `Reranker.load`; `model` may also be a loaded Reranker.
    - `top_n`: number of documents to return, 1 or more. None: all.
    - `raw_scores`: logits instead of scores from 0 to 1.
    """

    model: Any = None
    top_n: int | None = None
    device: str = "auto"
    threads: int | None = None
    instruction: str | None = None
    raw_scores: bool = False

    model_config = ConfigDict(extra="forbid")
    _reranker: Reranker = PrivateAttr()

    def __init__(self, **options: Any) -> None:
        """Loads the model. Raises as `Reranker.load`, and ValidationError (a ValueError) for an unknown option."""
        super().__init__(**options)
        # not in a validator, which would hide the error in one of several lines
        self._reranker = as_reranker(self.model, device=self.device, threads=self.threads, instruction=self.instruction)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Any = None
    ) -> Sequence[Document]:
        """The best `top_n` of `documents`, as copies. Raises as `Reranker.rerank`."""
        texts = [document.page_content for document in documents]
        return _copies(documents, order_texts(self._reranker, query, texts, top_k=self.top_n, raw=self.raw_scores))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Any = None
    ) -> Sequence[Document]:
        """`compress_documents`; the end of the task stops the model."""
        texts = [document.page_content for document in documents]
        order = await aorder_texts(self._reranker, query, texts, top_k=self.top_n, raw=self.raw_scores)
        return _copies(documents, order)


def _copies(documents: Sequence[Document], order: Order) -> list[Document]:
    return [
        documents[position].model_copy(update={"metadata": {**documents[position].metadata, "relevance_score": score}})
        for position, score in order
    ]
