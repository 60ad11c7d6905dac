"""Standard streams of the command line: whatever stdout and stderr are, a failure of them is one line and never more.

Either may be absent (a service, pythonw), closed, full, a closed pipe, or of an encoding that lacks a character.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dearlite.errors import DearliteError
from dearlite.files.targets import reason_of

# What a table degrades to where the encoding lacks the character.
_PLAIN = str.maketrans("▲▼·█▉▊▋▌▍▎▏†→≠…×–—─━│┃‘’“”", "^v.#####   *>!.x----||''\"\"")


class StreamFailed(Exception):
    """Standard output could not be written. `closed` says that its reader has gone, which is no error."""

    def __init__(self, reason: str, *, closed: bool = False) -> None:
        super().__init__(f"cannot write to standard output: {reason}")
        self.closed = closed


class _Guarded:
    """A stream whose failures to write are StreamFailed, from the first one on. All else is the stream's own."""

    def __init__(self, stream: Any, failures: list[StreamFailed] | None = None) -> None:
        self._stream = stream
        self._failures = [] if failures is None else failures  # those of the text and of its buffer

    def write(self, data: Any) -> Any:
        is_text = hasattr(self._stream, "encoding")
        if len(data) == 0 and isinstance(data, str) == is_text:
            return 0  # click asks so for the kind of a stream, and ignores an error, which /dev/full gives at once
        return self._try(self._stream.write, data)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def isatty(self) -> bool:
        try:
            return bool(self._stream.isatty())
        except (OSError, ValueError, AttributeError):
            return False

    @property
    def buffer(self) -> _Guarded:
        return type(self)(self._stream.buffer, self._failures)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, function: Any, *arguments: Any) -> Any:
        if self._failures:
            raise self._failures[0]
        try:
            return function(*arguments)
        except OSError as err:
            self._abandon()
            self._failures.append(_failure(err))
            raise self._failures[0] from None
        except UnicodeEncodeError as err:  # a stream whose handling of errors could not be set
            return function(str(*arguments).encode(err.encoding, "plain-symbols").decode(err.encoding))
        except ValueError as err:  # of a closed file
            raise StreamFailed(f"it is closed ({err})") from None

    def _abandon(self) -> None:
        """Lets the rest of the buffer go nowhere, so that the interpreter does not fail on it at its end."""
        with suppress(OSError, ValueError, AttributeError, io.UnsupportedOperation):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


class _Quiet(_Guarded):
    """Standard error: messages that cannot be written are dropped, and the work goes on."""

    def _try(self, function: Any, *arguments: Any) -> Any:
        try:
            return super()._try(function, *arguments)
        except StreamFailed:
            return None


class _Absent(io.TextIOBase):
    """A stream in place of None. What is written to it fails for stdout, and is dropped for stderr."""

    encoding = "utf-8"

    def __init__(self, *, fails: bool) -> None:
        self._fails = fails

    def write(self, text: str) -> int:
        if self._fails and text:
            raise StreamFailed("there is none: name a file with -o, if the command has it")
        return len(text)

    def isatty(self) -> bool:
        return False


def has_stdout() -> bool:
    """False inside `guarded_streams` if there was no stdout."""
    return not isinstance(sys.stdout, _Absent)


def check_stdout() -> None:
    """Raises DearliteError if there is no stdout: called before the work of a command that writes to it."""
    if not has_stdout():
        raise DearliteError("there is no standard output to write to: name a file with -o")


def _failure(err: OSError) -> StreamFailed:
    closed = err.errno == errno.EPIPE or (os.name == "nt" and err.errno == errno.EINVAL)  # so Windows says it
    return StreamFailed(reason_of(err), closed=closed)


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Guards sys.stdout, sys.stderr and sys.stdin in the block, in which a write to stdout may raise StreamFailed."""
    before = sys.stdin, sys.stdout, sys.stderr
    _fill_descriptors()
    errors, waiting = _degrade(sys.stdout), [_wait_for_readers(stream) for stream in (sys.stdout, sys.stderr)]
    sys.stdout = _Absent(fails=True) if before[1] is None else _Guarded(before[1])
    sys.stderr = _Absent(fails=False) if before[2] is None else _Quiet(before[2])
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BytesIO(), "utf-8")
    try:
        yield
    finally:
        with suppress(Exception):
            sys.stderr.flush()
        sys.stdin, sys.stdout, sys.stderr = before
        for descriptor in waiting:
            if descriptor is not None:
                os.set_blocking(descriptor, False)
        if errors is not None:
            with suppress(ValueError, StreamFailed, OSError):
                before[1].reconfigure(errors=errors)  # type: ignore[union-attr]


def _fill_descriptors() -> None:
    """Occupies closed descriptors 0 to 2 so that no file gets one: it would receive what a library prints.

    Each is opened the wrong way round, so that its use fails as that of a closed one does.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDONLY if descriptor else os.O_WRONLY)  # the lowest free one


def _wait_for_readers(stream: Any) -> int | None:
    """The descriptor of `stream` if it did not block, as some parents leave a pipe; it waits for a slow reader now."""
    with suppress(OSError, ValueError, AttributeError):
        descriptor: int = stream.fileno()
        if not os.get_blocking(descriptor):
            os.set_blocking(descriptor, True)
            return descriptor
    return None


def _degrade(stream: Any) -> str | None:
    """Lets `stream` write an ASCII stand-in for a character it lacks; returns its former handling of errors."""
    if not isinstance(stream, io.TextIOWrapper):
        return None
    errors = stream.errors
    with suppress(OSError, ValueError):
        stream.reconfigure(errors="plain-symbols")
        return errors
    return None


def _plain_symbols(err: UnicodeError) -> tuple[str, int]:
    assert isinstance(err, UnicodeEncodeError)
    text = err.object[err.start : err.end].translate(_PLAIN)
    return "".join(char if char.isascii() else "?" for char in text), err.end


codecs.register_error("plain-symbols", _plain_symbols)
