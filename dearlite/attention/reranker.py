"""Attention rerankers: one prompt holds a list, and a document's score is the attention that it gets from the query."""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dearlite.agreement import rank_in_passes
from dearlite.anytime import order_within, rank_within
from dearlite.attention.engine import AttentionBackend, Stopped
from dearlite.attention.scoring import document_scores
from dearlite.attention.tokens import ListEncoder
from dearlite.deadline import Deadline
from dearlite.documents import Document, as_documents, check_query
from dearlite.errors import Cancelled, InvalidInput, ModelFileError, ScoringError, UsageError
from dearlite.foreign import naming
from dearlite.hits import make_hits
from dearlite.jobs import Job, name_of, no_tokens
from dearlite.loading import Recipe, lasting_name
from dearlite.machine import check_threads
from dearlite.models.bundle import Bundle
from dearlite.options import Call, Listwise
from dearlite.pointwise.prompting import check_ids, has_tokens
from dearlite.progress import Meter, Progress, part_of
from dearlite.ranking import Ranking, check_top_k
from dearlite.reranker import Reranker
from dearlite.stages import QueryState


class AttentionReranker(Reranker):
    """An attention reranker in one `.dear` file. Calls from several threads take turns."""

    pointwise = False

    def __init__(
        self,
        source: Path | Bundle,
        *,
        device: str = "auto",
        threads: int | None = None,
        instruction: str | None = None,
    ) -> None:
        """Loads a bundle, open or given by its path; usually called by `Reranker.load`."""
        bundle = source if isinstance(source, Bundle) else Bundle(source)
        manifest = bundle.manifest
        if manifest.attention is None:
            raise ModelFileError(f"{bundle.path} has kind {manifest.kind!r} and no heads: export the model again")
        self.bundle, self.model = bundle, manifest.name
        self.recipe = Recipe(
            lasting_name(bundle.path), {"device": device, "threads": threads}, pointwise={"instruction": instruction}
        )
        reading = manifest.attention if instruction is None else replace(manifest.attention, late=instruction)
        self._encoder = ListEncoder(bundle.read("tokenizer.json"), reading, manifest.max_tokens)
        check_ids(self._encoder, manifest.embedding_rows, bundle.path)
        self._backend = AttentionBackend(bundle, device=device, threads=check_threads(threads, in_step=True))

    @property
    def device(self) -> str:
        return self._backend.device

    @property
    def quantisation(self) -> str:
        return self._backend.build.quantisation

    @property
    def threads(self) -> int:
        return self._backend.threads

    @property
    def takes_instruction(self) -> bool:
        return True

    def _instruct(self, instruction: str) -> None:
        reading = replace(self._encoder.reading, late=instruction)
        self._encoder = ListEncoder(self.bundle.read("tokenizer.json"), reading, self._encoder.max_tokens)

    def _release(self) -> None:
        self._backend.close()
        self.bundle.close()

    def span(self, listwise: Listwise | None = None) -> tuple[int, int]:
        """One window holds the whole list, of any length."""
        self._passes(listwise)
        return sys.maxsize, sys.maxsize

    def identity(self, listwise: Listwise | None = None) -> dict[str, str]:
        self.check_open()
        passes = self._passes(listwise)
        words = hashlib.sha256(repr(self._encoder.reading).encode()).hexdigest()[:16]
        return {
            "model": self.model,
            "sha256": self.bundle.sha256(),
            "device": self.device,
            "quantisation": self.quantisation,
            "prompt": f"{self.bundle.manifest.prompt} {words}",
            "instruction": self._encoder.reading.late,
            **self._backend.arithmetic(),
            **({"options": f"passes={passes}"} if passes > 1 else {}),
        }

    def empty_documents(self, documents: Sequence[Document]) -> list[int]:
        return [index for index, document in enumerate(documents) if not self._reads(document, index)]

    def _reads(self, document: Document, position: int) -> bool:
        with naming(self.model, name_of(document, position)):
            return has_tokens(self._encoder, document.text) or has_tokens(self._encoder, document.title)

    def rank(self, jobs: Sequence[Job], call: Call) -> list[Ranking]:
        """One Ranking per job, one after another: a prompt of one list keeps all threads busy."""
        passes = self._passes(call.listwise)
        if call.long is not None and call.long.checked().mode != "truncate":
            raise UsageError(
                f"{self.model} is an attention reranker and reads only the beginning of a document: put a pointwise "
                "stage before it"
            )
        if call.budget_s is not None:

            def stage(query: QueryState, deadline: Deadline, progress: Progress) -> tuple[Ranking, set[int]]:
                documents = query.shown(query.order, passages=False)
                return order_within(self, query.text, documents, call.listwise, deadline, progress, first=True)

            return [rank_within(self.model, self.margin, job, call, stage) for job in jobs]
        top_k = check_top_k(call.top_k)
        if passes > 1:
            return rank_in_passes(lambda shuffled: self._rank_each(shuffled, call), jobs, passes, top_k)
        return [ranking.top(top_k) for ranking in self._rank_each(jobs, call)]

    def _rank_each(self, jobs: Sequence[Job], call: Call) -> list[Ranking]:
        return [
            self._ranked(*job, replace(call, progress=part_of(call.progress, number, len(jobs))))
            for number, job in enumerate(jobs)
        ]

    def _ranked(self, query: str, docs: object, call: Call) -> Ranking:
        start = time.perf_counter()
        query, documents = check_query(query), as_documents(docs)  # type: ignore[arg-type]  # checked there
        self.refuse_empty(documents, call.positions)
        with naming(self.model, "the query"):
            if not has_tokens(self._encoder, query):
                raise InvalidInput(f"the query {no_tokens(Document(query), self.model)}: give at least one word")
        scores, tokens = self._scores(query, documents, call) if documents else ([], [])
        return Ranking(
            hits=make_hits(documents, scores, tokens, None),
            query=query,
            model=self.model,
            device=self.device,
            elapsed_s=time.perf_counter() - start,
            total=len(documents),
        )

    def _scores(
        self, query: str, documents: Sequence[Document], call: Call
    ) -> tuple[list[float], list[tuple[int, int, bool]]]:
        """The score of each document, and its tokens in the prompt, in total, and True if that is a lower bound."""
        passages = []
        for index, document in enumerate(documents):
            with naming(self.model, name_of(document, index)):
                passages.append(self._encoder.passage(document))
        where = f"a list of {len(documents)}"
        with naming(self.model, where):
            prompt = self._encoder.prompt(query, passages)
        meter, read = Meter(len(documents), call.progress), 0

        def on_tokens(count: int) -> None:
            nonlocal read
            read += count
            meter.reach(len(documents) * read // prompt.tokens)

        try:
            with naming(self.model, where):
                attention, null_attention = self._backend.attention(
                    prompt.prefix,
                    list(zip(prompt.tails, prompt.rows, strict=True)),
                    cancel=call.cancel,
                    on_tokens=on_tokens,
                )
        except Stopped:
            raise Cancelled(0, len(documents)) from None
        scores = document_scores(attention, null_attention, prompt.spans)
        if any(map(math.isnan, scores)):
            raise ScoringError(f"{self.model} returned NaN for {where}: export it again with --quant fp32")
        used = [(len(cut.ends), cut.total, cut.total_is_bound) for cut in prompt.passages]
        return scores, used

    def _passes(self, listwise: Listwise | None) -> int:
        """The number of passes. Raises UsageError for the other options of listwise models."""
        if listwise is None:
            return 1
        if foreign := listwise.beside_passes:
            name, value = next(iter(foreign.items()))
            raise UsageError(
                f"{name} is {value}, and {self.model} is an attention reranker, which reads one list and writes no "
                "text: leave it out, or take a listwise model"
            )
        listwise.check_values()
        return listwise.passes
