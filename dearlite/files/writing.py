"""Writing of results: complete files or none, gzip by the ending of the name, and standard output."""

from __future__ import annotations

import codecs
import gzip
import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO, cast

from dearlite.errors import DearliteError
from dearlite.files.drafts import Draft
from dearlite.files.targets import reason_of

_SPOOLED_BYTES = 2**22  # more of an output to stdout lies in a temporary file until it is complete


@contextmanager
def whole_file(path: str | Path) -> Iterator[TextIO]:
    """A text stream whose content is written to `path` when the block ends; an error writes nothing.

    A regular file is replaced; a device or a pipe is written to. UTF-8 with LF line ends, compressed if the name ends
    in .gz; the same content gives the same bytes. Raises DearliteError if the output cannot be written.
    """
    try:
        with Draft(path) as draft:
            with open(draft.path, "wb") as file, _compressed(file, path) as raw, _text(raw, "utf-8") as stream:
                yield stream
            draft.commit()
    except OSError as err:
        raise DearliteError(f"cannot write {path}: {reason_of(err)}") from None


@contextmanager
def standard_output(*, json: bool = False) -> Iterator[TextIO]:
    """A text stream whose content is written to stdout when the block ends; an error writes nothing.

    For output that programs read: it has LF line ends, and UTF-8 unless stdout is a terminal of another encoding. With
    `json` an output that is not UTF-8 gets ASCII with JSON's escapes. Raises DearliteError if there is no stdout.
    """
    out = sys.stdout
    if out is None:
        raise DearliteError("there is no standard output to write to: name a file with -o")
    utf8 = is_utf8(getattr(out, "encoding", None))
    plain_text = not utf8 and not json and out.isatty()
    with tempfile.SpooledTemporaryFile(_SPOOLED_BYTES) as spool:
        text = _text(spool, "ascii", "json-escape") if json and not utf8 else _text(spool, "utf-8")
        yield text
        text.flush()
        spool.seek(0)
        binary = getattr(out, "buffer", None)
        if binary is None or plain_text:  # a notebook's stream, or a terminal, which takes text
            shutil.copyfileobj(text, out)
        else:
            out.flush()
            shutil.copyfileobj(spool, binary)
        out.flush()


def write_text(path: str | Path, text: str, *, json: bool = False) -> None:
    """Writes `text` to the output `path`, whole or not at all; "-" is stdout, to which `json` text is escaped."""
    with standard_output(json=json) if str(path) == "-" else whole_file(path) as stream:
        stream.write(text)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes `content` to the output `path`, whole or not at all. Raises DearliteError if it cannot be written."""
    try:
        with Draft(path) as draft:
            draft.path.write_bytes(content)
            draft.commit()
    except OSError as err:
        raise DearliteError(f"cannot write {path}: {reason_of(err)}") from None


def is_utf8(encoding: str | None) -> bool:
    """True for a name of UTF-8; no encoding is that of a stream of str, which takes every character."""
    try:
        return encoding is None or codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
    except LookupError:
        return False


def _text(raw: IO[bytes], encoding: str, errors: str = "backslashreplace") -> io.TextIOWrapper:
    """A text stream with LF line ends. What cannot be encoded (half a surrogate pair in a file's name) is escaped."""
    return io.TextIOWrapper(raw, encoding, errors=errors, newline="\n")


@contextmanager
def _compressed(file: IO[bytes], path: str | Path) -> Iterator[IO[bytes]]:
    """`file`, or a gzip stream into it, without a time or a name, if `path` ends in .gz."""
    if str(path).lower().endswith(".gz"):
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as stream:
            yield cast(IO[bytes], stream)
    else:
        yield file


def _json_escape(err: UnicodeError) -> tuple[str, int]:
    """JSON's escapes of the characters that cannot be encoded: two for one beyond U+FFFF."""
    assert isinstance(err, UnicodeEncodeError)
    units = err.object[err.start : err.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)), err.end


codecs.register_error("json-escape", _json_escape)
