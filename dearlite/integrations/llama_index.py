"""A node postprocessor for LlamaIndex (llama-index-core)."""

from __future__ import annotations

from typing import Any

from dearlite.errors import UsageError
from dearlite.integrations.ordering import Order, aorder_texts, as_reranker, missing, order_texts
from dearlite.reranker import Reranker

try:
    from llama_index.core.bridge.pydantic import ConfigDict, PrivateAttr, field_serializer
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
except ModuleNotFoundError as err:
    raise missing(err, "llama-index", "llama_index") from None

_dispatcher = get_dispatcher(__name__)


class DearliteRerank(BaseNodePostprocessor):
    """Sorts nodes by relevance, best first: for `node_postprocessors` of a query engine, sync and async.

    It returns new NodeWithScore records around the same nodes. The text of a node is read with the metadata that the
    node shows to embedding models.

    - `model`, `device`, `threads`, `instruction`: those of `Reranker.load`; `model` may also be a loaded Reranker.
    - `top_n`: number of nodes to return, 1 or more. None: all.
    - `raw_scores`: logits instead of scores from 0 to 1.
    """

    model: Any = None
    top_n: int | None = None
    device: str = "auto"
    threads: int | None = None
    instruction: str | None = None
    raw_scores: bool = False

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
    _reranker: Reranker = PrivateAttr()

    def __init__(self, **options: Any) -> None:
        """Loads the model. Raises as `Reranker.load`, and ValidationError (a ValueError) for an unknown option."""
        super().__init__(**options)
        # not in a validator, which would hide the error in one of several lines
        self._reranker = as_reranker(self.model, device=self.device, threads=self.threads, instruction=self.instruction)

    @field_serializer("model")
    def _name_of_model(self, model: Any) -> Any:
        """The model as it is written in a serialised pipeline; of a loaded one the name."""
        return model.model if isinstance(model, Reranker) else model

    @classmethod
    def class_name(cls) -> str:
        """The name of this class in serialised pipelines."""
        return "DearliteRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query, texts = self._begin(nodes, query_bundle)
        return self._end(nodes, order_texts(self._reranker, query, texts, top_k=self.top_n, raw=self.raw_scores))

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query, texts = self._begin(nodes, query_bundle)
        order = await aorder_texts(self._reranker, query, texts, top_k=self.top_n, raw=self.raw_scores)
        return self._end(nodes, order)

    def _begin(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None) -> tuple[str, list[str]]:
        """The query, and the texts of `nodes`. Raises UsageError without a query."""
        if query_bundle is None:
            raise UsageError("a reranker needs the query: give postprocess_nodes query_str or query_bundle")
        top_n = len(nodes) if self.top_n is None else self.top_n
        _dispatcher.event(
            ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=top_n, model_name=self._reranker.model)
        )
        return query_bundle.query_str, [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]

    def _end(self, nodes: list[NodeWithScore], order: Order) -> list[NodeWithScore]:
        ranked = [NodeWithScore(node=nodes[position].node, score=score) for position, score in order]
        _dispatcher.event(ReRankEndEvent(nodes=ranked))
        return ranked
