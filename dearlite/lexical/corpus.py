"""A list of documents that many queries search."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Event, Lock
from typing import Any

from dearlite.documents import CheckedDocuments, as_documents
from dearlite.errors import counted
from dearlite.fields import USUAL, Fields
from dearlite.lexical.bm25 import Bm25, Bm25Index


class Corpus(CheckedDocuments):
    """Documents that are read and indexed once: give it to `rerank` in place of a list.

    ```python
    from dearlite import Corpus, Reranker

    corpus = Corpus(["Coffee is good for diet", "Edison's bulb, 1879", "Rain falls on the hills"])
    reranker = Reranker.load(["bm25:100", "minilm-l12"])
    for query in ("who invented the light bulb?", "is coffee healthy?"):
        print(reranker.rerank(query, corpus, top_k=1)[0].text)
    # Edison's bulb, 1879
    # Coffee is good for diet
    ```
    """

    _indexes: dict[Bm25, Bm25Index]
    _building: Lock

    def __new__(cls, docs: Iterable[object], *, fields: Fields | None = None) -> Corpus:
        """`docs` and `fields` are those of `dearlite.rerank`. Raises InvalidInput for a document it cannot read."""
        corpus = super().__new__(cls, as_documents(docs, fields or USUAL))
        corpus._indexes, corpus._building = {}, Lock()
        return corpus

    def __repr__(self) -> str:
        return f"<Corpus: {counted(len(self), 'document')}>"

    def __reduce__(self) -> Any:
        return type(self), (CheckedDocuments(self),)

    def index_of(self, parameters: Bm25, *, cancel: Event | None = None) -> Bm25Index:
        """The index of these documents, made at the first call."""
        with self._building:
            if parameters not in self._indexes:
                self._indexes[parameters] = Bm25Index(self, parameters, cancel=cancel)
            return self._indexes[parameters]
