"""Reranks a run. A pointwise model reads all pairs as one stream; scores are written to the journal as they come."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing

from dearlite.documents import Document
from dearlite.errors import Cancelled, UsageError
from dearlite.offline.collection.collection import Collection
from dearlite.offline.run.cache import ScoreCache, pair_key
from dearlite.offline.run.journal import Journal, differences, digest_of, result_key, settings_key
from dearlite.offline.run.results import QueryScores, RerankedRun
from dearlite.options import Call
from dearlite.reranker import Reranker
from dearlite.version import __version__

_SAVE_EVERY_S = 5.0  # a kill loses at most this much work within one query


def rerank_collection(
    collection: Collection,
    reranker: Reranker,
    call: Call,
    *,
    journal: Journal | None = None,
    cache: ScoreCache | None = None,
) -> RerankedRun:
    """`collection` in the order of `reranker`. Scores that `journal` or `cache` holds are not computed again.

    `call` gives `listwise`, `long`, `batch_size`, `progress` and `cancel`. `progress(done, total)` counts pairs, those
    from the journal included. Setting `cancel` raises Cancelled; the journal then holds every score that was computed,
    as it does after any other error.
    """
    scorer = RunScorer(collection, reranker, call, journal, cache)
    with closing(scorer):
        if reranker.pointwise and scorer.long is None:
            scorer.score_pairs()
        else:
            scorer.rank_queries()
    return RerankedRun(
        collection,
        scorer.results,
        scorer.identity,
        resumed=scorer.resumed,
        cached=scorer.cached,
        notes=tuple(scorer.notes),
    )


class RunScorer:
    """The reranking of one run: its scores so far, and the journal and cache that keep them."""

    def __init__(
        self, collection: Collection, reranker: Reranker, call: Call, journal: Journal | None, cache: ScoreCache | None
    ) -> None:
        if cache is not None and not reranker.pointwise:
            raise UsageError(f"{reranker.model} is no pointwise model: a cache of scores goes with a pointwise one")
        self.long = None if call.long is None or call.long.checked().mode == "truncate" else call.long
        if cache is not None and self.long is not None:
            raise UsageError("a cache holds scores of whole pairs, and long documents are read in passages: drop one")
        self.collection, self.reranker, self.call = collection, reranker, call
        self.journal, self.cache = journal, cache
        self.identity = reranker.identity(call.listwise) | ({} if self.long is None else {"long": str(self.long)})
        self.notes: list[str] = []
        self.cached = 0
        self._settings = settings_key(self.identity, __version__)
        self._recorded: dict[str, str] | None = None  # the identity of the journal's latest entries
        self._digests = {name: digest_of(document) for name, document in collection.documents.items()}
        self.results = [self._query_scores(query_id, tuple(ids)) for query_id, ids in collection.run.items()]
        self.total = sum(len(scores.ids) for scores in self.results)
        self.resumed = self.done = self._restore()
        self._open: QueryScores | None = None  # the query whose documents are being scored
        self._clock = self._saved = time.perf_counter()

    def score_pairs(self) -> None:
        """Scores all pairs that have no score yet, as one stream: no thread idles at the end of a query."""
        missing: list[list[int]] = [scores.missing() for scores in self.results]
        missing = list(map(self._from_cache, self.results, missing))
        self._report()
        self._clock = self._saved = time.perf_counter()  # the model's time begins here
        with closing(self.reranker.stream(self._pairs(missing))) as stream:  # type: ignore[type-var]
            for scores, positions in zip(self.results, missing, strict=True):
                self._open = scores
                for position in positions:
                    scores.put(position, next(stream))
                    self.done += 1
                    self._report()
                    if time.perf_counter() - self._saved > _SAVE_EVERY_S:
                        self._save(scores)
                if scores.unsaved:
                    self._save(scores)

    def rank_queries(self) -> None:
        """Ranks all queries that have no order yet, `call.batch_size` at a time."""
        unranked = [scores for scores in self.results if scores.order is None]
        self._report()
        for start in range(0, len(unranked), self.call.batch_size):
            self._rank_group(unranked[start : start + self.call.batch_size])

    def close(self) -> None:
        """Saves the scores that an error or a cancellation left unsaved."""
        if self._open is not None and self._open.unsaved:
            self._save(self._open)

    def _rank_group(self, group: Sequence[QueryScores]) -> None:
        before, size = self.done, sum(len(scores.ids) for scores in group)

        def update(done: int, total: int) -> None:  # progress in this group, as progress in the run
            self.done = before + size * done // max(1, total)
            self._report(check=False)  # the model checks `cancel` itself

        jobs = [
            (
                self.collection.queries[scores.query_id],
                [self._document(scores, position) for position in range(len(scores.ids))],
            )
            for scores in group
        ]
        rankings = self.reranker.rerank_many(
            jobs,
            batch_size=self.call.batch_size,
            listwise=self.call.listwise,
            progress=update,
            cancel=self.call.cancel,
            long=self.long,
        )
        for scores, ranking in zip(group, rankings, strict=True):
            scores.put_ranking(ranking)
            self._add_to_journal(scores, ranking.elapsed_s)
            if ranking.problems:
                self.notes.append(f"query {scores.query_id!r}: no whole order in the answer: {ranking.problems[0]}")
        self.done = before + size
        self._report()

    def _query_scores(self, query_id: str, ids: tuple[str, ...]) -> QueryScores:
        digests = [self._digests[name] for name in ids]
        return QueryScores(
            query_id, ids, result_key(self._settings, query_id, self.collection.queries[query_id], ids, digests)
        )

    def _restore(self) -> int:
        """Restores the scores that the journal holds; returns the number of pairs that have one."""
        if self.journal is None:
            return 0
        by_key, foreign, damaged, of = {scores.key: scores for scores in self.results}, 0, 0, None
        for entry in self.journal.entries():
            identity, scores = entry.get("identity"), by_key.get(str(entry.get("key")))
            if isinstance(identity, dict):
                self._recorded = identity
            elif scores is not None:
                damaged += not scores.restore(entry)
            else:
                foreign, of = foreign + 1, self._recorded
        if self.journal.cut_bytes:
            self.notes.append(f"{self.journal.path.name}: its last line was cut short and is scored again")
        if damaged := damaged + self.journal.damaged:
            self.notes.append(f"{self.journal.path.name}: {damaged} damaged lines are scored again")
        if foreign:
            changed = "" if of is None else differences(of, self._named())
            other = f"another {changed}" if changed else "another query, text or depth"
            other = "another model, option or text" if of is None else other
            remedy = ", and their queries were scored again; to resume them, run with what they were made with"
            self.notes.append(
                f"{self.journal.path.name} also holds {foreign} results of {other}: not used{remedy if changed else ''}"
            )
        return self.total - sum(len(scores.missing()) for scores in self.results)

    def _from_cache(self, scores: QueryScores, positions: list[int]) -> list[int]:
        """Stores the cached scores of `positions`; returns the positions that the cache lacks."""
        if self.cache is None or not positions:
            return positions
        keys = self._keys(scores, positions)
        cached = self.cache.find(keys)
        for position, key in zip(positions, keys, strict=True):
            if key in cached:
                scores.put(position, cached[key])
        missing = [position for position, key in zip(positions, keys, strict=True) if key not in cached]
        self.cached += len(positions) - len(missing)
        self.done += len(positions) - len(missing)
        return missing

    def _keys(self, scores: QueryScores, positions: Sequence[int]) -> list[bytes]:
        query = self.collection.queries[scores.query_id]
        return [pair_key(self._settings, query, self._digests[scores.ids[position]]) for position in positions]

    def _pairs(self, positions: Sequence[Sequence[int]]) -> Iterator[tuple[str, Document]]:
        """Query and document of each pair; `positions` are those to score, for each query."""
        for scores, of_query in zip(self.results, positions, strict=True):
            query = self.collection.queries[scores.query_id]
            for position in of_query:
                yield query, self._document(scores, position)

    def _document(self, scores: QueryScores, position: int) -> Document:
        return self.collection.documents[scores.ids[position]]

    def _save(self, scores: QueryScores) -> None:
        """Writes the unsaved scores to the cache and the journal, with the time since the last save."""
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        scores.seconds += seconds
        if self.cache is not None:
            keys = self._keys(scores, scores.unsaved)
            self.cache.add((key, scores.score(position)) for key, position in zip(keys, scores.unsaved, strict=True))
        self._add_to_journal(scores, seconds)
        self._saved = now

    def _add_to_journal(self, scores: QueryScores, seconds: float) -> None:
        entry = scores.entry(seconds)
        if self.journal is None:
            return
        if self._recorded != self._named():
            self._recorded = self._named()
            self.journal.add({"key": self._settings.hex(), "identity": self._recorded})
        self.journal.add(entry)

    def _named(self) -> dict[str, str]:
        """The identity of the results, as the journal records it for messages; the keys of its entries decide."""
        return {"dearlite": __version__, **self.identity}

    def _report(self, *, check: bool = True) -> None:
        """Calls `progress`. Raises Cancelled if `check` is set, `cancel` is set and pairs remain."""
        if self.call.progress is not None:
            self.call.progress(self.done, self.total)
        cancel = self.call.cancel
        if check and cancel is not None and cancel.is_set() and self.done < self.total:
            raise Cancelled(self.done, self.total)
