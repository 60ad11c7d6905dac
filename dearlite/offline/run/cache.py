"""Scores of (query, document) pairs in one SQLite file, shared by runs: a pair that was scored once is looked up.

A key is a hash of the model, its prompt, the query and the document's text; ids do not matter, so another collection
with the same passage finds it too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

from dearlite.errors import DearliteError, UsageError
from dearlite.ranking import PairScore

_APPLICATION = 0x64656172  # "dear", in the file's header
_ASK = 500  # keys in one question: SQLite takes at least 999


def pair_key(settings: bytes, query: str, document: bytes) -> bytes:
    """16 bytes for one pair; `document` is its `digest_of`."""
    return blake2b(settings + document + query.encode(), digest_size=16).digest()


class ScoreCache:
    """An open cache. Several processes may use one file. A context manager."""

    def __init__(self, path: Path) -> None:
        """Opens or begins the cache at `path`. Raises UsageError where it is something else."""
        self.path = path
        self.hits = 0
        try:
            self._base = sqlite3.connect(path, timeout=60, isolation_level=None)
            (application,) = self._base.execute("PRAGMA application_id").fetchone()
            (tables,) = self._base.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if tables and application != _APPLICATION:
                raise UsageError(f"{path} is a database of another program: name another --cache")
            self._base.execute(f"PRAGMA application_id={_APPLICATION}")
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=NORMAL")
            self._base.execute(
                "CREATE TABLE IF NOT EXISTS scores "
                "(key BLOB PRIMARY KEY, score REAL NOT NULL, used INTEGER NOT NULL, total INTEGER NOT NULL) "
                "WITHOUT ROWID"
            )
        except sqlite3.Error as err:
            raise UsageError(f"cannot use {path} as a cache ({err}): move it away, or name another --cache") from None

    def __enter__(self) -> ScoreCache:
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()

    def find(self, keys: Sequence[bytes]) -> dict[bytes, PairScore]:
        """What is known of `keys`."""
        found: dict[bytes, PairScore] = {}
        try:
            for start in range(0, len(keys), _ASK):
                some = keys[start : start + _ASK]
                marks = ",".join("?" * len(some))
                rows = self._base.execute(f"SELECT key, score, used, total FROM scores WHERE key IN ({marks})", some)
                found |= {key: PairScore(score, used, total) for key, score, used, total in rows}
        except sqlite3.Error as err:
            raise self._broken(err) from None
        self.hits += len(found)
        return found

    def add(self, scores: Iterable[tuple[bytes, PairScore]]) -> None:
        """Adds them all or none."""
        rows = [(key, *score) for key, score in scores]
        try:
            self._base.execute("BEGIN IMMEDIATE")
            self._base.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)", rows)
            self._base.execute("COMMIT")
        except sqlite3.Error as err:
            raise self._broken(err) from None

    def _broken(self, err: sqlite3.Error) -> DearliteError:
        return DearliteError(f"the cache {self.path} cannot be used ({err}): make room, or go on without --cache")
