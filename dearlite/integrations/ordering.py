"""The order of texts for a framework: positions and scores. This module knows no framework."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from dearlite.documents import Document
from dearlite.errors import MissingExtra, UsageError, warn
from dearlite.installing import pip_install
from dearlite.ranking import check_top_k
from dearlite.readable import readable
from dearlite.relevance import shown_scores
from dearlite.reranker import Reranker

if TYPE_CHECKING:
    from dearlite.models.chain import Model
    from dearlite.options import Device
    from dearlite.ranking import Ranking

Order = list[tuple[int, float]]  # (position in the framework's list, score), best first


def as_reranker(
    model: Model | Reranker, *, device: str = "auto", threads: int | None = None, instruction: str | None = None
) -> Reranker:
    """`model` if it is loaded, otherwise a Reranker loaded with these options. Raises as `Reranker.load`.

    Raises UsageError for options beside a loaded model, which has its own.
    """
    if not isinstance(model, Reranker):
        return Reranker.load(model, device=cast("Device", device), threads=threads, instruction=instruction)
    if device != "auto" or threads is not None or instruction is not None:
        raise UsageError(f"{model.model} is loaded already: give device, threads and instruction to Reranker.load")
    model.check_open()
    return model


def order_texts(
    reranker: Reranker, query: str, texts: Sequence[str | None], *, top_k: int | None = None, raw: bool = False
) -> Order:
    """The best `top_k` of `texts`, all if None.

    A text that is empty, or None, cannot be ranked: it comes last, with the score 0 (`raw`: the lowest of the others),
    and a DearliteWarning counts such texts. The errors are those of `Reranker.rerank`.
    """
    positions = _positions_to_read(reranker, texts)
    if not positions:
        return _with_empty([], [], texts, top_k, raw=raw)
    ranking = reranker.rerank(query, [texts[position] for position in positions], top_k=top_k)
    return _with_empty(_order(reranker, ranking, positions, raw=raw), positions, texts, top_k, raw=raw)


async def aorder_texts(
    reranker: Reranker, query: str, texts: Sequence[str | None], *, top_k: int | None = None, raw: bool = False
) -> Order:
    """`order_texts` for a task of asyncio, whose cancellation stops the model."""
    positions = await to_thread(_positions_to_read, reranker, texts)  # a cascade loads its first model for it
    if not positions:
        return _with_empty([], [], texts, top_k, raw=raw)
    ranking = await reranker.arerank(query, [texts[position] for position in positions], top_k=top_k)
    return _with_empty(_order(reranker, ranking, positions, raw=raw), positions, texts, top_k, raw=raw)


def _positions_to_read(reranker: Reranker, texts: Sequence[str | None]) -> list[int]:
    """Positions of the texts that are not empty, also for the model's tokenizer."""
    positions = [position for position, text in enumerate(texts) if text is not None and readable(text)]
    empty = set(reranker.empty_documents([Document(texts[position] or "") for position in positions]))
    return [position for number, position in enumerate(positions) if number not in empty]


def _order(reranker: Reranker, ranking: Ranking, positions: Sequence[int], *, raw: bool) -> Order:
    scores = shown_scores(reranker, ranking, raw=raw)
    return [(positions[hit.index], score) for hit, score in zip(ranking, scores, strict=True)]


def _with_empty(
    order: Order, read: Sequence[int], texts: Sequence[str | None], top_k: int | None, *, raw: bool
) -> Order:
    """`order`, and after it the texts whose positions are not `read`, at most `check_top_k(top_k)` in all."""
    known = set(read)
    empty = [position for position in range(len(texts)) if position not in known]
    if empty:
        count = (
            f"document {empty[0]} is" if len(empty) == 1 else f"{len(empty)} documents (the first is {empty[0]}) are"
        )
        warn(f"{count} empty and cannot be ranked: placed last")
    lowest = order[-1][1] if raw and order else 0.0
    return [*order, *((position, lowest) for position in empty)][: check_top_k(top_k)]


def missing(err: ModuleNotFoundError, extra: str, *modules: str) -> ModuleNotFoundError | MissingExtra:
    """The error for a package of `extra` that is not installed; `err` if that is none of `modules`.

    `modules` are the top-level modules that the integration imports.
    """
    module = (err.name or "").partition(".")[0]
    if module not in modules:
        return err
    return MissingExtra(f"{module} is needed here and is not installed: {pip_install(extra)}")
