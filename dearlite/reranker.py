"""What every kind of model offers. `rerank` and `rerank_many` stand here once; a kind implements `rank`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from dearlite.errors import UsageError
from dearlite.loading import load
from dearlite.models.chain import Model
from dearlite.options import Call, Listwise
from dearlite.progress import Progress

if TYPE_CHECKING:
    from dearlite.documents import Document
    from dearlite.options import Long
    from dearlite.ranking import PairScore, Ranking

Job = tuple[str, Iterable[object]]  # a query and its documents


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
        made: Reranker = load(
            model,
            {"device": device, "threads": threads},
            {"gpu_layers": gpu_layers, "adapter": adapter},
            {"low_memory": low_memory, "best_effort": best_effort, "adaptive": adaptive},
        )
        return made

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
        call = Call(top_k=top_k, listwise=listwise, progress=progress, cancel=cancel, budget_s=budget_s, long=long)
        return self.rank([(query, docs)], call)[0]

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
        call = Call(top_k=top_k, listwise=listwise, progress=progress, cancel=cancel, long=long, together=together)
        return self.rank(list(jobs), call)

    @abstractmethod
    def rank(self, jobs: Sequence[Job], call: Call) -> list[Ranking]:
        """A Ranking for each job, in order: what `rerank` and `rerank_many` come down to."""

    def span(self, listwise: Listwise | None = None) -> tuple[int, int]:
        """(window, stride) of a call with these options. Raises UsageError for a model that reads no windows."""
        raise UsageError(f"{self.model} reads no windows")

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


def part_of(progress: Progress | None, number: int, of: int) -> Progress | None:
    """The callback for part `number` of `of` equal parts: it calls `progress` with counts of the whole."""
    if progress is None or of == 1:
        return progress
    return lambda done, total: progress(number * total + done, of * total)
