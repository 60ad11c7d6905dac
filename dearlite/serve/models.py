"""The models that a server runs: loaded at its start, and found by the name that a request gives."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from dearlite.documents import Document
from dearlite.errors import BudgetTooShort, InvalidInput, UsageError
from dearlite.hits import unread_hit
from dearlite.options import LISTWISE_MODES, Listwise, Long
from dearlite.progress import Progress
from dearlite.ranking import Ranking
from dearlite.relevance import shown_scores
from dearlite.reranker import Reranker
from dearlite.serve.requests import Asked, PairsRequest, RerankRequest
from dearlite.serve.turns import Turn, Turns

if TYPE_CHECKING:
    from dearlite.models.chain import Chain

_KEPT_INSTRUCTIONS = 8  # of a model; each keeps its words' token ids, some kilobytes


class Scored(NamedTuple):
    """A ranking, the score of each of its hits as a client gets it, and its number of empty documents."""

    ranking: Ranking
    scores: list[float]
    empty: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A loaded model or cascade, its `name`, and the options of calls that do not give their own.

    `kinds` are those of its stages, as `ResolvedStage.kind`. `adaptive`: its stages depend on the number of documents
    that a call wants. `takes_instruction`: a request may give its own. `deferred`: its stages are loaded within each
    call, one at a time.
    """

    name: str
    reranker: Reranker
    kinds: tuple[str, ...]
    listwise: Listwise | None = None
    long: Long | None = None
    adaptive: bool = False
    max_tokens: int | None = None
    deferred: bool = False
    takes_instruction: bool = False
    turns: Turns = field(default_factory=Turns)
    _instructed: OrderedDict[str, Reranker] = field(default_factory=OrderedDict)
    _change: Lock = field(default_factory=Lock)

    @property
    def shares(self) -> bool:
        """True if requests take turns between documents. A model that reads a list is held: such a call runs whole."""
        return not {"listwise", "attention"} & set(self.kinds)

    def rank(
        self, request: RerankRequest, turn: Turn, progress: Progress, on_text: Callable[[str], None] | None = None
    ) -> Scored:
        """The ranking of the request's documents, all of them; empty ones are last, with a score of 0.

        Waits for its turn. Raises Cancelled when `turn` is stopped, and the errors of `Reranker.rerank`.
        """
        kept, start = request.kept, time.perf_counter()
        reranker = self._reranker_of(request.options)
        with turn.held():
            budget_s = request.options.left_s(time.perf_counter() - start)
            if self.kinds[0] in ("pointwise", "attention"):
                unread = set(reranker.empty_documents([request.documents[index] for index in kept]))
                kept = [index for position, index in enumerate(kept) if position not in unread]
            if not kept:
                raise InvalidInput("every document is empty: send at least one with a text")
            try:
                ranking = reranker.rerank(
                    request.query,
                    [request.documents[index] for index in kept],
                    top_k=min(request.top_n or len(kept), len(kept)) if self.adaptive else None,
                    listwise=self._listwise(request.options, on_text),
                    long=request.options.long or self.long,
                    budget_s=budget_s,
                    progress=self._pausing(progress, turn),
                    cancel=turn.cancel,
                )
            except BudgetTooShort as err:
                raise request.options.too_short(err.batch_s) from None
        scores = shown_scores(self.reranker, ranking, raw=request.options.raw_scores)
        hits = [replace(hit, index=kept[hit.index]) for hit in ranking]
        return with_empty(Scored(replace(ranking, hits=tuple(hits)), scores), request.documents, kept)

    def score(self, request: PairsRequest, turn: Turn, progress: Progress) -> list[Scored]:
        """The rankings of the documents of each query, in the order of the request.

        Raises UsageError if this is no pointwise model, and as `rank`.
        """
        if not self.reranker.pointwise:
            raise UsageError(f"{self.name} has no score of a single document: send the request to /rerank")
        jobs: list[tuple[str, list[Document]]] = []
        for query, document in request.pairs:
            if not jobs or jobs[-1][0] != query:
                jobs.append((query, []))
            jobs[-1][1].append(document)
        reranker = self._reranker_of(request.options)
        with turn.held():
            rankings = reranker.rerank_many(
                jobs,
                listwise=self._listwise(request.options, None),
                long=request.options.long or self.long,
                progress=self._pausing(progress, turn),
                cancel=turn.cancel,
            )
        raw = request.options.raw_scores
        return [Scored(ranking, shown_scores(self.reranker, ranking, raw=raw)) for ranking in rankings]

    def _reranker_of(self, options: Asked) -> Reranker:
        """The model with the request's instruction, if it takes one. The last few instructions are kept encoded."""
        text = options.instruction
        if text is None or not self.takes_instruction:
            return self.reranker
        with self._change:
            if text not in self._instructed:
                self._instructed[text] = self.reranker.with_instruction(text)
            self._instructed.move_to_end(text)
            if len(self._instructed) > _KEPT_INSTRUCTIONS:
                self._instructed.popitem(last=False)
            return self._instructed[text]

    def _pausing(self, progress: Progress, turn: Turn) -> Progress:
        if not self.shares:
            return progress

        def paused(done: int, total: int) -> None:
            progress(done, total)
            turn.pause()

        return paused

    def _listwise(self, options: Asked, on_text: Callable[[str], None] | None) -> Listwise | None:
        """The request's options of a listwise model, and the server's own as far as the request's mode takes them."""
        listwise = self.listwise
        if options.listwise:
            base = listwise or Listwise()
            mode = options.listwise.get("mode")
            listwise = replace(base if mode not in tuple(LISTWISE_MODES) else base.in_mode(mode), **options.listwise)
        if on_text is not None and "listwise" in self.kinds:
            listwise = listwise or Listwise()  # the model file may name a form that writes reasoning
            if listwise.mode != "generate":
                listwise = replace(listwise, on_text=on_text)
        return listwise


@dataclass(frozen=True, slots=True)
class Models:
    """The models of a server by name. The first answers a request that names none of them, as clients often do."""

    served: tuple[ServedModel, ...]

    def find(self, name: str | None) -> ServedModel:
        """The model of that name, or the first. A name is compared and never opened as a path."""
        return next((model for model in self.served if name in (model.name, model.reranker.model)), self.served[0])


def serve_model(
    chain: Chain,
    loading: dict[str, Any],
    *,
    name: str | None = None,
    listwise: Listwise | None = None,
    long: Long | None = None,
) -> ServedModel:
    """The model or cascade of `chain`, loaded. `loading` are keyword arguments of `Reranker.load`.

    `name`: the name that clients give; None for that of the model.
    """
    kinds = tuple(stage.kind for stage in chain.stages)
    max_tokens = chain.stages[0].max_tokens if chain.stages[0].kind == "pointwise" else None
    deferred = bool(loading.get("low_memory"))
    reranker = Reranker.load(chain, **loading)
    if not deferred:
        _ = reranker.device  # loads every stage of a cascade: the first request would wait for it
    return ServedModel(
        name=name or reranker.model,
        reranker=reranker,
        kinds=kinds,
        listwise=listwise,
        long=long,
        adaptive=bool(loading.get("adaptive")),
        deferred=deferred,
        takes_instruction=any(stage.takes_instruction for stage in chain.stages),
        max_tokens=max_tokens,
    )


def with_empty(scored: Scored, documents: Sequence[Document], kept: Sequence[int]) -> Scored:
    """`scored` with the documents that are not `kept` at its end.

    Their score is 0, or the lowest of the others if that is below, as logits are.
    """
    ranked, ranking, scores = set(kept), scored.ranking, scored.scores
    empty = [index for index in range(len(documents)) if index not in ranked]
    hits = [*ranking.hits, *(unread_hit(documents[index], 0, index) for index in empty)]
    hits = [replace(hit, rank=rank) for rank, hit in enumerate(hits, start=1)]
    with_all = replace(ranking, hits=tuple(hits), total=len(documents), unscored=ranking.unscored + len(empty))
    return Scored(with_all, scores + [min([0.0, *scores])] * len(empty), len(empty))
