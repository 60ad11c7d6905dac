"""Reranks a run: all pairs as one stream through the model, each result in the journal as soon as it is there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from threading import Event
from typing import TYPE_CHECKING

from dearlite.documents import Document
from dearlite.errors import Cancelled, UsageError
from dearlite.offline.collection.collection import Collection
from dearlite.offline.run.cache import ScoreCache, pair_key
from dearlite.offline.run.journal import Journal, digest_of, result_key, settings_key
from dearlite.offline.run.results import QueryResult, RerankedRun
from dearlite.progress import Progress
from dearlite.reranker import Reranker
from dearlite.version import __version__

if TYPE_CHECKING:
    from dearlite.options import Listwise, Long

_SAVE_EVERY_S = 5.0  # the most work of one query that a kill may lose


def rerank_collection(
    collection: Collection,
    reranker: Reranker,
    *,
    listwise: Listwise | None = None,
    long: Long | None = None,
    together: int = 8,
    journal: Journal | None = None,
    cache: ScoreCache | None = None,
    progress: Progress | None = None,
    cancel: Event | None = None,
) -> RerankedRun:
    """`collection` in `reranker`'s order, going on from what `journal` and `cache` hold.

    `progress(done, total)` counts pairs, those of the journal included. Setting `cancel` raises Cancelled; what was
    scored is in the journal then, as it is after any other error.
    """
    work = _Work(collection, reranker, listwise, long, journal, cache, progress, cancel)
    with closing(work):
        if reranker.pointwise and work.long is None:
            work.score_pairs()
        else:
            work.rank_queries(together)
    return RerankedRun(
        collection, work.results, work.identity, resumed=work.resumed, cached=work.cached, notes=tuple(work.notes)
    )


class _Work:
    """One reranking on its way."""

    def __init__(
        self,
        collection: Collection,
        reranker: Reranker,
        listwise: Listwise | None,
        long: Long | None,
        journal: Journal | None,
        cache: ScoreCache | None,
        progress: Progress | None,
        cancel: Event | None,
    ) -> None:
        if cache is not None and not reranker.pointwise:
            raise UsageError(f"{reranker.model} is a listwise model: a cache of scores goes with a pointwise one")
        self.long = None if long is None or long.checked().mode == "truncate" else long
        if cache is not None and self.long is not None:
            raise UsageError("a cache holds scores of whole pairs, and long documents are read in passages: drop one")
        self.collection, self.reranker, self.listwise = collection, reranker, listwise
        self.journal, self.cache = journal, cache
        self.identity = reranker.identity(listwise) | ({} if self.long is None else {"long": str(self.long)})
        self.notes: list[str] = []
        self.cached = 0
        self._progress, self._cancel = progress, cancel
        self._settings = settings_key(self.identity, __version__)
        self._digests = {name: digest_of(document) for name, document in collection.documents.items()}
        self.results = [self._result(query_id, tuple(found)) for query_id, found in collection.run.items()]
        self.total = sum(len(result.ids) for result in self.results)
        self.resumed = self.done = self._from_journal()
        self._open: QueryResult | None = None  # the query whose documents are being scored
        self._clock = self._saved = time.perf_counter()

    def score_pairs(self) -> None:
        """Every pair without a score through the model, as one stream: no thread waits at the end of a query."""
        places: list[list[int]] = [result.missing() for result in self.results]
        places = list(map(self._from_cache, self.results, places))
        self._tell()
        self._clock = self._saved = time.perf_counter()  # the model's time begins here
        with closing(self.reranker.stream(self._pairs(places))) as stream:  # type: ignore[type-var]
            for result, mine in zip(self.results, places, strict=True):
                self._open = result
                for place in mine:
                    result.put(place, next(stream))
                    self.done += 1
                    self._tell()
                    if time.perf_counter() - self._saved > _SAVE_EVERY_S:
                        self._save(result)
                if result.unsaved:
                    self._save(result)

    def rank_queries(self, together: int) -> None:
        """Every query without an order, `together` of them at once."""
        left = [result for result in self.results if result.order is None]
        self._tell()
        for start in range(0, len(left), max(1, together)):
            group = left[start : start + max(1, together)]
            before = self.done

            def heard(done: int, of: int, before: int = before, size: int = sum(len(r.ids) for r in group)) -> None:
                self.done = before + size * done // max(1, of)
                self._tell(check=False)  # the engine looks at `cancel` itself

            jobs = [
                (self.collection.queries[r.query_id], [self._document(r, p) for p in range(len(r.ids))]) for r in group
            ]
            found = self.reranker.rerank_many(
                jobs, together=together, listwise=self.listwise, progress=heard, cancel=self._cancel, long=self.long
            )
            for result, ranking in zip(group, found, strict=True):
                result.put_ranking(ranking)
                self._add(result, ranking.elapsed_s)
                if ranking.problems:
                    self.notes.append(f"query {result.query_id!r}: no whole order in the answer: {ranking.problems[0]}")
            self.done = before + sum(len(result.ids) for result in group)
            self._tell()

    def close(self) -> None:
        """Saves what an error or a cancel left unsaved."""
        if self._open is not None and self._open.unsaved:
            self._save(self._open)

    def _result(self, query_id: str, ids: tuple[str, ...]) -> QueryResult:
        digests = [self._digests[name] for name in ids]
        return QueryResult(
            query_id, ids, result_key(self._settings, query_id, self.collection.queries[query_id], ids, digests)
        )

    def _from_journal(self) -> int:
        """Takes what the journal has; gives how many pairs that was."""
        if self.journal is None:
            return 0
        wanted, foreign = {result.key: result for result in self.results}, 0
        for entry in self.journal.entries():
            if (result := wanted.get(entry["key"])) is not None:
                result.take(entry)
            else:
                foreign += 1
        if self.journal.cut_bytes:
            self.notes.append(f"{self.journal.path.name}: its last line was cut short and is scored again")
        if self.journal.damaged:
            self.notes.append(f"{self.journal.path.name}: {self.journal.damaged} damaged lines are scored again")
        if foreign:
            self.notes.append(
                f"{self.journal.path.name} also holds {foreign} results of another model, option or text: not used"
            )
        return self.total - sum(len(result.missing()) for result in self.results)

    def _from_cache(self, result: QueryResult, places: list[int]) -> list[int]:
        """Takes what the cache knows of `places`; gives the others."""
        if self.cache is None or not places:
            return places
        keys = self._keys(result, places)
        known = self.cache.find(keys)
        for place, key in zip(places, keys, strict=True):
            if key in known:
                result.put(place, known[key])
        left = [place for place, key in zip(places, keys, strict=True) if key not in known]
        self.cached += len(places) - len(left)
        self.done += len(places) - len(left)
        return left

    def _keys(self, result: QueryResult, places: Sequence[int]) -> list[bytes]:
        query = self.collection.queries[result.query_id]
        return [pair_key(self._settings, query, self._digests[result.ids[place]]) for place in places]

    def _pairs(self, places: Sequence[Sequence[int]]) -> Iterator[tuple[str, Document]]:
        for result, mine in zip(self.results, places, strict=True):
            query = self.collection.queries[result.query_id]
            for place in mine:
                yield query, self._document(result, place)

    def _document(self, result: QueryResult, place: int) -> Document:
        return self.collection.documents[result.ids[place]]

    def _save(self, result: QueryResult) -> None:
        """What is new of `result`, to the cache and the journal, with the time since the last saving."""
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        result.seconds += seconds
        if self.cache is not None:
            keys = self._keys(result, result.unsaved)
            self.cache.add((key, result.score(place)) for key, place in zip(keys, result.unsaved, strict=True))
        self._add(result, seconds)
        self._saved = now

    def _add(self, result: QueryResult, seconds: float) -> None:
        entry = result.entry(seconds)
        if self.journal is not None:
            self.journal.add(entry)

    def _tell(self, *, check: bool = True) -> None:
        if self._progress is not None:
            self._progress(self.done, self.total)
        if check and self._cancel is not None and self._cancel.is_set() and self.done < self.total:
            raise Cancelled(self.done, self.total)
