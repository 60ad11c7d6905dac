"""Cache of pair scores in one SQLite file. Runs share it: a pair that one run scored is not scored again by another.

A key is a hash of the model, its prompt, the query and the document's text. Ids are not part of it, so that the same
passage in another collection is found too.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

from dearlite.errors import DearliteError, UsageError
from dearlite.ranking import PairScore

_APPLICATION_ID = 0x64656172  # "dear", in the file's header
# Of a damaged file: sqlite3 decodes its names and the words of its own errors, which hold parts of the file.
_DAMAGE = (sqlite3.Error, UnicodeDecodeError)
_KEYS_PER_SELECT = 500  # every SQLite allows at least 999 parameters


def pair_key(settings: bytes, query: str, document: bytes) -> bytes:
    """The key of one pair, 16 bytes. `document` is the document's `digest_of`."""
    return blake2b(settings + document + query.encode(), digest_size=16).digest()


class ScoreCache:
    """An open cache, a context manager. Several processes may use one file."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the cache at `path`. Raises UsageError if the file is something else."""
        self.path = path
        self.hits = 0
        try:
            self._database = sqlite3.connect(path, timeout=60, isolation_level=None)
            (application,) = self._database.execute("PRAGMA application_id").fetchone()
            (tables,) = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if tables and application != _APPLICATION_ID:
                raise UsageError(f"{path} is a database of another program: name another --cache")
            self._database.execute(f"PRAGMA application_id={_APPLICATION_ID}")
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS scores "
                "(key BLOB PRIMARY KEY, score REAL NOT NULL, used INTEGER NOT NULL, total INTEGER NOT NULL) "
                "WITHOUT ROWID"
            )
        except _DAMAGE as err:
            raise UsageError(f"cannot use {path} as a cache ({err}): move it away, or name another --cache") from None

    def __enter__(self) -> ScoreCache:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def find(self, keys: Sequence[bytes]) -> dict[bytes, PairScore]:
        """The cached scores of `keys`; a key that is not cached is absent. Raises DearliteError if one is no score."""
        scores: dict[bytes, PairScore] = {}
        try:
            for start in range(0, len(keys), _KEYS_PER_SELECT):
                part = keys[start : start + _KEYS_PER_SELECT]
                marks = ",".join("?" * len(part))
                rows = self._database.execute(
                    f"SELECT key, score, used, total FROM scores WHERE key IN ({marks})", part
                )
                for key, *values in rows:
                    if not _is_score(*values):
                        raise DearliteError(
                            f"the cache {self.path} holds {str(values)[:60]}, which is no score: move the file away, "
                            "or go on without --cache"
                        )
                    scores[key] = PairScore(*values)
        except _DAMAGE as err:
            raise self._unusable(err) from None
        self.hits += len(scores)
        return scores

    def add(self, scores: Iterable[tuple[bytes, PairScore]]) -> None:
        """Adds all of `scores` or, after an error, none."""
        rows = [(key, *score) for key, score in scores]
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)", rows)
            self._database.execute("COMMIT")
        except _DAMAGE as err:
            raise self._unusable(err) from None

    def _unusable(self, err: Exception) -> DearliteError:
        return DearliteError(f"the cache {self.path} cannot be used ({err}): make room, or go on without --cache")


def _is_score(score: object, used: object, total: object) -> bool:
    """True for a finite number, and numbers of tokens. Columns of SQLite hold values of any type."""
    if type(score) is not float or type(used) is not int or type(total) is not int:
        return False
    return math.isfinite(score) and 0 <= used <= total
