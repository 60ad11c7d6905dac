"""The check of all outputs of a call, before its work: each can be written, and none is an input or another output."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from dearlite.errors import UsageError
from dearlite.files.drafts import check_writable
from dearlite.files.targets import Name, Target, find_target, reason_of

_JOURNAL = "the journal of an input"
_STATES = ("--journal", "--cache")  # outputs that are kept from call to call, which a device or a pipe cannot be


def check_outputs(
    outputs: Mapping[str, Name | None], inputs: Mapping[str, Name | Iterable[Name] | None] | None = None
) -> None:
    """Raises UsageError if an output cannot be written, is an input or an input's journal, or is another output.

    Both map an option or argument to its file; an input may have several. None is no file, "-" stdout. A journal or a
    cache must be an ordinary file. Files are compared by what they are: links and hard links are seen through.
    """
    seen: dict[object, str] = {}
    new: dict[str, str] = {}  # folded name -> option, of outputs where nothing is yet
    for option, name in outputs.items():
        if name is None:
            continue
        target = _stdout() if str(name) == "-" else find_target(name)
        check_writable(target)
        if option in _STATES and not target.is_file:
            raise UsageError(f"{option} {name} is not an ordinary file, which it must be: name another")
        if target.descriptor is None and target.status is not None and stat.S_ISCHR(target.status.st_mode):
            continue  # the null device takes several outputs
        key = _identity(target.path, target.status)
        folded = str(key).casefold()
        other = seen.get(key)
        if other is None and folded in new and _ignores_case(target.path.parent):
            other = new[folded]
        if other is not None:
            raise UsageError(f"{other} and {option} are both written to {name}: give each its own file")
        seen[key] = option
        if target.status is None:
            new[folded] = option
    for option, path in _files_of(inputs or {}):
        try:
            status = os.fstat(0) if str(path) == "-" else os.stat(path)
        except (OSError, ValueError):
            continue  # whoever reads it says so
        output = seen.get(_identity(path, status)) if stat.S_ISREG(status.st_mode) else None
        if output is not None and (output, option) != ("--journal", _JOURNAL):  # a journal is only appended to
            raise UsageError(f"{output} {outputs[output]} would overwrite {option}, {path}: name another file")


def make_folder(folder: Path) -> None:
    """Makes the folder of several outputs, and those above. Raises UsageError if files cannot be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as err:
        reason = "it is a file; name a folder" if os.path.isfile(folder) else reason_of(err)
        raise UsageError(f"cannot write to {folder}: {reason}") from None


def _stdout() -> Target:
    """The place of the name "-"."""
    try:
        status = os.fstat(1)
    except OSError:  # it is closed, which the command reports
        status = None
    return Target("-", Path("-"), status, 1)


def _files_of(inputs: Mapping[str, Name | Iterable[Name] | None]) -> Iterator[tuple[str, Path]]:
    """(description, path) of each input and of the journal beside it."""
    for option, names in inputs.items():
        for name in [names] if isinstance(names, (str, Path)) else names or ():
            yield f"the input {option}" if option else "an input", Path(name)
            yield _JOURNAL, Path(f"{name}.journal")


def _ignores_case(folder: Path) -> bool:
    """True if names in `folder` that differ in letter case alone are one file, as on Windows and macOS by default."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".dearlite-case-", suffix=".draft") as file:
            return os.path.exists(Path(file.name).with_name(Path(file.name).name.upper()))
    except OSError:
        return False


def _identity(path: Path, status: os.stat_result | None) -> object:
    """Equal for two names of one file. Windows' stat may give no inode."""
    if status is None or not status.st_ino:
        return os.path.normcase(os.path.realpath(path))
    return status.st_dev, status.st_ino
