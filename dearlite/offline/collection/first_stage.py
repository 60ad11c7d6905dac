"""A first stage by words: the run of a collection whose queries and documents are known, and no run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dearlite.errors import UsageError
from dearlite.lexical.bm25 import Bm25, Bm25Index
from dearlite.models.chain import Chain, Model, resolve
from dearlite.offline.collection.collection import Collection
from dearlite.reranker import Reranker


@dataclass(frozen=True, slots=True)
class FirstStage:
    """BM25 over all documents of a collection: the best `depth` of each query are its run."""

    name: str
    parameters: Bm25
    depth: int

    def search(self, collection: Collection) -> Collection:
        """`collection` with the run of this stage. A document without a word of the query is not in it.

        Equal scores stay in the order of the documents. Raises MissingExtra without bm25s.
        """
        ids = list(collection.documents)
        index = Bm25Index(list(collection.documents.values()), self.parameters)
        run: dict[str, Mapping[str, float]] = {}
        for query_id, text in collection.queries.items():
            scores, order = index.ranked(text)
            best = order[: self.depth]
            run[query_id] = {ids[position]: float(scores[position]) for position in best if scores[position] > 0}
        without = [query_id for query_id, scores in run.items() if not scores]
        notes = [f"queries without a word of any document: {len(without)} ({without[0]!r} first)"] if without else []
        return replace(
            collection,
            name=f"{collection.name}, {self}",
            run=run,
            sources={**collection.sources, "first stage": str(self)},
            notes=(*collection.notes, *notes),
            first_stage=True,
        )

    def __str__(self) -> str:
        bm25 = self.parameters
        return f"{self.name}:{self.depth} (k1 {bm25.k1:g}, b {bm25.b:g}, {bm25.language})"


def split_chain(model: Model, language: str | None) -> tuple[FirstStage | None, Chain]:
    """The lexical stage of a chain with further stages, and the chain of these; (None, the chain) for any other.

    `language` takes the place of the registered one. Raises UsageError for one that the stemmer does not know.
    """
    chain = resolve(model)
    first, *others = chain.stages
    if first.words is None or not others:
        return None, chain
    entry, depth = first.words, others[0].depth
    if depth is None:
        raise UsageError(f"stage {others[0].name} gets all documents: leave {first.name} out, or give it a depth")
    rest = (replace(others[0], depth=None), *others[1:])
    return FirstStage(entry.name, Bm25.of(entry, language), depth), Chain(rest, len(rest) > 1)


def split_model(model: Model | Reranker, language: str | None) -> tuple[FirstStage | None, Chain | Reranker]:
    """`split_chain` of a model's name or chain; a loaded model is returned as it is. Raises UsageError."""
    if isinstance(model, Reranker):
        if language is not None:
            raise UsageError("language goes with the name of a model: load the Reranker with it, Reranker.load(...)")
        return None, model
    return split_chain(model, language)
