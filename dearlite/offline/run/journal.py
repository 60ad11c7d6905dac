"""The journal: what has been scored, on disk before it counts as done, so that no kill loses more than a few seconds.

One line an entry: CRC-32 of the rest in eight hex digits, a space, JSON, a newline. Lines are only ever added. A line
that a kill or a full disk cut short is taken off when the file is opened next; a damaged one is not believed. Each
entry carries the key of what it is a result of (`result_key`): those of another model, option or text are never taken.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from dearlite.documents import Document
from dearlite.errors import DearliteError, DiskFull, JournalInUse, UsageError

_HEAD = {"dearlite": "journal", "schema": 1}
_SYNC_EVERY_S = 10.0  # against a power cut; against a kill the system's own cache is enough


def lock_alone(file: int) -> None:
    """Holds an open file against other processes until it is closed. Raises OSError where another holds it."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def digest_of(document: Document) -> bytes:
    """16 bytes that stand for a document's title and text."""
    return blake2b(f"{len(document.title)} {document.title}{document.text}".encode(), digest_size=16).digest()


def settings_key(identity: Mapping[str, str], version: str) -> bytes:
    """16 bytes for all that a score depends on besides its texts: a Reranker's `identity` and dearlite's version."""
    text = json.dumps([version, *sorted(identity.items())])
    return blake2b(text.encode(), digest_size=16).digest()


def result_key(settings: bytes, query_id: str, query: str, ids: Sequence[str], digests: Sequence[bytes]) -> str:
    """The key of one query's result: settings, query, and the documents with their texts, in their order."""
    hashed = blake2b(settings, digest_size=16)
    hashed.update(json.dumps([query_id, query, *ids]).encode())
    hashed.update(b"".join(digests))
    return hashed.hexdigest()


class Journal:
    """An open journal, which no other process may write meanwhile. A context manager."""

    def __init__(self, path: Path) -> None:
        """Opens or begins the journal at `path`. Raises JournalInUse, and UsageError where `path` is something else."""
        self.path = path
        self.cut_bytes = 0  # what a kill had left of a last line
        self.damaged = 0  # lines whose CRC does not fit
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as err:
            raise DearliteError(f"cannot write the journal {path}: {err.strerror}") from None
        try:
            self._lock()
            self._synced = time.monotonic()
            self._size = self._mend()
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Puts everything on the disk itself and lets other processes in."""
        if self._file >= 0:
            os.fsync(self._file)
            os.close(self._file)
            self._file = -1

    def entries(self) -> Iterator[dict[str, Any]]:
        """Every entry that is whole, oldest first."""
        self.damaged = 0
        for number, line in enumerate(self._lines()):
            entry = _parse(line)
            if entry is None:
                self.damaged += 1
            elif number:
                yield entry

    def add(self, entry: Mapping[str, Any]) -> None:
        """Adds one entry, wholly or not at all. Raises DiskFull."""
        line = _line(entry)
        try:
            written = os.write(self._file, line)
            if written < len(line):  # the disk took a part of it: ask again for the reason
                os.write(self._file, line[written:])
            if time.monotonic() - self._synced > _SYNC_EVERY_S:
                os.fsync(self._file)
                self._synced = time.monotonic()
        except OSError as err:
            os.ftruncate(self._file, self._size)
            if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise DiskFull(
                    f"no room left for {self.path}: what is in it is whole; make room and run the same command again"
                ) from None
            raise DearliteError(f"cannot write {self.path}: {err.strerror}") from None
        self._size += len(line)

    def _lock(self) -> None:
        try:
            lock_alone(self._file)
        except OSError:
            raise JournalInUse(
                f"{self.path} is being written by another dearlite: wait until it ends, or write to another -o"
            ) from None

    def _mend(self) -> int:
        """The size in bytes, after a line that was cut short is off and the head is there."""
        status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{self.path} is no ordinary file, which a journal must be: name another --journal")
        size = status.st_size
        if size:
            first = next(self._lines(), b"")
            if not _line(_HEAD).startswith(first) and _parse(first) != _HEAD:
                raise UsageError(f"{self.path} is no journal of this dearlite: move it away, or name another --journal")
        whole = 0
        for line in self._lines():
            whole += len(line) if line.endswith(b"\n") else 0
        self.cut_bytes = size - whole
        if self.cut_bytes:
            os.ftruncate(self._file, whole)
        self._size = whole
        if not whole:
            self.add(_HEAD)
        return self._size

    def _lines(self) -> Iterator[bytes]:
        with open(os.dup(self._file), "rb") as stream:
            stream.seek(0)
            yield from stream


def _line(entry: Mapping[str, Any]) -> bytes:
    text = json.dumps(entry, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _parse(line: bytes) -> dict[str, Any] | None:
    """The entry of a line, None for one that is not as it was written."""
    crc, _, text = line.rstrip(b"\n").partition(b" ")
    try:
        if int(crc, 16) != zlib.crc32(text):
            return None
        entry = json.loads(text)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
