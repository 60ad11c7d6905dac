"""Names of outputs: the place behind a name, and the checks of all outputs of a call before its work starts.

A name may lead through links to a file, which is replaced, or to a device, a pipe or an open descriptor (/dev/stdout,
/dev/fd/3), which is written to and never replaced.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from dearlite.errors import UsageError

_MOST_LINKS = 40  # Linux' own limit
_REMEDIES = {
    errno.ENAMETOOLONG: "shorten it",
    errno.ELOOP: "its links lead in a circle; name the file itself",
    errno.ENOSPC: "make room, or name a file on another disk",
    errno.EDQUOT: "make room, or name a file on another disk",
    errno.EFBIG: "the process may write no larger file (ulimit -f)",
}

# Windows: access denied, sharing violation, locked region, mapped section
_OPEN_ELSEWHERE = (5, 32, 33, 1224)

Name = str | Path


@dataclass(frozen=True, slots=True)
class Target:
    """The place that an output is written to."""

    name: str  # as the caller gave it
    path: Path  # behind all links
    status: os.stat_result | None  # None: nothing is there yet
    descriptor: int | None = None  # the open descriptor of this process that the name stands for

    @property
    def is_file(self) -> bool:
        """True for a regular file, and for a name where nothing is yet: a complete draft replaces it."""
        return self.descriptor is None and (self.status is None or stat.S_ISREG(self.status.st_mode))


def reason_of(err: OSError) -> str:
    """The reason of a failed write, with the remedy where there is one."""
    reason, remedy = err.strerror or str(err), _REMEDIES.get(err.errno or 0)
    if getattr(err, "winerror", None) in _OPEN_ELSEWHERE:
        remedy = "a program has the file open (a loaded model, a spreadsheet); close it"
    return f"{reason}: {remedy}" if remedy else reason


def find_target(name: Name) -> Target:
    """The place behind `name`. Raises UsageError for a name that leads nowhere, and for a folder."""
    text = str(name)
    if not text:
        raise UsageError("the name of an output is empty: name a file")
    try:
        path = _followed(Path(text))
        descriptor = _descriptor(path)
        status = os.stat(path) if descriptor is None else _status_of(descriptor)
    except FileNotFoundError:
        _check_folder(text, path.parent)
        status = None
    except (OSError, ValueError) as err:  # ValueError: a null character in the name
        if isinstance(err, NotADirectoryError):
            _check_folder(text, path.parent)
        raise UsageError(f"cannot write {text}: {reason_of(err) if isinstance(err, OSError) else err}") from None
    if text.endswith(os.sep) or (status is not None and stat.S_ISDIR(status.st_mode)):
        raise UsageError(f"cannot write {text}: it is a folder; name a file in it")
    return Target(text, path, status, descriptor)


def _followed(path: Path) -> Path:
    """The path behind all links; a link to an open descriptor of this process is not followed."""
    if os.name == "nt" and path.name.upper() in ("NUL", "CON"):  # devices in every folder
        return Path(path.name)
    for _ in range(_MOST_LINKS):
        path = Path(os.path.realpath(path.parent)) / path.name
        if _descriptor(path) is not None or not os.path.islink(path):
            return path
        path = path.parent / os.readlink(path)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _descriptor(path: Path) -> int | None:
    """The descriptor of this process that an absolute path without links in its folder stands for."""
    own = rf"/proc/{os.getpid()}(/task/\d+)?/fd|/dev/fd"
    return int(path.name) if path.name.isdecimal() and re.fullmatch(own, path.parent.as_posix()) else None


def _status_of(descriptor: int) -> os.stat_result:
    status = os.fstat(descriptor)
    if os.name == "posix":
        import fcntl

        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "it is closed, or open for reading only")
    return status


def _check_folder(name: str, folder: Path) -> None:
    if os.path.isdir(folder):
        return
    above = next(parent for parent in (folder, *folder.parents) if os.path.exists(parent))
    if not os.path.isdir(above):
        raise UsageError(f"cannot write {name}: {above} is a file, not a folder")
    shown = Path(name).parent if not Path(name).is_symlink() else folder
    raise UsageError(f"cannot write {name}: the folder {shown} does not exist; make it first")


def leads_to_stdout(name: Name | None) -> bool:
    """True for "-" and for a name of this process's standard output."""
    return name is not None and (str(name) == "-" or find_target(name).descriptor == 1)


def ending_of(name: Name, known: Collection[str], *, remedy: str = "", needed: bool = False) -> str:
    """The ending of an output's name in lower case, without the dot and without .gz; "" for none.

    Raises UsageError, which lists the `known` endings, for another one. If an ending is `needed`, as of a model file,
    none is one too, and .gz is not taken off. A device or a pipe may have any name.
    """
    base = Path(name).name.lower()
    base = base if needed else base.removesuffix(".gz")
    ending = Path(base).suffix.removeprefix(".")
    if ending in known or (not ending and not needed) or str(name) == "-":
        return ending
    if not find_target(name).is_file:
        return ""
    listed = ", ".join(f".{item}" for item in known)
    problem = f"no format of this output has the ending .{ending}" if ending else "its ending names no format"
    raise UsageError(f"cannot write {name}: {problem} (known: {listed}{remedy})")
