"""Pointwise models: every (query, document) pair is scored alone, and documents are sorted by score."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from dearlite.anytime import PointwiseStage, rank_within, score_within
from dearlite.deadline import Deadline
from dearlite.documents import Document, as_document, as_documents, check_query
from dearlite.errors import Cancelled, InvalidInput, ModelFileError, UsageError
from dearlite.fields import USUAL, Fields
from dearlite.machine import check_threads
from dearlite.models.bundle import Bundle
from dearlite.models.calibration import read_calibration
from dearlite.options import Long
from dearlite.passages import best_passages
from dearlite.pointwise.engine import OnnxBackend
from dearlite.pointwise.passages import split_documents
from dearlite.pointwise.prompts import PAIR_FORMS
from dearlite.pointwise.tokens import PairEncoder
from dearlite.progress import Progress
from dearlite.ranking import PairScore, Ranking, check_top_k, make_hits
from dearlite.reranker import Job, Reranker, part_of
from dearlite.stages import QueryState

if TYPE_CHECKING:
    from dearlite.options import Call, Listwise
    from dearlite.pointwise.tokens import TokenRow


class PointwiseReranker(Reranker):
    """A pointwise model in one `.dear` file. It may be used from several threads at once."""

    def __init__(self, source: Path | Bundle, *, device: str = "auto", threads: int | None = None) -> None:
        """Loads a bundle, open or given by its path; usually called by `Reranker.load`."""
        bundle = source if isinstance(source, Bundle) else Bundle(source)
        manifest = bundle.manifest
        if manifest.kind != "pointwise" or manifest.prompt not in PAIR_FORMS:
            raise ModelFileError(
                f"{bundle.path} has kind {manifest.kind!r} and prompt {manifest.prompt!r}, which this dearlite cannot "
                "run: update dearlite"
            )
        self.bundle = bundle
        self.model = manifest.name
        self._relevance = read_calibration(manifest.calibration, str(bundle.path))
        self.calibrated = self._relevance is not None
        self.margin = None if self._relevance is None else self._relevance.margin
        self._form = PAIR_FORMS[manifest.prompt]
        self._encoder = PairEncoder(bundle.read("tokenizer.json"), max_tokens=manifest.max_tokens)
        self._head_tokens = len(self._encoder.ids(self._form.document(Document("", title=""))))
        self._backend = OnnxBackend(bundle, device=device, threads=check_threads(threads))
        for note in self._backend.notes:
            warnings.warn(note, stacklevel=3)

    @property
    def device(self) -> str:
        return self._backend.device

    @property
    def quantisation(self) -> str:
        return self._backend.build.quantisation

    @property
    def threads(self) -> int:
        return self._backend.threads

    def identity(self, listwise: Listwise | None = None) -> dict[str, str]:
        _check_no_listwise(listwise, self.model)
        probe = self._form.query("Q") + "\0" + self._form.document(Document("D", title="T"))
        return {
            "model": self.model,
            "sha256": self.bundle.sha256(),
            "device": self.device,
            "quantisation": self.quantisation,
            "prompt": f"{self.bundle.manifest.prompt} {hashlib.sha256(probe.encode()).hexdigest()[:16]}",
        }

    def rank(self, jobs: Sequence[Job], call: Call) -> list[Ranking]:
        _check_no_listwise(call.listwise, self.model)
        long = None if call.long is None or call.long.checked().mode == "truncate" else call.long
        if call.budget_s is not None:

            def stage(query: QueryState, deadline: Deadline, progress: Progress) -> tuple[Ranking, set[int]]:
                pointwise = PointwiseStage(self, query.text, *query.head_of(query.order), long)
                return score_within(pointwise, deadline, progress, first=True)

            return [rank_within(self.model, self.margin, job, call, stage) for job in jobs]
        top_k = check_top_k(call.top_k)
        return [
            self._ranked(*job, long, part_of(call.progress, number, len(jobs)), call.cancel).top(top_k)
            for number, job in enumerate(jobs)
        ]

    def _ranked(
        self, query: str, docs: Iterable[object], long: Long | None, progress: Progress | None, cancel: Event | None
    ) -> Ranking:
        start = time.perf_counter()
        query, documents = check_query(query), as_documents(docs)
        if long is not None:
            query_tokens = len(self._encoder.ids(self._form.query(query)))
            passages = split_documents(documents, self._encoder, query_tokens, self._head_tokens, long)
            ranking = self._ranked(query, [passage.document for passage in passages], None, progress, cancel)
            return best_passages(ranking, passages, documents, long.keep)
        tokens: list[tuple[int, int]] = []
        query_truncated = False

        def rows() -> Iterator[TokenRow]:
            nonlocal query_truncated
            ids = self._encoder.ids(self._form.query(query))
            for row in self._encoder.pairs(ids, map(self._form.document, documents)):
                tokens.append((row.tokens_used, row.tokens_total))
                query_truncated |= row.query_truncated
                yield row

        scores = self._scores(rows(), len(documents), progress, cancel)
        return Ranking(
            hits=make_hits(documents, scores, tokens, None, self._relevance),
            query=query,
            model=self.model,
            device=self.device,
            elapsed_s=time.perf_counter() - start,
            total=len(documents),
            query_truncated=query_truncated,
        )

    def score(
        self,
        pairs: Iterable[tuple[str, object]],
        *,
        progress: Progress | None = None,
        cancel: Event | None = None,
        fields: Fields | None = None,
    ) -> list[float]:
        checked = [_check_pair(pair, position, fields or USUAL) for position, pair in enumerate(pairs)]
        return self._scores(self._rows(checked), len(checked), progress, cancel)

    def stream(self, pairs: Iterable[tuple[str, Document]]) -> Iterator[PairScore]:
        tokens: deque[tuple[int, int]] = deque()  # of the rows that the backend has taken and not scored yet

        def rows() -> Iterator[TokenRow]:
            for row in self._rows(pairs):
                tokens.append((row.tokens_used, row.tokens_total))
                yield row

        with closing(self._backend.score(rows())) as scores:
            for score in scores:
                yield PairScore(score, *tokens.popleft())

    def _rows(self, pairs: Iterable[tuple[str, Document]]) -> Iterator[TokenRow]:
        """Token rows of the pairs, as they are consumed; a query is encoded once for consecutive documents."""
        for query, group in groupby(pairs, key=itemgetter(0)):
            ids = self._encoder.ids(self._form.query(query))
            yield from self._encoder.pairs(ids, (self._form.document(document) for _, document in group))

    def _scores(
        self, rows: Iterator[TokenRow], total: int, progress: Progress | None, cancel: Event | None
    ) -> list[float]:
        scores: list[float] = []
        with closing(self._backend.score(rows)) as stream:
            for score in stream:
                scores.append(score)
                if progress is not None:
                    progress(len(scores), total)
                if cancel is not None and cancel.is_set() and len(scores) < total:
                    raise Cancelled(len(scores), total)
        return scores


def _check_pair(pair: object, position: int, fields: Fields) -> tuple[str, Document]:
    """The cleaned query and the document of `pair`. Raises InvalidInput."""
    if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
        raise InvalidInput(f"pair {position} is not (query, document)")
    return check_query(pair[0]), as_document(pair[1], f"the document of pair {position}", fields)


def _check_no_listwise(listwise: Listwise | None, model: str) -> None:
    if listwise is not None:
        raise UsageError(f"{model} is a pointwise model: modes, windows and reasons need a listwise model")
