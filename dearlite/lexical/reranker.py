"""BM25 as a stage of a cascade, or alone. It reads all documents of a call, and no model file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from dearlite.documents import CheckedDocuments, Document, as_documents, check_query
from dearlite.errors import UsageError
from dearlite.jobs import Job
from dearlite.lexical.bm25 import Bm25, Bm25Index
from dearlite.lexical.corpus import Corpus
from dearlite.loading import Recipe
from dearlite.models.entries import LexicalEntry
from dearlite.ranking import Ranking, check_top_k
from dearlite.reranker import Reranker
from dearlite.stages import QueryState, WordScores

if TYPE_CHECKING:
    from threading import Event

    from dearlite.options import Call, Listwise


class LexicalReranker(Reranker):
    """BM25 over the documents of each call; of a Corpus the index is kept."""

    pointwise = False  # a score depends on all documents of the call
    device, quantisation, threads = "cpu", "none", 1

    def __init__(
        self,
        source: LexicalEntry,
        *,
        device: str = "auto",
        threads: int | None = None,
        language: str | None = None,
    ) -> None:
        """Usually called by `Reranker.load`. `language` takes the place of the entry's.

        `device` and `threads` have no effect: BM25 runs on one core. Raises UsageError for an unknown language, and
        MissingExtra without bm25s.
        """
        self.model = source.name
        self.parameters = Bm25.of(source, language)
        self._last: tuple[Sequence[Document], list[tuple[str, str]], Bm25Index | None] = ((), [], None)
        self.recipe = Recipe(self.model, {"device": device, "threads": threads}, pointwise={"language": language})

    def identity(self, listwise: Listwise | None = None) -> dict[str, str]:
        self.check_open()
        if listwise is not None:
            raise UsageError(f"{self.model} compares words, and takes no options of listwise models")
        bm25 = self.parameters
        return {
            "model": self.model,
            "sha256": "none",
            "device": self.device,
            "quantisation": self.quantisation,
            "bm25": f"lucene k1 {bm25.k1:g} b {bm25.b:g} {bm25.language}",
            "bm25s": version("bm25s"),
        }

    def rank(self, jobs: Sequence[Job], call: Call) -> list[Ranking]:
        if call.listwise is not None:
            raise UsageError(f"{self.model} compares words, and takes no options of listwise models")
        return [self._ranked(query, as_documents(docs), call) for query, docs in jobs]

    def words(self, query: str, documents: Sequence[Document], cancel: Event | None = None) -> WordScores:
        """The scores of all documents for `query`, and their order. Raises Cancelled when `cancel` is set."""
        self.check_open()
        if isinstance(documents, Corpus):
            index = documents.index_of(self.parameters, cancel=cancel)
        else:
            index = self._index_of(documents, cancel)
        return WordScores(self.model, *index.ranked(query))

    def _index_of(self, documents: Sequence[Document], cancel: Event | None) -> Bm25Index:
        """The index of `documents`; the last one again where they are the same, as for queries of one collection."""
        last, indexed, index = self._last
        if index is not None and documents is last and isinstance(documents, CheckedDocuments):  # which cannot change
            return index
        texts = [(document.title, document.text) for document in documents]
        if index is None or indexed != texts:
            index = Bm25Index(documents, self.parameters, cancel=cancel)
        self._last = (documents, texts, index)
        return index

    def _release(self) -> None:
        self._last = ((), [], None)

    def _ranked(self, text: str, documents: Sequence[Document], call: Call) -> Ranking:
        start = time.perf_counter()
        query = QueryState(check_query(text), documents)
        query.add_words(self, call.cancel)
        return query.ranking(self.model, time.perf_counter() - start, check_top_k(call.top_k))
