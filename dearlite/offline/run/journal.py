"""The journal: a file of results, written as they are computed, so that a kill loses at most a few seconds of work.

One entry per line: CRC-32 of the rest in eight hex digits, a space, JSON, a newline. Lines are only appended. A last
line that a kill or a full disk cut short is removed when the file is opened again; a line whose CRC does not match is
ignored. Each entry has a key (`result_key`), a hash of the model, its options and all texts, so that results of another
model, option or text are never used.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from dearlite.documents import Document
from dearlite.errors import DearliteError, DiskFull, JournalInUse, UsageError
from dearlite.files.locks import lock_alone
from dearlite.files.targets import reason_of

_HEADER = {"dearlite": "journal", "schema": 1}
_BINARY = getattr(os, "O_BINARY", 0)  # Windows: os.write would turn each line feed into two characters
_SYNC_EVERY_S = 10.0  # for a power failure; after a kill the operating system still writes its cache


def digest_of(document: Document) -> bytes:
    """A hash of a document's title and text, 16 bytes."""
    return blake2b(f"{len(document.title)} {document.title}{document.text}".encode(), digest_size=16).digest()


def settings_key(identity: Mapping[str, str], version: str) -> bytes:
    """A hash of a Reranker's `identity` and dearlite's version, 16 bytes: all that a score depends on but the texts."""
    text = json.dumps([version, *sorted(identity.items())])
    return blake2b(text.encode(), digest_size=16).digest()


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The names whose values differ between two identities, with the values, as "onnxruntime (1.31, here 1.32)"."""
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(f"{name} ({_short(before.get(name))}, here {_short(now.get(name))})" for name in changed)


def _short(value: str | None) -> str:
    """A value in a message: the beginning of a hash."""
    return "none" if value is None else re.sub(r"\b([0-9a-f]{12})[0-9a-f]{4,}\b", r"\1", str(value))


def result_key(settings: bytes, query_id: str, query: str, ids: Sequence[str], digests: Sequence[bytes]) -> str:
    """The key of one query's result: a hash of settings, query, and the documents' ids and texts, in their order."""
    hashed = blake2b(settings, digest_size=16)
    hashed.update(json.dumps([query_id, query, *ids]).encode())
    hashed.update(b"".join(digests))
    return hashed.hexdigest()


class Journal:
    """An open journal, a context manager. It is locked: no other process can write it."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the journal at `path`. Raises JournalInUse, or UsageError if the file is something else."""
        self.path = path
        self.cut_bytes = 0  # size of an incomplete last line, which was removed
        self.damaged = 0  # lines whose CRC does not match
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _BINARY, 0o666)
        except OSError as err:
            raise DearliteError(f"cannot write the journal {path}: {reason_of(err)}") from None
        try:
            self._lock()
            self._synced = time.monotonic()
            self._size = self._repair()
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Flushes the file to the disk and releases the lock."""
        if self._file < 0:
            return
        try:
            os.fsync(self._file)
        except OSError as err:
            raise DearliteError(f"cannot write the journal {self.path}: {reason_of(err)}") from None
        finally:
            os.close(self._file)
            self._file = -1

    def entries(self) -> Iterator[dict[str, Any]]:
        """All undamaged entries, oldest first."""
        self.damaged = 0
        for number, line in enumerate(self._lines()):
            entry = _parse(line)
            if entry is None:
                self.damaged += 1
            elif number:
                yield entry

    def add(self, entry: Mapping[str, Any]) -> None:
        """Appends one entry; an error leaves no part of it. Raises DiskFull."""
        line = _line(entry)
        try:
            written = os.write(self._file, line)
            if written < len(line):  # a partial write: a second one raises the reason
                os.write(self._file, line[written:])
            if time.monotonic() - self._synced > _SYNC_EVERY_S:
                os.fsync(self._file)
                self._synced = time.monotonic()
        except OSError as err:
            os.ftruncate(self._file, self._size)
            if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise DiskFull(
                    f"no disk space left for {self.path}: its entries are complete; "
                    "free space and run the same command again"
                ) from None
            raise DearliteError(f"cannot write {self.path}: {err.strerror}") from None
        self._size += len(line)

    def _lock(self) -> None:
        try:
            lock_alone(self._file)
        except OSError:
            raise JournalInUse(
                f"{self.path} is being written by another dearlite: wait until that ends, or write to another -o"
            ) from None

    def _repair(self) -> int:
        """The size in bytes, after an incomplete last line is removed and the header is written."""
        status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{self.path} is not an ordinary file, which a journal must be: name another --journal")
        size = status.st_size
        if size:
            first = next(self._lines(), b"")
            header = _parse(first) or {}
            if header.get("dearlite") == _HEADER["dearlite"] and header != _HEADER:
                raise UsageError(
                    f"{self.path} is a journal of schema {header.get('schema')}, and this dearlite writes schema "
                    f"{_HEADER['schema']}: resume it with the dearlite that made it, or name another --journal"
                )
            if not _line(_HEADER).startswith(first) and header != _HEADER:
                raise UsageError(
                    f"{self.path} is not a journal of this dearlite: move it away, or name another --journal"
                )
        complete = sum(len(line) for line in self._lines() if line.endswith(b"\n"))
        self.cut_bytes = size - complete
        if self.cut_bytes:
            os.ftruncate(self._file, complete)
        self._size = complete
        if not complete:
            self.add(_HEADER)
        return self._size

    def _lines(self) -> Iterator[bytes]:
        with open(os.dup(self._file), "rb") as stream:
            stream.seek(0)
            yield from stream


def _line(entry: Mapping[str, Any]) -> bytes:
    text = json.dumps(entry, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _parse(line: bytes) -> dict[str, Any] | None:
    """The entry of a line; None for a damaged line."""
    crc, _, text = line.rstrip(b"\n").partition(b" ")
    try:
        if int(crc, 16) != zlib.crc32(text):
            return None
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None
