"""Drafts: a new file is written under a name of its own and takes the output's place when it is complete.

The draft of DIR/NAME is DIR/.NAME.(16 hex digits).draft. Its writer holds a lock on it, so that the next writer of the
same output can tell, and remove, what a killed one left.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from itertools import islice
from pathlib import Path

from dearlite.errors import DearliteError, UsageError
from dearlite.files.locks import lock_alone
from dearlite.files.targets import Target, find_target, reason_of

_MOST_NAME_BYTES = 220  # a name may have 255; the draft adds 24
_MOST_SCANNED = 5000  # entries of a folder: a cluster writes a file per block, and each looks for leftovers
_TOKEN = r"[0-9a-f]{16}"
_OWN: set[tuple[int, Path]] = set()  # (process, draft) of the drafts that are open; a forked process inherits the set


def check_writable(target: Target) -> None:
    """Raises UsageError if `target` cannot be written: tries its folder with an empty file. A device is only asked."""
    if not target.is_file:
        if target.status is not None and stat.S_ISSOCK(target.status.st_mode) and target.descriptor is None:
            raise UsageError(f"cannot write {target.name}: it is a socket; name a file, a pipe or a device")
        if target.descriptor is None and not os.access(target.path, os.W_OK):
            raise UsageError(f"cannot write {target.name}: you may not write to it; name a file")
        return
    if target.status is not None and not (target.status.st_mode & 0o222 and os.access(target.path, os.W_OK)):
        raise UsageError(f"cannot write {target.name}: the file is read-only; chmod u+w it, or name another file")
    try:
        remove_leftovers(target.path)  # a journal has no draft, so its writer finds none of a killed check
        path = _new_path(target.path)
        _OWN.add((os.getpid(), path))
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        path.unlink(missing_ok=True)  # another writer of this output takes it for a leftover
        _OWN.discard((os.getpid(), path))
    except OSError as err:
        raise UsageError(f"cannot write {target.name}: {reason_of(err)} (in {target.path.parent})") from None


class Draft:
    """The draft of one output, a context manager: `commit` puts it in the output's place, `close` removes it.

    `path` is an empty file, or with `folder` an empty folder for several files, of which one is committed. It lies in
    the output's folder, and in the system's temporary folder if the output is a device or a pipe. The file that was
    there keeps its mode and, where the process may set it, its owner.
    """

    def __init__(self, output: str | Path, *, folder: bool = False) -> None:
        """Raises DearliteError if the draft cannot be made."""
        self._target = find_target(output)
        self._lock = -1
        try:
            if not self._target.is_file:
                self.path = Path(tempfile.mkdtemp() if folder else self._temporary_file())
            else:
                remove_leftovers(self._target.path)
                self.path = self._made_beside(folder)
        except OSError as err:
            raise DearliteError(f"cannot write {output}: {reason_of(err)}") from None

    def __enter__(self) -> Draft:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def commit(self, file: Path | None = None) -> None:
        """Puts the draft, or `file` of its folder, in the output's place. Raises OSError, and leaves the old file."""
        source = self.path if file is None else file
        if not self._target.is_file:
            self._copy(source)
            return
        sync(source)
        _take_over(source, self._target.status)
        if sys.platform == "win32":
            self._unlock()  # an open file cannot be renamed there
        os.replace(source, self._target.path)

    def close(self) -> None:
        """Removes the draft, if it is still there, and its lock."""
        self._unlock()
        with suppress(OSError):
            if os.path.isdir(self.path):
                shutil.rmtree(self.path, ignore_errors=True)
            else:
                self.path.unlink(missing_ok=True)
        _OWN.discard((os.getpid(), self.path))

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _temporary_file(self) -> str:
        handle, name = tempfile.mkstemp()
        os.close(handle)
        return name

    def _made_beside(self, folder: bool) -> Path:
        """The locked draft. One that another process took for a leftover before it was locked is made again."""
        secret = self._target.status is not None and not self._target.status.st_mode & 0o004
        while True:
            path = _new_path(self._target.path)
            _OWN.add((os.getpid(), path))
            if folder:
                path.mkdir(mode=0o700)
                if sys.platform == "win32":
                    return path
                try:
                    self._lock = os.open(path, os.O_RDONLY)
                except FileNotFoundError:
                    _OWN.discard((os.getpid(), path))
                    continue
            else:
                self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o666)
                if sys.platform == "win32":  # an open file cannot be removed there: that is lock enough
                    return path
            if self._is_locked():
                return path
            self._unlock()
            _OWN.discard((os.getpid(), path))

    def _is_locked(self) -> bool:
        """True if the draft is this process's: locks it, unless another process has removed it or is about to."""
        try:
            lock_alone(self._lock)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks: leftovers stay
            pass
        return os.fstat(self._lock).st_nlink > 0

    def _copy(self, source: Path) -> None:
        """Writes the draft to the device, the pipe or the descriptor."""
        if self._target.descriptor is None:
            handle = os.open(self._target.path, os.O_WRONLY | getattr(os, "O_NOCTTY", 0))
        else:
            if self._target.descriptor == 1 and sys.stdout is not None:
                sys.stdout.flush()
            handle = os.dup(self._target.descriptor)
        with open(source, "rb") as draft, open(handle, "wb") as out:
            shutil.copyfileobj(draft, out, 2**20)


def remove_own() -> None:
    """Removes the drafts of this process that are still there: a signal may come just after one was made."""
    for process, path in list(_OWN):
        if process == os.getpid():
            with suppress(OSError):
                shutil.rmtree(path) if os.path.isdir(path) else path.unlink()


def workplace(output: str | Path) -> Path:
    """The folder in which the draft of `output` lies."""
    target = find_target(output)
    return target.path.parent if target.is_file else Path(tempfile.gettempdir())


def _stem(name: str) -> str:
    """The name of the output in the name of its draft; a hash for one that leaves no room."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= _MOST_NAME_BYTES else hashlib.sha256(encoded).hexdigest()


def _new_path(path: Path) -> Path:
    return path.with_name(f".{_stem(path.name)}.{secrets.token_hex(8)}.draft")


def remove_leftovers(path: Path) -> None:
    """Removes the drafts of `path` whose writers have ended, in a folder of usual size."""
    pattern = re.compile(re.escape(f".{_stem(path.name)}.") + _TOKEN + re.escape(".draft"))
    with suppress(OSError):
        for entry in list(islice(os.scandir(path.parent), _MOST_SCANNED)):
            if pattern.fullmatch(entry.name):
                _remove_if_left(entry)


def _remove_if_left(entry: os.DirEntry[str]) -> None:
    with suppress(OSError):  # its writer is alive, or it is another user's
        folder = entry.is_dir(follow_symlinks=False)
        if sys.platform == "win32":
            if not folder:
                os.unlink(entry.path)
            return
        handle = os.open(entry.path, os.O_RDONLY if folder else os.O_RDWR)
        try:
            lock_alone(handle)
            if folder:
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        finally:
            os.close(handle)


def _take_over(path: Path, status: os.stat_result | None) -> None:
    """Gives `path` the mode of the file that it replaces and, as far as this process may, its owner and group."""
    if status is None:
        return
    if hasattr(os, "chown"):
        own = path.stat()
        if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
            with suppress(OSError):
                os.chown(path, -1, status.st_gid)
            with suppress(OSError):
                os.chown(path, status.st_uid, -1)
    with suppress(OSError):
        path.chmod(stat.S_IMODE(status.st_mode))


def sync(path: Path) -> None:
    """Waits until the file is on the disk: a full disk or a quota may be noticed only then."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
