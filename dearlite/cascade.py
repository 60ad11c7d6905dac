"""A cascade: each stage reranks the head of the stage before and keeps the rest in order.

The cheap model looks at everything, the expensive ones only at what they can still change. With a budget it is an
anytime ranking: work goes in the order so far, best first, and stops between batches or decode steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

from dearlite.anytime import Reading, order_within, score_within
from dearlite.deadline import Deadline, check_budget
from dearlite.documents import Document, as_documents, check_query
from dearlite.errors import Cancelled, DearliteError, UsageError
from dearlite.machine import check_threads
from dearlite.progress import Progress
from dearlite.ranking import Ranking, StageReport, check_top_k
from dearlite.reranker import Job, Reranker
from dearlite.stages import QueryState, StageMeter

if TYPE_CHECKING:
    from dearlite.options import Call, Listwise


_CUT = 10  # the place that an adaptive stage works for, where no top_k says another


@dataclass(slots=True)
class Link:
    """One stage: its name, how many documents it gets (None: all), its kind where known, and how it is loaded."""

    name: str
    depth: int | None
    kind: str
    load: Callable[[], Reranker]
    loaded: Reranker | None = None


class CascadeReranker(Reranker):
    """A chain of models. Each is loaded when it is first needed; with `low_memory` only one is loaded at a time."""

    pointwise = False

    def __init__(
        self,
        links: Sequence[Link],
        *,
        low_memory: bool = False,
        best_effort: bool = False,
        adaptive: bool = False,
    ) -> None:
        """`Reranker.load` is the usual way here; it says what the options do."""
        self._links, self._adaptive = tuple(links), adaptive
        self._low_memory, self._best_effort = low_memory, best_effort
        self._lock = Lock()
        self.model = ">".join(link.name for link in links)

    @classmethod
    def of(
        cls, stages: Iterable[tuple[str, int | None, str, Callable[[], Reranker]]], **options: bool
    ) -> CascadeReranker:
        """The chain of `stages`: name, depth, kind and loader of each; the options are those of `__init__`."""
        return cls([Link(*stage) for stage in stages], **options)

    @property
    def device(self) -> str:
        return ", ".join(dict.fromkeys(self._reranker(link).device for link in self._links))

    @property
    def quantisation(self) -> str:
        return ", ".join(dict.fromkeys(self._reranker(link).quantisation for link in self._links))

    @property
    def threads(self) -> int:
        loaded = [link.loaded for link in self._links if link.loaded is not None]
        return loaded[0].threads if loaded else check_threads(None)

    def identity(self, listwise: Listwise | None = None) -> dict[str, str]:
        parts = []
        for link in self._links:
            reranker = self._reranker(link)
            parts.append(reranker.identity(None if reranker.pointwise else listwise) | {"depth": str(link.depth)})
            self._let_go(link)
        names = dict.fromkeys(name for part in parts for name in part)
        whole = {name: " > ".join(part.get(name, "-") for part in parts) for name in names}
        return whole | ({"adaptive": f"cut {_CUT}"} if self._adaptive else {})

    def rank(self, jobs: Sequence[Job], call: Call) -> list[Ranking]:
        """Stage after stage, `call.together` queries at a time."""
        found = list[Ranking]()
        for start in range(0, len(jobs), call.together):
            found += self._rank(jobs[start : start + call.together], call)
        return found

    def _rank(self, jobs: Sequence[Job], asked: Call) -> list[Ranking]:
        top_k = check_top_k(asked.top_k)
        self._check(asked)
        if asked.budget_s is not None:
            for link in self._links:  # a load cannot be cut short, so it is no part of the budget
                self._try(link, partial(self._reranker, link), [])
        start = time.perf_counter()
        work = [QueryState(check_query(text), as_documents(docs)) for text, docs in jobs]
        deadline = None if asked.budget_s is None else Deadline(asked.budget_s, asked.cancel)
        meter = StageMeter(sum(query.head(link.depth) for link in self._links for query in work), asked.progress)
        for place, link in enumerate(self._links):
            if deadline is None and asked.cancel is not None and asked.cancel.is_set():
                raise Cancelled(meter.done, meter.total)
            self._try(link, partial(self._stage, link, work, asked, deadline, meter, top_k or _CUT), work)
            if place + 1 < len(self._links):
                self._let_go(link)
        elapsed = (time.perf_counter() - start) / max(1, len(work))
        return [query.ranking(self.model, elapsed, top_k) for query in work]

    def _check(self, asked: Call) -> None:
        """Tells what cannot be, before a model is loaded."""
        kinds = [link.kind for link in self._links]
        if asked.listwise is not None and all(kind == "pointwise" for kind in kinds):
            raise UsageError(f"{self.model} has no listwise stage: modes, windows and reasons go with one")
        if asked.budget_s is not None:
            check_budget(asked.budget_s)
            if self._low_memory and len(kinds) > 1:
                raise UsageError(
                    "low memory loads a stage within the call, and a load cannot keep to a budget: drop one"
                )
        if asked.long is not None and asked.long.checked().mode != "truncate":
            if kinds[0] == "listwise":
                raise UsageError(f"{self.model} begins with a listwise model, which reads no passages: begin pointwise")
            if asked.long.mode == "cascade" and len(kinds) < 2:
                raise UsageError(
                    f"{self.model} is one stage, and long mode cascade needs a stage before it that picks passages: "
                    "give two models"
                )

    def _stage(
        self,
        link: Link,
        work: Sequence[QueryState],
        asked: Call,
        deadline: Deadline | None,
        meter: StageMeter,
        cut: int,
    ) -> None:
        reranker = self._reranker(link)
        long = None if asked.long is None or asked.long.mode == "truncate" else asked.long
        heads = [query.order[: link.depth] for query in work]
        if self._adaptive and link is not self._links[0]:
            heads = [head[: query.band(head, cut)] for query, head in zip(work, heads, strict=True)]
        with meter.stage(sum(map(len, heads))) as heard:
            if reranker.pointwise:
                hear = heard if len(work) == 1 else None
                readings = [
                    Reading(reranker, query.text, *query.head_of(head), long, hear, asked.cancel)
                    for query, head in zip(work, heads, strict=True)
                ]
                if deadline is None:
                    found = [(reading.rank(), set(range(reading.total))) for reading in readings]
                else:
                    found = [score_within(readings[0], deadline, heard, first=link is self._links[0])]
            else:
                shown = [query.shown(head, passages=long is not None) for query, head in zip(work, heads, strict=True)]
                found = self._listwise(reranker, link, work, shown, asked, deadline, heard)
        for query, head, (ranking, read) in zip(work, heads, found, strict=True):
            query.take(reranker.model, head, ranking, read, reranker.margin)

    def _listwise(
        self,
        reranker: Reranker,
        link: Link,
        work: Sequence[QueryState],
        shown: Sequence[list[Document]],
        asked: Call,
        deadline: Deadline | None,
        heard: Progress,
    ) -> list[tuple[Ranking, set[int]]]:
        if deadline is not None:
            first = link is self._links[0]
            return [order_within(reranker, work[0].text, shown[0], asked.listwise, deadline, heard, first=first)]
        jobs = [(query.text, documents) for query, documents in zip(work, shown, strict=True)]
        hear = heard if len(work) == 1 else None
        found = reranker.rerank_many(
            jobs, together=asked.together, listwise=asked.listwise, progress=hear, cancel=asked.cancel
        )
        return [(ranking, set(range(len(ranking)))) for ranking in found]

    def _try(self, link: Link, job: Callable[[], object], work: Sequence[QueryState]) -> None:
        """Runs `job`; with `best_effort` the failure of a later stage is kept in the report instead of raised."""
        try:
            job()
        except Cancelled:
            raise
        except DearliteError as err:
            if not self._best_effort or link is self._links[0]:
                raise
            for query in work:
                query.reports.append(StageReport(link.name, "", query.head(link.depth), 0, 0.0, str(err)))

    def _reranker(self, link: Link) -> Reranker:
        with self._lock:
            if link.loaded is None:
                link.loaded = link.load()
                link.kind = "pointwise" if link.loaded.pointwise else "listwise"
            return link.loaded

    def _let_go(self, link: Link) -> None:
        if self._low_memory:
            link.loaded = None
