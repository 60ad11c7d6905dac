"""`rerank` and `arerank` rank the documents of one query and keep the model that they loaded; `unload` frees it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, TypeVar

from dearlite.kept import KEPT
from dearlite.renamed import with_former_names
from dearlite.tasks import call_in_thread, new_threads

if TYPE_CHECKING:
    from dearlite.fields import Fields
    from dearlite.models.chain import Model
    from dearlite.options import Device, Fuse, Listwise, Long
    from dearlite.progress import Progress
    from dearlite.ranking import Ranking

T = TypeVar("T")


@with_former_names
def rerank(
    query: str | Sequence[str],
    docs: Iterable[T],
    *,
    model: Model = None,
    top_k: int | None = None,
    device: Device = "auto",
    threads: int | None = None,
    instruction: str | None = None,
    listwise: Listwise | None = None,
    progress: Progress | bool | None = None,
    cancel: Event | None = None,
    budget_s: float | None = None,
    long: Long | None = None,
    fields: Fields | None = None,
    fuse: Fuse | None = None,
) -> Ranking[T]:
    """`docs` sorted by relevance to `query`, best first.

    The model is loaded before the time of `budget_s` begins, and stays loaded for the next call with the same `model`,
    `device`, `threads` and `instruction`; a call with others loads anew and keeps that one. A file that has changed is
    loaded anew. `unload` frees it, which on Windows its file needs before it can be replaced. Programs that use several
    models in turn load a `Reranker` for each.

    - `query`: the question or search terms, not empty. A list of them, also as `queries`, is ranked by each: the
      rankings are fused into one, and `Hit.best_query` is the one that a document answers best.
    - `docs`: strings, or records with a text and optionally an id and a title, under the usual names: mappings, named
      tuples, objects with attributes (documents of LangChain, LlamaIndex or Haystack, say), or the rows of a DataFrame.
      They are not changed.
    - `model`: a name in models.toml, a model file, or a list of stages, which is a cascade: `["minilm-l12",
      ("dear.gguf", 20)]`. None: the embedded model, minilm-l12. See `Reranker.load`.
    - `top_k`: number of documents to return, 1 or more. None: all.
    - `device`: "auto" (a GPU if one works, otherwise the CPU), "cpu" or "cuda".
    - `threads`: number of CPU threads, 1 or more. None: the number of physical cores.
    - `instruction`: the task in words, for a model whose prompt has a place for it. None: the model's own.
    - `listwise`: options of a listwise model, or of the listwise stages of a cascade. None: the model file's.
    - `progress`: function that is called with (done, total) documents. True: a bar on a terminal, after one second; a
      line on stderr elsewhere, as in a notebook.
    - `cancel`: event whose setting ends the call: with Cancelled, which has the ranking so far as `partial`, or, if
      there is a budget, with the best order so far.
    - `budget_s`: time limit in seconds, above 0, infinity for none. When it ends, the best order so far is returned:
      all documents are in it, and `complete` is False. None: no limit.
    - `long`: treatment of documents that are longer than a pointwise model's input. None: they are cut.
    - `fields`: `Fields(text=, id=, title=)` that name the fields of the records, or functions of a record. None: the
      usual names.
    - `fuse`: fusion of several queries: "max", which None is too, or "mean" of the scores (of a listwise model or a
      cascade of the ranks), or "rrf", the sum of 1 / (60 + rank). Under a budget each query has its share of the time.

    Raises InvalidInput for a query or document that cannot be read, UsageError for a wrong value and for an option that
    does not apply (`listwise` without a listwise model, say), Cancelled, OutOfMemory, ScoringError, and the errors of
    `Reranker.load`.

    Examples:
        >>> from dearlite import rerank
        >>> for hit in rerank("Who invented the light bulb?", ["Coffee is good for diet", "Edison invented the bulb"]):
        ...     print(hit.rank, hit.index, f"{hit.relevance:.1f}", hit.document)
        1 1 0.8 Edison invented the bulb
        2 0 0.0 Coffee is good for diet

    """
    reranker = KEPT.load(model, {"device": device, "threads": threads, "instruction": instruction})
    return reranker.rerank(
        query,
        docs,
        top_k=top_k,
        listwise=listwise,
        progress=progress,
        cancel=cancel,
        budget_s=budget_s,
        long=long,
        fields=fields,
        fuse=fuse,
    )


@with_former_names
async def arerank(
    query: str | Sequence[str],
    docs: Iterable[T],
    *,
    model: Model = None,
    top_k: int | None = None,
    device: Device = "auto",
    threads: int | None = None,
    instruction: str | None = None,
    listwise: Listwise | None = None,
    progress: Progress | bool | None = None,
    cancel: Event | None = None,
    budget_s: float | None = None,
    long: Long | None = None,
    fields: Fields | None = None,
    fuse: Fuse | None = None,
) -> Ranking[T]:
    """The ranking that `rerank` returns, computed in a thread while the event loop goes on.

    `Reranker.arerank` says how a cancelled task ends. Loading is not interrupted: the thread ends after it.
    """
    options = {
        "model": model,
        "top_k": top_k,
        "device": device,
        "threads": threads,
        "instruction": instruction,
        "listwise": listwise,
        "progress": progress,
        "cancel": cancel,
        "budget_s": budget_s,
        "long": long,
        "fields": fields,
        "fuse": fuse,
    }
    return await call_in_thread(new_threads(1), partial(rerank, query, docs), options)


def unload() -> None:
    """Frees the model that `rerank` and `arerank` keep; the next call loads it again. Calls that run end first."""
    KEPT.drop()
