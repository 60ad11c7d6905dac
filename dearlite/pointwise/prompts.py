"""Prompt forms of pointwise models: the words around a query and a document.

A bundle's manifest names its form; the form is never guessed from a model's name. These strings are an interface: the
weights were trained with them, and one different character costs quality.
"""

from __future__ import annotations

from dataclasses import dataclass

from dearlite.documents import Document


@dataclass(frozen=True, slots=True)
class PairForm:
    """The words of a pair: before the query, before the document, and between the document's title and text."""

    before_query: str
    before_document: str
    after_title: str
    keep_empty_title: bool  # True if `after_title` is written even without a title

    def query(self, query: str) -> str:
        """The first text of the pair."""
        return self.before_query + query

    def document(self, document: Document) -> str:
        """The second text of the pair."""
        title = document.title
        head = title + self.after_title if title or self.keep_empty_title else ""
        return self.before_document + head + document.text


PAIR_FORMS: dict[str, PairForm] = {
    # ms-marco-MiniLM and most cross-encoders: the bare texts, a title joined by a space (BEIR's convention).
    "plain": PairForm("", "", " ", keep_empty_title=False),
    # DeAR and RankLLaMA: "query: Q", "document: TITLE TEXT"; without a title two spaces remain, as in training.
    "dear": PairForm("query: ", "document: ", " ", keep_empty_title=True),
}
