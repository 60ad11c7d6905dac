"""Documents and queries of a collection that are empty for a model: refused by name, or left out and counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dearlite.documents import Document
from dearlite.errors import InvalidInput
from dearlite.jobs import name_of, no_tokens
from dearlite.offline.collection.collection import Collection
from dearlite.reranker import Reranker


def without_empty(collection: Collection, reranker: Reranker, *, skip_bad: bool) -> Collection:
    """`collection` without the documents of which the tokenizer of `reranker` makes no token; a note counts them.

    Raises InvalidInput for such a document unless `skip_bad`, and for such a query.
    """
    queries = [Document(text) for text in collection.queries.values()]
    for index in reranker.empty_documents(queries):
        name, reason = list(collection.queries)[index], no_tokens(queries[index], reranker.model)
        raise InvalidInput(f"query {name!r} {reason}: give it at least one word")
    documents = {name: replace(document, id=name) for name, document in collection.documents.items()}
    in_order = list(documents.values())
    empty = [in_order[index] for index in reranker.empty_documents(in_order)]
    if not empty:
        return collection
    reason = f"{name_of(empty[0], 0)} {no_tokens(empty[0], reranker.model)}"
    if not skip_bad:
        raise InvalidInput(f"{reason}: remove it (or go on without it: --skip-bad)")
    names = {document.id for document in empty}
    note = f"left out {len(names)} empty documents, the first: {reason}"
    return replace(
        collection,
        documents={name: document for name, document in collection.documents.items() if name not in names},
        run={query_id: _without(scores, names) for query_id, scores in collection.run.items()},
        notes=(*collection.notes, note),
    )


def _without(scores: Mapping[str, float], names: set[str | None]) -> dict[str, float]:
    return {name: score for name, score in scores.items() if name not in names}
