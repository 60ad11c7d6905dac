"""A CrossEncoder with the calls of sentence-transformers, which is not needed. It runs on dearlite's engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dearlite.integrations.ordering import as_reranker, order_texts
from dearlite.options import Device

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dearlite.models.chain import Model
    from dearlite.reranker import Reranker

Pair = Sequence[str]  # (query, document)


class CrossEncoder:
    """A reranker with the methods `predict` and `rank`, for code that was written for sentence-transformers.

    Scores are from 0 to 1 by default: the calibrated relevance, the makers' probability, or the sigmoid of the logit.
    sentence-transformers applies the activation that a model's files name, which for the ms-marco models is none:
    `raw_scores` gives these logits.

    - `model`, `threads`, `instruction`: those of `Reranker.load`; `model` may also be a loaded Reranker.
    - `device`: "cpu", "cuda", or None for the best that works.
    """

    def __init__(
        self,
        model: Model | Reranker = None,
        *,
        device: Device | None = None,
        threads: int | None = None,
        instruction: str | None = None,
        raw_scores: bool = False,
    ) -> None:
        self.reranker = as_reranker(model, device=device or "auto", threads=threads, instruction=instruction)
        self.raw_scores = raw_scores

    def predict(
        self,
        sentences: Pair | Sequence[Pair],
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        *,
        activation_fn: Callable[[NDArray[np.float32]], Any] | None = None,
    ) -> Any:
        """The scores of (query, document) pairs in their order, (pairs,) float32; of a single pair one np.float32.

        - `batch_size` has no effect: a score does not depend on the pairs beside it.
        - `show_progress_bar`: True is a bar on a terminal, and a line on stderr elsewhere.
        - `activation_fn`: function of the logits in place of the model's own.

        Raises UsageError for a listwise model or a cascade, which `rank` takes, and InvalidInput for an empty text.
        """
        single = len(sentences) == 2 and all(isinstance(text, str) for text in sentences)
        pairs: Any = [sentences] if single else sentences
        progress = bool(show_progress_bar)
        logits = np.array(self.reranker.score([tuple(pair) for pair in pairs], progress=progress), np.float32)
        if activation_fn is not None:
            scores = np.asarray(activation_fn(logits), np.float32)
        elif self.raw_scores:
            scores = logits
        else:
            scores = np.array([self.reranker.relevance_of(float(logit)) for logit in logits], np.float32)
        return scores[0] if single else scores

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        batch_size: int = 32,
    ) -> list[dict[str, Any]]:
        """The best `top_k` documents as records of `corpus_id`, `score` and, if `return_documents`, `text`.

        `corpus_id` is the position in `documents`; `batch_size` has no effect. Any kind of model ranks. Raises as
        `Reranker.rerank`.
        """
        order = order_texts(self.reranker, query, documents, top_k=top_k, raw=self.raw_scores)
        return [
            {"corpus_id": position, "score": np.float32(score)}
            | ({"text": documents[position]} if return_documents else {})
            for position, score in order
        ]
