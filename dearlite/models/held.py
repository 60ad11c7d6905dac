"""A model file that is held open while its weights are mapped, and that notices when it is written to.

The system reads a mapped file when its pages are used. A file that is replaced by renaming, as dearlite, package
managers and huggingface_hub do, stays for its readers what it was. One that is written to in place gives other weights,
and one that is cut short ends the process (SIGBUS) when a missing page is read. So every call of the engine is preceded
and followed by a look at the file's size and time. Nothing protects a call in whose course the file is cut short.
Windows refuses to write to a mapped file.
"""

from __future__ import annotations

import os
import sys
import weakref
from pathlib import Path

from dearlite.errors import ModelFileError

State = tuple[int, int, int, int]  # device, inode, size, time of the last change of its content


def state_of(status: os.stat_result) -> State:
    """Equal for two looks at a file in which nothing was written."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class HeldFile:
    """The open file at `path`, whose content must stay what it is."""

    def __init__(self, path: Path, state: State | None = None) -> None:
        """Raises ModelFileError if it is no longer in the `state` of an earlier look, and OSError."""
        self._path = path
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.close = weakref.finalize(self, os.close, self.descriptor)
        self._state = state or state_of(os.fstat(self.descriptor))
        self.check()

    def check(self) -> None:
        """Raises ModelFileError if the file was written to."""
        if state_of(os.fstat(self.descriptor)) != self._state:
            raise ModelFileError(
                f"{self._path} was changed while it was in use, and its weights are read from it: load it again, and "
                "replace a model file by renaming another one to it"
            )

    def check_path(self) -> None:
        """Raises ModelFileError as `check`, and if another file has the name now, which a library may have opened."""
        self.check()
        if state_of(os.stat(self._path)) != self._state:
            raise ModelFileError(f"{self._path} was replaced while it was loaded: load it again")

    def read(self, offset: int, size: int) -> bytes:
        """The bytes of a part of the file."""
        blocks = []
        while size > 0 and (block := os.pread(self.descriptor, min(size, 2**30), offset)):
            blocks.append(block)
            offset, size = offset + len(block), size - len(block)
        return b"".join(blocks)


def hold(path: Path, state: State | None = None) -> HeldFile | None:
    """The held file; None on Windows, where an open file cannot be replaced, and a mapped one not be changed."""
    return None if sys.platform == "win32" else HeldFile(path, state)
