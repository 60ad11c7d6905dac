"""A cascade: each stage reranks the head of the previous stage's ranking and keeps the rest in order.

A cheap model reads all documents, expensive models only those whose rank they can still change. With a budget, work
goes through the current order, best first, and stops between batches or decode steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar, cast

from dearlite.anytime import PointwiseStage, order_within, score_within
from dearlite.cascade_stage import CascadeStage
from dearlite.deadline import Deadline, check_budget
from dearlite.documents import Document, as_documents, check_query
from dearlite.errors import Cancelled, DearliteError, UsageError
from dearlite.jobs import Job
from dearlite.lifetime import closed
from dearlite.machine import check_threads
from dearlite.models.calibration import MARGIN_CUT
from dearlite.options import Listwise
from dearlite.progress import Progress
from dearlite.ranking import Ranking, StageReport, check_top_k
from dearlite.reranker import Reranker, needs_two_stages
from dearlite.stages import QueryState, StageMeter

if TYPE_CHECKING:
    from dearlite.lexical.reranker import LexicalReranker
    from dearlite.options import Call, Long

Value = TypeVar("Value")


class CascadeReranker(Reranker):
    """A chain of models. Each is loaded at its first use; with `low_memory` only one is loaded at a time."""

    pointwise = False

    def __init__(
        self,
        stages: Sequence[CascadeStage],
        *,
        low_memory: bool = False,
        best_effort: bool = False,
        adaptive: bool = False,
    ) -> None:
        """Usually called by `Reranker.load`, which describes the options."""
        self._stages, self._adaptive = tuple(stages), adaptive
        self._low_memory, self._best_effort = low_memory, best_effort
        self.model = ">".join(stage.name for stage in stages)

    @classmethod
    def of(
        cls, stages: Iterable[tuple[str, int | None, str, Callable[[], Reranker]]], **options: bool
    ) -> CascadeReranker:
        """The cascade of `stages`: (name, depth, kind, load function) each. The options are those of `__init__`."""
        lock = Lock()  # one for all: a file in two stages is loaded once
        return cls([CascadeStage(*stage, lock) for stage in stages], **options)

    def __repr__(self) -> str:
        loaded = sum(stage.loaded is not None for stage in self._stages)
        state = "closed" if self._closed else f"{loaded} of {len(self._stages)} models loaded"
        return f"<{type(self).__name__} {self.model}, {state}>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        if self.recipe is None:
            raise UsageError(f"{self.model} was made of functions, which are not pickled: make it in each process")
        return super().__reduce_ex__(protocol)

    @property
    def device(self) -> str:
        return ", ".join(dict.fromkeys(stage.reranker().device for stage in self._stages))

    @property
    def quantisation(self) -> str:
        return ", ".join(dict.fromkeys(stage.reranker().quantisation for stage in self._stages))

    @property
    def threads(self) -> int:
        loaded = [reranker for stage in self._stages if (reranker := stage.loaded) is not None]
        return loaded[0].threads if loaded else check_threads(None)

    @property
    def takes_instruction(self) -> bool:
        runnable = [stage for stage in self._stages if stage.kind]
        return any(self._of_stage(stage, lambda reranker: reranker.takes_instruction) for stage in runnable)

    def with_instruction(self, instruction: str) -> CascadeReranker:
        text = self._checked_instruction(instruction)
        lock = Lock()
        stages = [
            CascadeStage(stage.name, stage.depth, stage.kind, partial(self._instructed, stage, text), lock)
            for stage in self._stages
        ]
        options = {"low_memory": self._low_memory, "best_effort": self._best_effort, "adaptive": self._adaptive}
        cascade = type(self)(stages, **options)
        cascade.recipe = self._instructed_recipe(text)
        return cascade

    def _instructed(self, stage: CascadeStage, instruction: str) -> Reranker:
        """The model of a stage with the instruction, if it takes one. It is closed with its cascade."""

        def instructed(reranker: Reranker) -> Reranker:
            if reranker.takes_instruction:
                return reranker.with_instruction(instruction)
            if (shared := reranker.share()) is None:
                raise closed(self.model)
            return shared

        return self._of_stage(stage, instructed)

    def _of_stage(self, stage: CascadeStage, read: Callable[[Reranker], Value]) -> Value:
        """The value of `read` for the model of a stage, which is loaded for it."""
        value = read(stage.reranker())
        self._unload(stage)
        return value

    def _release(self) -> None:
        for stage in self._stages:
            if self.recipe is not None and (reranker := stage.loaded) is not None:  # a function may give a shared one
                reranker.close()
            stage.unload()

    def identity(self, listwise: Listwise | None = None) -> dict[str, str]:
        self.check_open()
        parts = []
        for stage in self._stages:
            reranker = stage.reranker()
            parts.append(reranker.identity(_options_of(stage, listwise)) | {"depth": str(stage.depth)})
            self._unload(stage)
        names = dict.fromkeys(name for part in parts for name in part)
        identity = {name: " > ".join(part.get(name, "-") for part in parts) for name in names}
        return identity | ({"adaptive": f"cut {MARGIN_CUT}"} if self._adaptive else {})

    def empty_documents(self, documents: Sequence[Document]) -> list[int]:
        first = next((stage for stage in self._stages if stage.kind != "lexical"), self._stages[0])
        return first.reranker().empty_documents(documents)

    def rank(self, jobs: Sequence[Job], call: Call) -> list[Ranking]:
        """One Ranking per job. `call.batch_size` queries go through all stages at a time."""
        rankings = list[Ranking]()
        for start in range(0, len(jobs), call.batch_size):
            rankings += self._rank(jobs[start : start + call.batch_size], call)
        return rankings

    def _rank(self, jobs: Sequence[Job], call: Call) -> list[Ranking]:
        top_k = check_top_k(call.top_k)
        self._check(call)
        if call.budget_s is not None:
            for stage in self._stages:  # loading cannot be interrupted, so it comes before the budget begins
                self._try(stage, stage.reranker, [])
        start = time.perf_counter()
        queries = [QueryState(check_query(text), as_documents(docs)) for text, docs in jobs]
        deadline = None if call.budget_s is None else Deadline(call.budget_s, call.cancel)
        slow = [stage for stage in self._stages if stage.kind != "lexical"]
        total = sum(query.head_size(stage.depth) for stage in slow for query in queries)
        meter = StageMeter(total, call.progress)
        try:
            for position, stage in enumerate(self._stages):
                if deadline is None and call.cancel is not None and call.cancel.is_set():
                    raise Cancelled(meter.done, meter.total)
                self._try(stage, partial(self._rank_stage, stage, queries, call, deadline, meter, top_k), queries)
                if position + 1 < len(self._stages):
                    self._unload(stage)
        except Cancelled as err:
            err.partial = queries[0].partial(self.model, time.perf_counter() - start) if len(queries) == 1 else None
            raise
        elapsed_s = (time.perf_counter() - start) / max(1, len(queries))
        return [query.ranking(self.model, elapsed_s, top_k) for query in queries]

    def _check(self, call: Call) -> None:
        """Raises UsageError for options that do not fit this cascade, before a model is loaded."""
        kinds = [stage.kind for stage in self._stages]
        passes_alone = call.listwise is not None and not call.listwise.beside_passes and "attention" in kinds
        if call.listwise is not None and not passes_alone and "listwise" not in kinds and "" not in kinds:
            raise UsageError(f"{self.model} has no listwise stage: modes, windows and reasons need one")
        if call.budget_s is not None:
            check_budget(call.budget_s)
            if self._low_memory and len(kinds) > 1:
                raise UsageError(
                    "low memory loads a stage within the call, and loading cannot keep to a budget: drop one of the two"
                )
        if call.long is not None and call.long.checked().mode != "truncate":
            if kinds[0] in ("listwise", "attention"):
                kind = "an attention reranker" if kinds[0] == "attention" else "a listwise model"
                raise UsageError(
                    f"{self.model} begins with {kind}, which reads no passages: begin with a pointwise model"
                )
            if call.long.mode == "cascade" and sum(kind != "lexical" for kind in kinds) < 2:
                raise UsageError(needs_two_stages(self.model))

    def _rank_stage(
        self,
        stage: CascadeStage,
        queries: Sequence[QueryState],
        call: Call,
        deadline: Deadline | None,
        meter: StageMeter,
        top_k: int | None,
    ) -> None:
        """Ranks the head of each query with one stage and adds the results to `queries`."""
        if stage.kind == "lexical":
            lexical = cast("LexicalReranker", stage.reranker())
            for query in queries:
                query.add_words(lexical, call.cancel)
            return
        reranker, first = stage.reranker(), stage is self._stages[0]
        long = None if call.long is None or call.long.mode == "truncate" else call.long
        call = replace(call, listwise=_options_of(stage, call.listwise))
        heads = [query.order[: stage.depth] for query in queries]
        if self._adaptive and not first:
            cut = top_k or MARGIN_CUT
            heads = [head[: query.band(head, cut)] for query, head in zip(queries, heads, strict=True)]
        with meter.stage(sum(map(len, heads))) as progress:
            try:
                results = self._results(reranker, queries, heads, long, call, deadline, progress, first=first)
            except Cancelled as err:
                if len(queries) == 1 and err.partial is not None:
                    read = {hit.index for hit in err.partial if hit.score is not None}
                    queries[0].add_result(reranker.model, heads[0], err.partial, read, reranker.margin)
                raise
        for query, head, (ranking, read) in zip(queries, heads, results, strict=True):
            query.add_result(reranker.model, head, ranking, read, reranker.margin)

    def _results(
        self,
        reranker: Reranker,
        queries: Sequence[QueryState],
        heads: Sequence[list[int]],
        long: Long | None,
        call: Call,
        deadline: Deadline | None,
        progress: Progress,
        *,
        first: bool,
    ) -> list[tuple[Ranking, set[int]]]:
        """Per query, the ranking of the documents `heads`, and the indices of those that there was time for."""
        if not reranker.pointwise:
            shown = [query.shown(head, passages=long is not None) for query, head in zip(queries, heads, strict=True)]
            if deadline is not None:
                text, listwise = queries[0].text, call.listwise
                return [order_within(reranker, text, shown[0], listwise, deadline, progress, first=first)]
            rankings = reranker.rerank_many(
                [(query.text, documents) for query, documents in zip(queries, shown, strict=True)],
                batch_size=call.batch_size,
                listwise=call.listwise,
                progress=progress if len(queries) == 1 else None,
                cancel=call.cancel,
            )
            return [(ranking, set(range(len(ranking)))) for ranking in rankings]
        query_progress = progress if len(queries) == 1 else None
        stages = [
            PointwiseStage(reranker, query.text, *query.head_of(head), long, query_progress, call.cancel, head)
            for query, head in zip(queries, heads, strict=True)
        ]
        if deadline is not None:
            return [score_within(stages[0], deadline, progress, first=first)]
        return [(stage.rank(), set(range(stage.total))) for stage in stages]

    def _try(self, stage: CascadeStage, job: Callable[[], object], queries: Sequence[QueryState]) -> None:
        """Runs `job`. With `best_effort`, an error of a later stage goes into the reports of `queries`."""
        try:
            job()
        except Cancelled:
            raise
        except DearliteError as err:
            if not self._best_effort or stage is self._stages[0]:
                raise
            for query in queries:
                query.reports.append(StageReport(stage.name, "", query.head_size(stage.depth), 0, 0.0, str(err)))

    def _unload(self, stage: CascadeStage) -> None:
        if self._low_memory:
            stage.unload()


def _options_of(stage: CascadeStage, listwise: Listwise | None) -> Listwise | None:
    """The options of a call that a stage takes: an attention reranker the passes alone."""
    if listwise is None or stage.kind == "listwise":
        return listwise
    return Listwise(passes=listwise.passes) if stage.kind == "attention" else None
