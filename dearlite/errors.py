"""Every error that a user can meet. Each message names the thing, the reason and the remedy, on one line.

DearliteError            exit 1: something failed
├── UsageError           exit 2: the call is wrong (also a ValueError)
│   ├── UnknownModel     no model has this name
│   ├── BudgetTooShort   the budget ended before the first documents were read
│   └── JournalInUse     another process writes this journal
├── InvalidInput         a query, document, run or judgement that cannot be read or ranked (also a ValueError)
├── ModelFileError       a model file that is damaged, foreign or too new; BundleError is its former name
├── CheckpointError      a folder to export from that is incomplete, damaged or of an unsupported kind
├── FetchError           a repository that could not be downloaded whole
├── DeviceUnavailable    the requested device cannot be used
├── MissingExtra         an optional package is not installed (also an ImportError)
├── LibraryNotLoaded     a native library does not load on this system (also an ImportError)
├── OutOfMemory          memory ran out with a single document in progress
├── DiskFull             a file could not be written; everything written before is whole
├── ScoringError         the model returned NaN or an infinite score
├── EngineError          a library that runs the model failed: ONNX Runtime, llama.cpp or tokenizers
└── Cancelled            the caller's event was set

A DearliteWarning is no error: the call goes on, and the warning says what it changed.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from importlib import import_module
from types import ModuleType
from typing import Any
from unicodedata import category

from dearlite.installing import pip, pip_install

_PACKAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")


def printable(text: str) -> str:
    """`text` on one line, with an escape for each character that a terminal obeys or does not show.

    Names of files and parts of texts stand in messages: a line end in them, or an escape sequence, must not.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or category(char) == "Zs" else ascii(char)[1:-1] for char in text)


class DearliteError(Exception):
    """Base of all errors meant for users, on one line; `exit_code` is the exit status of the command line."""

    exit_code = 1

    def __init__(self, *args: object) -> None:
        super().__init__(*(printable(arg) if isinstance(arg, str) else arg for arg in args))


class UsageError(DearliteError, ValueError):
    """An option, name or path of the call is wrong."""

    exit_code = 2


class BudgetTooShort(UsageError):
    """The budget of a call ended before the first documents were read. They take `batch_s` seconds, if known."""

    def __init__(self, message: str, *, batch_s: float | None = None) -> None:
        super().__init__(message)
        self.batch_s = batch_s


class UnknownModel(UsageError):
    """No model has this name, and no file does either."""


class JournalInUse(UsageError):
    """Another process writes this journal."""


class InvalidInput(DearliteError, ValueError):
    """A query, document, run or judgement that cannot be read or ranked."""


class ModelFileError(DearliteError):
    """A model file that is truncated, edited, foreign or of a later schema."""


BundleError = ModelFileError  # its former name


class CheckpointError(DearliteError):
    """A model or adapter folder that is incomplete, damaged or of an unsupported kind."""


class FetchError(DearliteError):
    """A repository that could not be downloaded whole."""


class DeviceUnavailable(DearliteError):
    """The device that was requested by name cannot be used."""


class MissingExtra(DearliteError, ImportError):
    """A package of an optional extra is not installed."""


class LibraryNotLoaded(DearliteError, ImportError):
    """An installed package whose native library does not load: a part of the system is missing, or is another one."""


class OutOfMemory(DearliteError):
    """Memory ran out with a single document in progress."""


class DiskFull(DearliteError):
    """A file could not be written; everything that the journal holds is whole."""


class ScoringError(DearliteError):
    """The model returned NaN or an infinite score."""


class EngineError(DearliteError):
    """A library that runs the model failed: ONNX Runtime, llama.cpp or tokenizers.

    `document` names what it was reading, empty if that is not known.
    """

    position: int | None = None  # of the row that failed, where several were read together

    def __init__(self, reason: str, *, model: str = "", document: str = "") -> None:
        what = f"{model} cannot read {document}: " if document else ""
        remedy = (
            "leave it out, or export the model again if all fail" if document else "export or fetch the model again"
        )
        super().__init__(f"{what}{reason}: {remedy}")
        self.reason, self.document = reason, document

    def about(self, model: str, document: str) -> EngineError:
        """The error with the names of the model and of the document that it was reading, unless it has them."""
        return self if self.document else EngineError(self.reason, model=model, document=document)


class Cancelled(DearliteError):
    """The caller's `cancel` event was set before the work was done.

    `partial` is the Ranking so far of the query in progress, with `complete` False: documents that no model has read
    have no score. It is None if none has been read, and for a group of queries.
    """

    partial: Any = None

    def __init__(self, done: int, total: int) -> None:
        super().__init__(f"cancelled after {done} of {total} documents")
        self.done, self.total = done, total


# The reason that a system gives for a library that does not load -> the remedy; the first that fits. {again}: the
# command that installs the package again.
_LOAD_REMEDIES = {
    r"bad_alloc|[Cc]annot allocate memory|failed to map segment from shared object(?!.*not permitted)": (
        "too little memory: close other programs, or raise its limit (ulimit -v)"
    ),
    r"libgomp\.so": "install the system's libgomp (apt install libgomp1, dnf install libgomp)",
    r"(GLIBC|GLIBCXX|CXXABI)_[\d.]+": "this system is older than the library: update it, or {again}",
    r"wrong ELF class|incompatible architecture|not a valid Win32|invalid ELF|no suitable image|Exec format": (
        "it is for another kind of processor: {again}, with a Python for this one"
    ),
    r"DLL load failed|Could not find module": (
        "install Microsoft's Visual C++ Redistributable (winget install Microsoft.VCRedist.2015+.x64), or {again}"
    ),
    r"\.so[.\d]*: cannot open shared object": "install the package of this system that has it",
    r"[Ss]hared (library|object)|[Ll]ibrary not loaded|cannot load library|undefined symbol|too short": "{again}",
}


def need(module: str, *, extra: str | None, again: str | None = None) -> ModuleType:
    """The imported `module`. Raises MissingExtra with the extra that installs it, or the package that it imports.

    `extra` is None for a base dependency, which `pip install dearlite` brings. A module of dearlite itself may import a
    package that is missing. Raises LibraryNotLoaded if a native library of the package does not load here, or if the
    package lacks another one or a part of it; `again` is the command that installs the package for this machine.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as err:
        missing = (err.name or "").partition(".")[0]
        if missing != module.partition(".")[0] and not module.startswith("dearlite."):
            raise _not_importable(module, err, extra) from err
        raise MissingExtra(f"{missing} is needed here and is not installed: {pip_install(extra)}") from err
    except (ImportError, OSError, RuntimeError) as err:
        failure = load_failure(err, module, again)
        if failure is None and isinstance(err, ImportError) and not module.startswith("dearlite."):
            failure = _not_importable(module, err, extra)
        if failure is None:
            raise
        raise failure from err


def _not_importable(module: str, err: ImportError, extra: str | None) -> LibraryNotLoaded:
    """The error for an installed package whose import fails, mostly as it was installed without those it needs."""
    package = module.partition(".")[0]
    return LibraryNotLoaded(f"{package} cannot be imported ({first_line(err)}): install it again, {pip_install(extra)}")


def load_failure(err: Exception, module: str = "", again: str | None = None) -> LibraryNotLoaded | None:
    """The error of one line for `err`, of a native library that does not load; None if it is another error.

    `module` names the Python module that was imported, unless `err` does; `again` is as in `need`.
    """
    lines = str(err).splitlines()  # NumPy gives its advice first
    known = ((line, text) for pattern, text in _LOAD_REMEDIES.items() for line in lines if re.search(pattern, line))
    reason, remedy = next(known, ("", ""))
    if not reason or isinstance(err, DearliteError):
        return None
    name = getattr(err, "name", None) if not module or module.startswith("dearlite.") else module
    package = (name or "a library").partition(".")[0]
    again = again or pip(f"install --force-reinstall --no-cache-dir {package if name else 'its package'}")
    reason = reason.strip().removeprefix("Original error was: ")
    return LibraryNotLoaded(f"{package} does not load on this system ({reason}): {remedy.format(again=again)}")


def counted(number: int, noun: str, plural: str = "") -> str:
    """The number with its noun. Example: 1, "document" -> "1 document"; 2, "query" -> "2 queries"."""
    regular = f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural or regular}"


def first_line(err: BaseException) -> str:
    """The first line of an error's message that is not blank; the name of its class where it has no message."""
    return next((line.strip() for line in str(err).splitlines() if line.strip()), type(err).__name__)


class DearliteWarning(UserWarning):
    """The category of every warning, for the filters of `warnings`."""


def warn(note: str) -> None:
    """Warns with `note` as a DearliteWarning of the line outside of dearlite that led here."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(printable(note), DearliteWarning, stacklevel=level)
