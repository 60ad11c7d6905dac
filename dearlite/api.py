"""The library's front door: `rerank` for one call, `Reranker` to keep a model loaded."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Event
from typing import TYPE_CHECKING

from dearlite.models.chain import Model
from dearlite.progress import Progress
from dearlite.reranker import Reranker

if TYPE_CHECKING:
    from dearlite.options import Listwise, Long
    from dearlite.ranking import Ranking


def rerank(
    query: str,
    docs: Iterable[object],
    *,
    model: Model = None,
    top_k: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    listwise: Listwise | None = None,
    progress: Progress | None = None,
    cancel: Event | None = None,
    budget_s: float | None = None,
    long: Long | None = None,
) -> Ranking:
    """`docs` ordered by how well they answer `query`, best first.

    `docs` are strings, mappings with `text` (or `contents`, `passage`) and optional `id` and `title`, or objects with
    those attributes; none is changed. `model` is a name of models.toml or a model file, the embedded one when None, or
    a list of them, a cascade: `["minilm-l12", ("dear.gguf", 20)]`. `listwise` is for listwise models alone.
    `progress(done, total)` is called as documents are read; setting `cancel` ends the call with Cancelled.

    `long` says what becomes of documents that are longer than a pointwise model reads; they are cut where it is None.

    With `budget_s` it is an anytime ranking: work ends after so many seconds, or as soon as `cancel` is set, and the
    best order so far is returned, every document in it, with `complete` False; infinity is no limit of time. The model
    is loaded for this call, before its time begins: keep a Reranker for more than one.
    """
    reranker = Reranker.load(model, device=device, threads=threads)
    return reranker.rerank(
        query, docs, top_k=top_k, listwise=listwise, progress=progress, cancel=cancel, budget_s=budget_s, long=long
    )
