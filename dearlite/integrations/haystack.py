"""A ranker component for Haystack (haystack-ai, from 3.0 on)."""

from asyncio import to_thread
from dataclasses import replace
from typing import Any

from dearlite.errors import UsageError
from dearlite.integrations.ordering import Order, aorder_texts, as_reranker, missing, order_texts
from dearlite.options import Device
from dearlite.reranker import Reranker

try:
    from haystack import Document, component, default_from_dict, default_to_dict
except ModuleNotFoundError as err:
    raise missing(err, "haystack", "haystack") from None


@component
class DearliteRanker:
    """Sorts documents by relevance, best first: a ranker of a pipeline, sync and async.

    The documents that it returns are copies with `score`; ids and `meta` are kept. The model is loaded by `warm_up`, or
    at the first run.

    - `model`, `device`, `threads`, `instruction`: those of `Reranker.load`; `model` may also be a loaded Reranker, with
      which a pipeline cannot be serialised.
    - `top_k`: number of documents to return, 1 or more. None: all.
    - `meta_fields_to_embed`: names of `meta` whose values are read before the content, each followed by
      `embedding_separator`.
    - `raw_scores`: logits instead of scores from 0 to 1.
    """

    def __init__(
        self,
        model: Any = None,
        *,
        top_k: int | None = None,
        device: Device = "auto",
        threads: int | None = None,
        instruction: str | None = None,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        raw_scores: bool = False,
    ) -> None:
        self.model, self.top_k, self.raw_scores = model, top_k, raw_scores
        self.device, self.threads, self.instruction = device, threads, instruction
        self.meta_fields_to_embed, self.embedding_separator = list(meta_fields_to_embed or ()), embedding_separator
        self._reranker: Reranker | None = None

    def to_dict(self) -> dict[str, Any]:
        """The options as Haystack serialises them. Raises UsageError for a loaded model."""
        if isinstance(self.model, Reranker):
            raise UsageError(f"{self.model.model} is a loaded model, which is not serialised: give its name or file")
        model = self.model if self.model is None or isinstance(self.model, list) else str(self.model)
        data: dict[str, Any] = default_to_dict(
            self,
            model=model,
            top_k=self.top_k,
            device=self.device,
            threads=self.threads,
            instruction=self.instruction,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
            raw_scores=self.raw_scores,
        )
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "DearliteRanker":
        """The component that `to_dict` described."""
        ranker: DearliteRanker = default_from_dict(cls, data)
        return ranker

    def warm_up(self) -> None:
        """Loads the model, once. Raises as `Reranker.load`."""
        if self._reranker is None:
            self._reranker = as_reranker(
                self.model, device=self.device, threads=self.threads, instruction=self.instruction
            )

    async def warm_up_async(self) -> None:
        """`warm_up` in a thread."""
        await to_thread(self.warm_up)

    def close(self) -> None:
        """Gives back the model's memory, unless it was given loaded; the next run loads it again."""
        if self._reranker is not None and self._reranker is not self.model:
            self._reranker.close()
        self._reranker = None

    async def close_async(self) -> None:
        """`close` in a thread."""
        await to_thread(self.close)

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        """The best `top_k` of `documents`, as copies, under "documents". Raises as `Reranker.rerank`.

        `top_k`: number of documents to return in place of the component's.
        """
        self.warm_up()
        assert self._reranker is not None
        limit = self.top_k if top_k is None else top_k
        order = order_texts(self._reranker, query, self._texts(documents), top_k=limit, raw=self.raw_scores)
        return {"documents": _copies(documents, order)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """`run`; the end of the task stops the model."""
        await self.warm_up_async()
        assert self._reranker is not None
        limit = self.top_k if top_k is None else top_k
        order = await aorder_texts(self._reranker, query, self._texts(documents), top_k=limit, raw=self.raw_scores)
        return {"documents": _copies(documents, order)}

    def _texts(self, documents: list[Document]) -> list[str]:
        """The text of each document; empty for one that has none."""
        return [
            self.embedding_separator.join(
                [
                    *(str(document.meta[name]) for name in self.meta_fields_to_embed if document.meta.get(name)),
                    document.content or "",
                ]
            )
            for document in documents
        ]


def _copies(documents: list[Document], order: Order) -> list[Document]:
    return [replace(documents[position], score=score) for position, score in order]
