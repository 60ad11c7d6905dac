"""The library's front door: `rerank` for one call, `Reranker` to keep a model loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from dearlite.chain import StageLike, parse_stage
from dearlite.errors import UsageError
from dearlite.registry import DEFAULT_MODEL, find_cascade, find_model
from dearlite.runners import runner_of

if TYPE_CHECKING:
    from dearlite.documents import Document
    from dearlite.long_documents import Long
    from dearlite.options import Listwise
    from dearlite.ranking import PairScore, Ranking

Progress = Callable[[int, int], None]
Model = str | Path | Sequence[StageLike] | None


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


class Reranker(ABC):
    """A loaded model, pointwise or listwise. It may be used from several threads at once."""

    model: str  # its name
    calibrated = False  # whether its hits have a relevance
    margin: float | None = None  # of its scores: what lies further below the cut a later stage need not see
    pointwise = True  # whether it has a score of each document alone, which `score` and `stream` give

    @staticmethod
    def load(
        model: Model = None,
        *,
        device: str = "auto",
        threads: int | None = None,
        gpu_layers: int | None = None,
        adapter: str | Path | None = None,
        low_memory: bool = False,
        best_effort: bool = False,
        adaptive: bool = False,
    ) -> Reranker:
        """A Reranker for a name of models.toml or a model file; None is the embedded default; a list is a cascade.

        `device` is "auto" (a GPU where it works, otherwise the CPU, with a warning that says why), "cpu" or "cuda".
        `threads` is how many work on a CPU; None is one for each physical core. Of a listwise model `gpu_layers` is how
        many layers go to the GPU (None: all where there is one), `adapter` a LoRA in GGUF form put on it.

        A stage of a cascade is a name or file, with a depth where it is `NAME:DEPTH` or (name, depth), and is loaded
        when it is first needed. With `low_memory` each is dropped before the next is loaded; with `best_effort` a later
        stage that cannot run is passed over, and the Ranking's `stages` say why. With `adaptive` a stage gets only the
        documents whose score lies within its calibration's margin of the cut (`top_k`, or 10), at most its depth.
        """
        chain = [model or DEFAULT_MODEL] if model is None or isinstance(model, (str, Path)) else list(model)
        only = parse_stage(chain[0]) if len(chain) == 1 else None
        if only is not None and only.depth is None and find_cascade(only.model) is None:
            path = find_model(only.model)
            return load_file(path, device=device, threads=threads, gpu_layers=gpu_layers, adapter=adapter)
        from dearlite.cascade import make_cascade

        options = {"device": device, "threads": threads}
        listwise = {"gpu_layers": gpu_layers, "adapter": adapter}
        return make_cascade(chain, options, listwise, low_memory=low_memory, best_effort=best_effort, adaptive=adaptive)

    @property
    @abstractmethod
    def device(self) -> str:
        """What really runs the model: "cpu", "cuda", or llama.cpp's name for a GPU and how many layers are on it."""

    @property
    @abstractmethod
    def quantisation(self) -> str:
        """How the model computes here, "int8-per-row" say, or how most of its weights are stored, "q4_k" say."""

    @property
    @abstractmethod
    def threads(self) -> int:
        """How many work side by side on a CPU: a document each, or of a listwise model on the same one."""

    @abstractmethod
    def identity(self, listwise: Listwise | None = None) -> dict[str, str]:
        """What an order depends on besides the texts: name and sha256 of the model, device, numbers, prompt, options.

        Two calls whose identities are equal may share results; results of others must not be mixed.
        """

    @abstractmethod
    def rerank(
        self,
        query: str,
        docs: Iterable[object],
        *,
        top_k: int | None = None,
        listwise: Listwise | None = None,
        progress: Progress | None = None,
        cancel: Event | None = None,
        budget_s: float | None = None,
        long: Long | None = None,
    ) -> Ranking:
        """`docs` ordered by how well they answer `query`; see `dearlite.rerank`."""

    def rerank_many(
        self,
        jobs: Iterable[tuple[str, Iterable[object]]],
        *,
        together: int = 8,
        top_k: int | None = None,
        listwise: Listwise | None = None,
        progress: Progress | None = None,
        cancel: Event | None = None,
        long: Long | None = None,
    ) -> list[Ranking]:
        """A Ranking for each (query, docs), as `rerank` gives it; a listwise model decodes `together` of them at once.

        `progress` counts within each of these groups.
        """
        jobs = list(jobs)
        found: list[Ranking] = []
        for query, docs in jobs:
            hear = None if progress is None else _part(progress, len(found), len(jobs))
            found.append(
                self.rerank(query, docs, top_k=top_k, listwise=listwise, progress=hear, cancel=cancel, long=long)
            )
        return found

    def score(
        self,
        pairs: Iterable[tuple[str, object]],
        *,
        progress: Progress | None = None,
        cancel: Event | None = None,
    ) -> list[float]:
        """The raw logit of each (query, document) pair, in order; a document is what `rerank` takes."""
        raise UsageError(f"{self.model} is a listwise model: it orders documents, and has no score of one alone")

    def stream(self, pairs: Iterable[tuple[str, Document]]) -> Iterator[PairScore]:
        """The score of each (query, document) pair, in order, as soon as it is known; pairs are taken as needed.

        Queries are clean already (`documents.check_query`). Neighbours that share a query encode it once.
        """
        raise UsageError(f"{self.model} is a listwise model: it orders documents, and has no score of one alone")


def _part(progress: Progress, number: int, of: int) -> Progress:
    """What one of several equal parts of the work tells, in the numbers of the whole."""
    return lambda done, total: progress(number * total + done, of * total)


def load_file(
    path: Path,
    *,
    device: str = "auto",
    threads: int | None = None,
    gpu_layers: int | None = None,
    adapter: str | Path | None = None,
) -> Reranker:
    """The Reranker that runs the model file at `path`."""
    runner = runner_of(path)
    options = {"gpu_layers": gpu_layers, "adapter": adapter}
    given = {option: value for option, value in options.items() if value is not None}
    if given and runner.kind != "listwise":
        raise UsageError(f"{' and '.join(given)} go with a listwise model, and {path.name} is pointwise")
    made: Reranker = getattr(import_module(runner.module), runner.name)(path, device=device, threads=threads, **given)
    return made
