"""Atomic writing of text files, and checks of output paths."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from dearlite.errors import DearliteError, UsageError


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A text stream whose content replaces the file `path` when the block ends; an error leaves no new or partial file.

    Raises DearliteError if the file cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent or ".")
    except OSError as err:
        raise DearliteError(f"cannot write {path}: {err.strerror}") from None
    try:
        with open(handle, "w", encoding="utf-8", newline="\n") as stream:
            yield stream
        os.chmod(name, 0o666 & ~_umask())  # mkstemp's files are readable by their owner only
        os.replace(name, path)
    except OSError as err:
        Path(name).unlink(missing_ok=True)
        raise DearliteError(f"cannot write {path}: {err.strerror}") from None
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str, text: str) -> None:
    """Writes `text` to the file `path`, whole or not at all; "-" is stdout."""
    if path == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    with whole_file(Path(path)) as stream:
        stream.write(text)


def json_text(value: Any, indent: int | None = None) -> str:
    """`value` as JSON that can be encoded as UTF-8."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=str)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair in the caller's record: escape it, as JSON does
        text = json.dumps(value, indent=indent, default=str)
    return text


def check_output(path: str | Path | None) -> None:
    """Raises UsageError if `path` is in no folder or is one; called before the work. None and "-" (stdout) pass."""
    if path is None or str(path) == "-":
        return
    if not Path(path).parent.is_dir():
        raise UsageError(f"cannot write {path}: the folder {Path(path).parent} does not exist; make it first")
    if Path(path).is_dir():
        raise UsageError(f"cannot write {path}: it is a folder; name a file in it")
