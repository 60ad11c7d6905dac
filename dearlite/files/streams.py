"""Bytes of an input file as UTF-8: gzip is unpacked and UTF-16 and UTF-32 are converted, each known by its first bytes.

Files of other kinds (archives, PDF, office documents) are refused by name. Records are not known here.
"""

from __future__ import annotations

import codecs
import gzip
import io
import os
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar, cast

from dearlite.errors import InvalidInput, UsageError

T = TypeVar("T")
_GZIP = b"\x1f\x8b"
_DAMAGE = (EOFError, zlib.error, OSError)
# byte order mark -> encoding; of two that begin alike the longer one comes first
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_TO_TEXT = "convert it to text first, a document per line or per record"
_UNPACK = "unpack it first, or compress the file inside with gzip"
# first bytes of files that hold no text, and their kind
_OTHER = {
    b"%PDF-": ".pdf",
    b"PK\x03\x04": ".zip",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ".doc",
    **{b"BZh%d1AY&SY" % level: ".bz2" for level in range(1, 10)},
    b"\xfd7zXZ\x00": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"7z\xbc\xaf\x27\x1c": ".7z",
    b"SQLite format 3\x00": ".sqlite",
    b"{\\rtf": ".rtf",
}
# ending -> kind of file, remedy
_KINDS = {
    ".pdf": ("a PDF", "extract its text first (pdftotext, for example)"),
    ".zip": ("a ZIP archive", _UNPACK),
    ".7z": ("a 7z archive", _UNPACK),
    ".tar": ("a tar archive", _UNPACK),
    ".tgz": ("a tar archive", _UNPACK),
    ".bz2": ("compressed with bzip2", _UNPACK),
    ".xz": ("compressed with xz", _UNPACK),
    ".zst": ("compressed with Zstandard", _UNPACK),
    ".docx": ("a Word document", _TO_TEXT),
    ".doc": ("an office document", _TO_TEXT),
    ".odt": ("an office document", _TO_TEXT),
    ".rtf": ("an office document", _TO_TEXT),
    ".pptx": ("a presentation", _TO_TEXT),
    ".epub": ("an e-book", _TO_TEXT),
    ".xlsx": ("an Excel workbook", "save the sheet as CSV (UTF-8)"),
    ".xls": ("an Excel workbook", "save the sheet as CSV (UTF-8)"),
    ".ods": ("a spreadsheet", "save the sheet as CSV (UTF-8)"),
    ".sqlite": ("an SQLite database", "export the table as CSV or JSON"),
    ".db": ("a database", "export the table as CSV or JSON"),
    ".arrow": ("an Arrow file", "write it as Parquet"),
    ".feather": ("an Arrow file", "write it as Parquet"),
    ".html": ("a web page", _TO_TEXT),
    ".htm": ("a web page", _TO_TEXT),
    ".xml": ("XML", _TO_TEXT),
    ".md": ("Markdown", "put its documents in one file, a document per line or per record"),
}
# Endings of kinds whose files begin with a signature of _OTHER.
_SIGNED = {*_OTHER.values(), ".docx", ".pptx", ".xlsx", ".odt", ".ods", ".epub", ".xls"}


class _Peekable(Protocol):
    """A stream that shows its next bytes and keeps them."""

    def peek(self, size: int, /) -> bytes: ...
    def read(self, size: int = -1, /) -> bytes: ...
    def close(self) -> None: ...


def open_stream(path: str) -> BinaryIO:
    """The bytes of the file `path` ("-" is standard input): unpacked, and text as UTF-8 without a byte order mark.

    Gzip, UTF-16 and UTF-32 are known by their first bytes, not by the name. Raises UsageError if the file cannot be
    opened, and InvalidInput for a file that holds no text.
    """
    name = "<stdin>" if path == "-" else Path(path).name
    stream = _opened(path)
    try:
        if stream.peek(2)[:2] == _GZIP:
            unzipped = gzip.GzipFile(fileobj=cast(BinaryIO, stream))
            unzipped.myfileobj = stream  # type: ignore[assignment]  # closes the file with it
            stream = unzipped
        return _as_utf8(stream, name)
    except _DAMAGE as err:
        stream.close()
        raise _damaged(name, err) from None
    except BaseException:
        stream.close()
        raise


def report_damage(items: Iterator[T], name: str) -> Iterator[T]:
    """`items` read from the file `name`. Raises InvalidInput on one line for damaged gzip and read errors."""
    try:
        yield from items
    except _DAMAGE as err:
        raise _damaged(name, err) from None


def _damaged(name: str, err: Exception) -> InvalidInput:
    if isinstance(err, OSError) and not isinstance(err, gzip.BadGzipFile):
        return InvalidInput(f"cannot read {name}: {err.strerror or err}")
    return InvalidInput(f"{name} is damaged gzip ({err}): fetch or compress it again")


def remedy_for_ending(path: str) -> str:
    """Kind of file and remedy for an ending that no reader has; "" for an ending of no known kind.

    Also "" where the kind has a signature and the file begins otherwise: a text named .xlsx is no workbook.
    """
    name = path.lower()
    ending = Path(name.removesuffix(".gz")).suffix
    if ending not in _KINDS or (ending in _SIGNED and not name.endswith(".gz") and not _is_signed(path)):
        return ""
    return f"{path} is {_KINDS[ending][0]}: {_KINDS[ending][1]}"


def _is_signed(path: str) -> bool:
    """True if the file begins with the signature of a kind that is no text, or cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(16).startswith(tuple(_OTHER))
    except OSError:
        return True


def utf8_remedy(raw: bytes) -> str:
    """The way to convert the file that has `raw`, which is not UTF-8, as its bytes suggest."""
    if raw.startswith(b"PAR1"):
        return "it is Parquet: name the file .parquet, or pass --docs-format parquet"
    if encoding := _utf16_without_mark(raw):
        return f"save the file as UTF-8 (iconv -f {encoding} -t UTF-8)"
    if re.search(rb"\xed[\xa0-\xbf]", raw):
        return "it has half a character (a surrogate): write the file again as UTF-8"
    high = sum(byte >= 0x80 for byte in raw)
    if high > 0.3 * len(raw):  # not a Latin script
        return "save the file as UTF-8 (iconv -f ENCODING -t UTF-8; for example GB18030, SHIFT_JIS or WINDOWS-1251)"
    return "save the file as UTF-8 (for example: iconv -f WINDOWS-1252 -t UTF-8)"


def _opened(path: str) -> _Peekable:
    if path == "-":
        if sys.stdin is None:
            raise UsageError("there is no standard input here: name a file")
        stream: BinaryIO = sys.stdin.buffer
    elif os.path.isdir(path):
        raise UsageError(f"cannot read {path}: it is a folder; name a file")
    else:
        try:
            stream = open(path, "rb")
        except OSError as err:
            remedy = "; it is no file: download it first" if "://" in path else ""
            raise UsageError(f"cannot read {path}: {err.strerror}{remedy}") from None
    return cast(_Peekable, stream if hasattr(stream, "peek") else io.BufferedReader(cast(io.RawIOBase, stream)))


def _as_utf8(stream: _Peekable, name: str) -> BinaryIO:
    head = stream.peek(512)[:512]
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            if encoding != "utf-8":
                return cast(BinaryIO, io.BufferedReader(_Converted(stream, encoding, name), 1 << 16))
            stream.read(len(mark))
    for magic, ending in _OTHER.items():
        if head.startswith(magic):
            office = ending in (".zip", ".doc") and Path(name).suffix.lower() in _KINDS
            kind, remedy = _KINDS[Path(name).suffix.lower() if office else ending]
            raise InvalidInput(f"{name} is {kind}: {remedy}")
    if encoding := _utf16_without_mark(head):
        raise InvalidInput(
            f"{name} is {encoding[:6]} without a byte order mark: save it as UTF-8 (iconv -f {encoding} -t UTF-8)"
        )
    return cast(BinaryIO, stream)


def _utf16_without_mark(raw: bytes) -> str:
    """The kind of UTF-16 if the NUL bytes of `raw` suggest it: many, and all of them first or last in their pairs."""
    first, last = raw[0::2].count(0), raw[1::2].count(0)
    if first + last < 0.2 * len(raw) or (first and last) or len(raw) < 4:
        return ""
    return "UTF-16BE" if first else "UTF-16LE" if last else ""


class _Converted(io.RawIOBase):
    """A stream of UTF-8 from one in another encoding. Raises InvalidInput where it cannot be decoded."""

    def __init__(self, stream: _Peekable, encoding: str, name: str) -> None:
        self._stream, self._name, self._encoding = stream, name, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._pending = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        while not self._pending:
            data = self._stream.read(1 << 16)
            try:
                self._pending = self._decoder.decode(data, final=not data).encode()
            except UnicodeError as err:
                reason = getattr(err, "reason", err)
                raise InvalidInput(
                    f"{self._name} is damaged {self._encoding.upper()} ({reason}): save it again as UTF-8"
                ) from None
            if not data:
                break
        count = min(len(view), len(self._pending))
        view[:count] = self._pending[:count]
        self._pending = self._pending[count:]
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()
