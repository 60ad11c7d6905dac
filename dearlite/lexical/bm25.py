"""BM25 of a list of documents, by bm25s: the variant of Lucene, with exact ties in the order of the list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING

import numpy as np

from dearlite.documents import Document
from dearlite.errors import Cancelled, need
from dearlite.lexical.languages import check_language, tokenizer_of
from dearlite.models.entries import LexicalEntry

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Bm25:
    """The parameters of BM25: `k1` and `b` as in Robertson's formula, `language` for stems and stop words.

    The defaults are those of Anserini, with which most published BM25 figures were made.
    """

    k1: float = 0.9
    b: float = 0.4
    language: str = "english"

    @classmethod
    def of(cls, entry: LexicalEntry, language: str | None) -> Bm25:
        """The parameters of an entry; `language` takes the place of its own. Raises as `check_language`."""
        return cls(entry.k1, entry.b, check_language(entry.language if language is None else language))


class Bm25Index:
    """An index of documents. Title and text are one text, joined by a blank."""

    def __init__(
        self,
        documents: Sequence[Document],
        parameters: Bm25,
        *,
        cancel: Event | None = None,
    ) -> None:
        """Indexes `documents`. Raises MissingExtra without bm25s, and Cancelled when `cancel` is set."""
        self.count = len(documents)
        self._tokenizer = tokenizer_of(parameters.language)
        texts = _texts(documents, cancel)
        ids = list(self._tokenizer.streaming_tokenize(texts, update_vocab=True, allow_empty=False))
        vocabulary = self._tokenizer.get_vocab_dict()
        self._bm25 = None
        if any(ids):
            self._bm25 = need("bm25s", extra="first-stage").BM25(k1=parameters.k1, b=parameters.b, method="lucene")
            self._bm25.index((ids, vocabulary), create_empty_token=False, show_progress=False)

    def scores(self, query: str) -> NDArray[np.float32]:
        """The score of each document, (documents,), 0 for one that has no word of `query`. Scores are never negative.

        A word that stands in the query twice counts twice.
        """
        # False: a form that no document has is found by its stem
        (ids,) = self._tokenizer.tokenize([query], update_vocab=False, allow_empty=False, show_progress=False)
        if self._bm25 is None or not ids:
            return np.zeros(self.count, np.float32)
        scores: NDArray[np.float32] = self._bm25.get_scores_from_ids(ids)
        return scores

    def ranked(self, query: str) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """The scores, and the indices of the documents, best first: equal scores stay in the order of the list."""
        scores = self.scores(query)
        return scores, np.argsort(-scores, kind="stable")


def _texts(documents: Sequence[Document], cancel: Event | None) -> Iterator[str]:
    for done, document in enumerate(documents):
        if cancel is not None and cancel.is_set():
            raise Cancelled(done, len(documents))
        yield f"{document.title} {document.text}" if document.title else document.text
