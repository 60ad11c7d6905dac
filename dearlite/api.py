"""`rerank` and `arerank`: each loads a model and ranks the documents of one query."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

from dearlite.reranker import Reranker
from dearlite.tasks import call_in_thread, new_threads

if TYPE_CHECKING:
    from dearlite.fields import Fields
    from dearlite.models.chain import Model
    from dearlite.options import Listwise, Long
    from dearlite.progress import Progress
    from dearlite.ranking import Ranking


def rerank(
    query: str,
    docs: Iterable[object],
    *,
    model: Model = None,
    top_k: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    instruction: str | None = None,
    listwise: Listwise | None = None,
    progress: Progress | None = None,
    cancel: Event | None = None,
    budget_s: float | None = None,
    long: Long | None = None,
    fields: Fields | None = None,
) -> Ranking:
    """`docs` sorted by relevance to `query`, best first.

    The model is loaded for each call, before the time of `budget_s` begins. Load a `Reranker` once for several calls.

    - `query`: the question or search terms, not empty.
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
    - `progress`: function that is called with (done, total) documents.
    - `cancel`: event whose setting ends the call: with Cancelled, which has the ranking so far as `partial`, or, if
      there is a budget, with the best order so far.
    - `budget_s`: time limit in seconds, above 0, infinity for none. When it ends, the best order so far is returned:
      all documents are in it, and `complete` is False. None: no limit.
    - `long`: treatment of documents that are longer than a pointwise model's input. None: they are cut.
    - `fields`: `Fields(text=, id=, title=)` that name the fields of the records, or functions of a record. None: the
      usual names.

    Raises InvalidInput for a query or document that cannot be read, UsageError for a wrong value and for an option that
    does not apply (`listwise` without a listwise model, say), Cancelled, OutOfMemory, ScoringError, and the errors of
    `Reranker.load`.

    ```python
    from dearlite import rerank

    ranking = rerank("who invented the light bulb?", ["Coffee is good for diet", "Edison's bulb, 1879"], top_k=1)
    print(ranking[0].rank, ranking[0].index, ranking[0].text)  # 1 1 Edison's bulb, 1879
    ```
    """
    reranker = Reranker.load(model, device=device, threads=threads, instruction=instruction)
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
    )


async def arerank(
    query: str,
    docs: Iterable[object],
    *,
    model: Model = None,
    top_k: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    instruction: str | None = None,
    listwise: Listwise | None = None,
    progress: Progress | None = None,
    cancel: Event | None = None,
    budget_s: float | None = None,
    long: Long | None = None,
    fields: Fields | None = None,
) -> Ranking:
    """The ranking that `rerank` returns, computed in a thread while the event loop goes on.

    The model is loaded for each call: load a `Reranker` once for several, and await its `arerank`, which says how a
    cancelled task ends. Loading is not interrupted: the thread ends after it.
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
    }
    return await call_in_thread(new_threads(1), partial(rerank, query, docs), options)
