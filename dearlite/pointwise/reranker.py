"""Pointwise models: every (query, document) pair is scored alone, and documents are sorted by score."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import count, groupby
from operator import itemgetter
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from dearlite.anytime import PointwiseStage, rank_within, score_within
from dearlite.checks import instance
from dearlite.deadline import Deadline
from dearlite.documents import Document, as_documents, check_query
from dearlite.errors import Cancelled, EngineError, InvalidInput, ModelFileError, warn
from dearlite.fields import USUAL, Fields
from dearlite.foreign import naming
from dearlite.jobs import Job, empty_document, name_of, no_tokens
from dearlite.loading import Recipe, lasting_name
from dearlite.machine import check_threads
from dearlite.models.bundle import Bundle
from dearlite.models.calibration import read_activation, read_calibration
from dearlite.options import Long
from dearlite.passages import rank_by_passages
from dearlite.pointwise.arguments import check_no_listwise, check_pair
from dearlite.pointwise.engine import OnnxBackend
from dearlite.pointwise.passages import split_documents
from dearlite.pointwise.prompting import check_ids, check_place, has_tokens, prompt_of
from dearlite.pointwise.prompts import PAIR_FORMS
from dearlite.pointwise.results import QueryResults
from dearlite.progress import Progress, part_of, shown
from dearlite.ranking import PairScore, Ranking, check_top_k
from dearlite.reranker import Reranker
from dearlite.stages import QueryState

if TYPE_CHECKING:
    from dearlite.options import Call, Listwise
    from dearlite.pointwise.backend import Backend
    from dearlite.pointwise.tokens import TokenRow


class PointwiseReranker(Reranker):
    """A pointwise model in one `.dear` file. It may be used from several threads at once."""

    _backend: Backend

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
        if manifest.kind != "pointwise" or (manifest.template is None and manifest.prompt not in PAIR_FORMS):
            raise ModelFileError(
                f"{bundle.path} has kind {manifest.kind!r} and prompt {manifest.prompt!r}, which this dearlite cannot "
                "run: update dearlite"
            )
        self.bundle = bundle
        check_place(instruction, manifest)
        self.recipe = Recipe(
            lasting_name(bundle.path), {"device": device, "threads": threads}, pointwise={"instruction": instruction}
        )
        self.model = manifest.name
        self._set_relevance(manifest.calibration, manifest.activation, str(bundle.path))
        form = manifest.template or manifest.prompt
        self._prompt = prompt_of(form, bundle.read("tokenizer.json"), manifest.max_tokens, instruction)
        self._encoder = self._prompt.texts
        check_ids(self._encoder, manifest.embedding_rows, bundle.path)
        self._backend = self._onnx = OnnxBackend(bundle, device=device, threads=check_threads(threads))
        for note in self._backend.notes:
            warn(note)

    def _set_relevance(
        self, calibration: Mapping[str, Any] | None, activation: Mapping[str, Any] | None, where: str
    ) -> None:
        """Takes the fitted calibration or, without one, the makers' own map. Raises ModelFileError."""
        fitted, published = read_calibration(calibration, where), read_activation(activation, where)
        self._relevance = fitted or published
        self.calibrated = self._relevance is not None
        self.margin = None if self._relevance is None else self._relevance.margin

    @property
    def device(self) -> str:
        return self._backend.device

    @property
    def quantisation(self) -> str:
        return self._onnx.build.quantisation

    @property
    def threads(self) -> int:
        return self._backend.threads

    def identity(self, listwise: Listwise | None = None) -> dict[str, str]:
        self.check_open()
        check_no_listwise(listwise, self.model)
        return {
            "model": self.model,
            "sha256": self.bundle.sha256(),
            "device": self.device,
            "quantisation": self.quantisation,
            **self._prompt.identity(self.bundle.manifest.prompt),
            **self._onnx.arithmetic(),
        }

    @property
    def takes_instruction(self) -> bool:
        return self._prompt.takes_instruction

    def _instruct(self, instruction: str) -> None:
        self._prompt = self._prompt.with_instruction(instruction)

    def _release(self) -> None:
        self._onnx.close()
        self.bundle.close()

    def rank(self, jobs: Sequence[Job], call: Call) -> list[Ranking]:
        check_no_listwise(call.listwise, self.model)
        long = None if call.long is None or call.long.checked().mode == "truncate" else call.long
        if call.budget_s is not None:

            def stage(query: QueryState, deadline: Deadline, progress: Progress) -> tuple[Ranking, set[int]]:
                head = query.head_of(query.order)
                pointwise = PointwiseStage(self, query.text, *head, long, positions=tuple(query.order))
                return score_within(pointwise, deadline, progress, first=True)

            return [rank_within(self.model, self.margin, job, call, stage) for job in jobs]
        top_k = check_top_k(call.top_k)
        return [
            self._ranked(*job, long, part_of(call.progress, number, len(jobs)), call.cancel, call.positions).top(top_k)
            for number, job in enumerate(jobs)
        ]

    def _ranked(
        self,
        query: str,
        docs: Iterable[object],
        long: Long | None,
        progress: Progress | None,
        cancel: Event | None,
        positions: Sequence[int] | None,
    ) -> Ranking:
        query, documents = check_query(query), as_documents(docs)
        positions = range(len(documents)) if positions is None else positions
        self.refuse_empty(documents, positions)
        if long is not None:
            room = self._prompt.room(self._query_part(query))
            with naming(self.model, "a passage"):
                passages = split_documents(documents, self._encoder, room, long)
            of_passages = [positions[passage.index] for passage in passages]
            texts = [passage.document for passage in passages]
            rank = partial(self._ranked, query, texts, None, progress, cancel, of_passages)
            return rank_by_passages(rank, passages, documents, long.keep)
        results = QueryResults(query, documents)
        rows = results.noting(self._rows(((query, document) for document in documents), positions))
        try:
            self._score_all(rows, results.scores, documents, positions, progress, cancel)
        except Cancelled as err:
            err.partial = results.ranking(self.model, self.device, self._relevance) if results.scores else None
            raise
        return results.ranking(self.model, self.device, self._relevance)

    def score(
        self,
        pairs: Iterable[tuple[str, object]],
        *,
        progress: Progress | bool | None = None,
        cancel: Event | None = None,
        fields: Fields | None = None,
    ) -> list[float]:
        self.check_open()
        checked = [check_pair(pair, position, fields or USUAL) for position, pair in enumerate(pairs)]
        scores: list[float] = []
        documents = [document for _, document in checked]
        with shown(progress, "pairs") as callback:
            self._score_all(self._rows(checked), scores, documents, None, callback, cancel)
        return scores

    def stream(self, pairs: Iterable[tuple[str, Document]]) -> Iterator[PairScore]:
        self.check_open()
        tokens: deque[tuple[int, int]] = deque()  # of the rows that the backend has taken and not scored yet
        documents: deque[Document] = deque()  # likewise

        def taken() -> Iterator[tuple[str, Document]]:
            for query, document in pairs:
                instance("a document of stream", document, Document, "a Document")
                documents.append(document)
                yield query, document

        def rows() -> Iterator[TokenRow]:
            for row in self._rows(taken()):
                tokens.append((row.tokens_used, row.tokens_total))
                yield row

        done = 0
        with closing(self._stream(rows(), None)) as scores:
            try:
                for score in scores:
                    documents.popleft()
                    done += 1
                    yield PairScore(score, *tokens.popleft())
            except EngineError as err:
                at = done if err.position is None else err.position
                raise err.about(self.model, name_of(documents[at - done], at)) from err.__cause__

    def empty_documents(self, documents: Sequence[Document]) -> list[int]:
        return [index for index, document in enumerate(documents) if not self._reads(document, index)]

    def _reads(self, document: Document, position: int) -> bool:
        """True if the tokenizer makes a token of `document`."""
        with naming(self.model, name_of(document, position)):
            return has_tokens(self._encoder, document.text) or has_tokens(self._encoder, document.title)

    def _rows(
        self, pairs: Iterable[tuple[str, Document]], positions: Sequence[int] | None = None
    ) -> Iterator[TokenRow]:
        """Token rows of the pairs, as they are consumed; a query is encoded once for consecutive documents.

        `positions` are those of the documents in the caller's list. Raises InvalidInput for a document of which the
        tokenizer makes no token, EngineError if the tokenizer fails.
        """
        numbers = count() if positions is None else iter(positions)
        for query, group in groupby(pairs, key=itemgetter(0)):
            yield from self._rows_of_query(query, (document for _, document in group), numbers)

    def _rows_of_query(self, query: str, documents: Iterable[Document], positions: Iterator[int]) -> Iterator[TokenRow]:
        taken = deque[Document]()  # by the encoder, and no row made yet

        def noted() -> Iterator[Document]:
            for document in documents:
                taken.append(document)
                yield document

        rows = self._prompt.rows(self._query_part(query), noted())
        while True:
            try:
                row = next(rows, None)
            except EngineError as err:
                raise err.about(self.model, name_of(taken[0], next(positions))) from err.__cause__
            if row is None:
                return
            document, position = taken.popleft(), next(positions)
            if row.empty:
                raise empty_document(document, position, self.model)
            yield row

    def _query_part(self, query: str) -> Any:
        """The query's part of a prompt. Raises InvalidInput if it has no token, or leaves no room for a document."""
        with naming(self.model, "the query"):
            if not has_tokens(self._encoder, query):
                raise InvalidInput(f"the query {no_tokens(Document(query), self.model)}: give at least one word")
            return self._prompt.query(query)

    def _stream(self, rows: Iterator[TokenRow], cancel: Event | None) -> Generator[float, None, None]:
        """The score of each row, in order. An engine that can stop within a row ends early when `cancel` is set."""
        return self._backend.score(rows)

    def _score_all(
        self,
        rows: Iterator[TokenRow],
        scores: list[float],
        documents: Sequence[Document],
        positions: Sequence[int] | None,
        progress: Progress | None,
        cancel: Event | None,
    ) -> None:
        """Adds the score of each row to `scores` as it comes. Raises Cancelled."""
        total = len(documents)
        with closing(self._stream(rows, cancel)) as stream:
            while len(scores) < total:
                try:
                    score = next(stream, None)
                except EngineError as err:
                    at = len(scores) if err.position is None else err.position
                    position = at if positions is None else positions[at]
                    raise err.about(self.model, name_of(documents[at], position)) from err.__cause__
                if score is not None:
                    scores.append(score)
                    if progress is not None:
                        progress(len(scores), total)
                if score is None or (cancel is not None and cancel.is_set() and len(scores) < total):
                    raise Cancelled(len(scores), total)
