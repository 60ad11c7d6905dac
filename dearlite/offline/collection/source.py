"""The arguments of a reranking that name its input, and the collection that they stand for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import NoneType
from typing import Any

from dearlite.checks import whole_number
from dearlite.errors import UsageError, counted
from dearlite.fields import USUAL, Fields
from dearlite.offline.collection import irds
from dearlite.offline.collection.collection import (
    DEFAULT_DEPTH,
    FOLDER_LAYOUT,
    Collection,
    collection_files,
    folder_part,
    keep_with_texts,
    open_collection,
)
from dearlite.offline.collection.first_stage import FirstStage
from dearlite.offline.collection.pairs import all_pairs
from dearlite.offline.collection.runs import open_run

_FROM_MEMORY = "give a path, or a collection from memory: dearlite.make_collection(queries, corpus, run)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The arguments that name a collection, as `dearlite.rerank_run` and `dearlite.evaluate` take them.

    `source` may also be a dataset of ir_datasets, as its id `irds:ID` or as an object. `first` makes the run, over all
    documents: a run of the folder is not read.
    """

    source: Any = None
    queries: str | Path | None = None
    corpus: str | Path | Sequence[str | Path] = ()
    run: str | Path | None = None
    qrels: Any = None
    depth: int | None = DEFAULT_DEPTH
    skip_bad: bool = False
    fields: Fields = USUAL
    delimiter: str | None = None
    first: FirstStage | None = None

    def open(self) -> Collection:
        """The collection: that of `open_collection`, or `source` itself if it is a Collection.

        A Collection keeps all its documents under the default depth; another depth cuts it.
        """
        if self.first is not None:
            return self.first.search(self._all())
        if isinstance(self.source, Collection):
            parts: dict[str, object] = {"queries": self.queries, "corpus": self.corpus, "run": self.run}
            parts |= {"fields": self.fields != USUAL, "delimiter": self.delimiter}
            if named := [name for name, value in parts.items() if value]:
                raise UsageError(f"a Collection holds its {named[0]} itself: leave out {' and '.join(named)}")
            return _cut(self.source, self.depth)
        if irds.is_dataset(self.source):
            return self._dataset()
        for name in ("source", "queries", "run"):
            if not isinstance(value := getattr(self, name), (str, Path, NoneType)):
                raise UsageError(f"{name} is a {type(value).__name__}: {_FROM_MEMORY}")
        if not isinstance(self.corpus, (str, Path)) and not all(isinstance(path, (str, Path)) for path in self.corpus):
            raise UsageError(f"corpus is a {type(self.corpus).__name__} of other things than paths: {_FROM_MEMORY}")
        if isinstance(self.corpus, Mapping):
            raise UsageError(f"corpus is a {type(self.corpus).__name__}: {_FROM_MEMORY}")
        corpus = [self.corpus] if isinstance(self.corpus, (str, Path)) else self.corpus
        if self.source is None and self.run is None and self.queries is not None and corpus:
            return self._pairs(self.queries, corpus)
        self._check_run()
        return open_collection(
            self.source,
            queries=self.queries,
            corpus=corpus,
            run=self.run,
            qrels=self._qrels_file,
            depth=self.depth,
            skip_bad=self.skip_bad,
            fields=self.fields,
            delimiter=self.delimiter,
        )

    def _check_run(self) -> None:
        """Raises UsageError for a folder that has queries and no run; `first`, which other callers lack, makes one."""
        if self.run is not None or self.source is None or not os.path.isdir(self.source):
            return
        queries = self.queries or folder_part("queries", self.source, needed=False)
        if queries and folder_part("run", self.source, needed=False) is None:
            names = " or ".join(FOLDER_LAYOUT["run"])
            remedy = "add it, name it with --run, or make it with --first bm25:100"
            raise UsageError(f"{self.source} holds no run ({names}): {remedy}")

    @property
    def _qrels_file(self) -> str | Path | None:
        """The file of the judgements; None if they are in memory or of a dataset."""
        return self.qrels if isinstance(self.qrels, (str, Path)) and not irds.is_dataset(self.qrels) else None

    def _all(self) -> Collection:
        """The queries and all documents, for the first stage."""
        if isinstance(self.source, Collection):
            raise UsageError(
                f"{self.first} reads files of queries and documents, and the source has a run: leave it out"
            )
        if self.run is not None:
            raise UsageError(f"--run names a first stage, and {self.first} is another: leave one out")
        if self.depth not in (None, DEFAULT_DEPTH):
            raise UsageError(f"--depth {self.depth}: the first stage {self.first} states its own: leave --depth out")
        if irds.is_dataset(self.source):
            return self._all_of_dataset()
        corpus = [self.corpus] if isinstance(self.corpus, (str, Path)) else self.corpus
        files = collection_files(self.source, {"queries": self.queries}, corpus)
        qrels = self._qrels_file
        if qrels is None and self.source is not None:
            qrels = folder_part("qrels", self.source, needed=False)
        return self._pairs(files["queries"][0], files["corpus"], qrels)

    def _pairs(
        self, queries: str | Path, documents: Sequence[str | Path], qrels: str | Path | None = None
    ) -> Collection:
        """Every document for every query, as there is no run that names the documents of each."""
        if self.depth not in (None, DEFAULT_DEPTH):
            raise UsageError(
                f"--depth {self.depth} takes the best documents of a run, and none is named: leave it out to rank "
                "every document for every query, or give --run"
            )
        return all_pairs(
            queries,
            documents,
            qrels=qrels or self._qrels_file,
            skip_bad=self.skip_bad,
            fields=self.fields,
            delimiter=self.delimiter,
        )

    def _dataset(self) -> Collection:
        """The collection of a dataset of ir_datasets, over its own run or the one named by `run`."""
        name = self._dataset_name()
        whole, notes = open_run(self.source if self.run is None else self.run, "the run", skip_bad=self.skip_bad)
        depth = None if self.depth is None else whole_number("depth", self.depth)
        texts = irds.dataset_queries(self.source)
        run = {query: dict(islice(scores.items(), depth)) for query, scores in whole.items() if query in texts}
        if len(run) < len(whole):
            notes.append(f"left out {counted(len(whole) - len(run), 'query')} of the run that {name} lacks")
        ids = {document_id for scores in run.values() for document_id in scores}
        documents, bad = irds.dataset_documents(self.source, ids, fields=self.fields, skip_bad=self.skip_bad)
        kept, lost = keep_with_texts(run, documents, str(self.run or name), name, self.skip_bad)
        return Collection(
            name=name if self.run is None else f"{name}, {Path(self.run).name}",
            queries={query_id: texts[query_id] for query_id in kept},
            documents=documents,
            run=kept,
            qrels=self.source,
            sources={"dataset": name} | ({} if self.run is None else {"run": str(self.run)}),
            notes=(*notes, *bad, *lost),
        )

    def _all_of_dataset(self) -> Collection:
        """The queries and all documents of a dataset of ir_datasets, without a run."""
        name = self._dataset_name()
        queries = irds.dataset_queries(self.source)
        documents, bad = irds.dataset_documents(self.source, None, fields=self.fields, skip_bad=self.skip_bad)
        return Collection(
            name=name,
            queries=queries,
            documents=documents,
            run={},
            qrels=self.source,
            sources={"dataset": name},
            notes=tuple(bad),
            first_stage=False,
        )

    def _dataset_name(self) -> str:
        """The name of the dataset. Raises UsageError for arguments that name its parts again."""
        name = irds.dataset_name(self.source)
        parts: dict[str, object] = {"queries": self.queries, "corpus": self.corpus, "delimiter": self.delimiter}
        if named := [part for part, value in parts.items() if value]:
            raise UsageError(f"{name} holds queries and documents itself: leave out {' and '.join(named)}")
        return name


def _cut(collection: Collection, depth: int | None) -> Collection:
    """`collection` with the best `depth` documents of each query; unchanged for the default depth and None."""
    if depth is None or whole_number("depth", depth) == DEFAULT_DEPTH:
        return collection
    run = {query_id: dict(islice(scores.items(), depth)) for query_id, scores in collection.run.items()}
    return replace(collection, run=run)
