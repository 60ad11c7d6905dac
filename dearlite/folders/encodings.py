"""Bytes of a text file as text: UTF-8, Unicode with a byte order mark, or Windows-1252 with a note."""

from __future__ import annotations

import codecs
import io

from dearlite.folders.content import Unreadable

# byte order mark -> encoding; of two that begin alike the longer one comes first
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_NO_CHARSETS = frozenset(["idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"])
_WESTERN = "cp1252"
_MOST_HIGH = 0.3  # share of bytes above 127 in a text of a Western script


def has_mark(data: bytes) -> bool:
    """True if `data` begins with a byte order mark: its NUL bytes are then no sign of a binary file."""
    return data.startswith(tuple(_MARKS))


def decode(data: bytes, declared: str = "") -> tuple[str, str]:
    """The text of `data` with line ends as newlines, and a note on its encoding or "".

    Bytes that are not UTF-8 are read in the `declared` encoding, else as Windows-1252 if most of them are ASCII.
    Raises Unreadable where that gives no text either.
    """
    encoding = next((encoding for mark, encoding in _MARKS.items() if data.startswith(mark)), "utf-8")
    note = ""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as err:
        if encoding != "utf-8":
            raise Unreadable(f"is damaged {encoding[:6].upper()} ({err.reason}): save it again as UTF-8") from None
        text, note = _decode_other(data, declared)
    return (io.IncrementalNewlineDecoder(None, translate=True).decode(text, final=True) if "\r" in text else text), note


def _is_charset(name: str) -> bool:
    """True for an encoding of texts. Of Python's codecs some are conversions or escapes, or take quadratic time."""
    try:
        codec = codecs.lookup(name)
    except (LookupError, ValueError):  # a NUL character
        return False
    return codec.name not in _NO_CHARSETS and getattr(codec, "_is_text_encoding", False)


def _decode_other(data: bytes, declared: str) -> tuple[str, str]:
    if declared and _is_charset(declared):
        try:
            return data.decode(declared), ""
        except UnicodeDecodeError:
            pass
    high = len(data) - len(data.translate(None, bytes(range(128, 256))))
    if high <= _MOST_HIGH * len(data):
        try:
            return data.decode(_WESTERN), "is not UTF-8 and is read as Windows-1252"
        except UnicodeDecodeError:
            pass
    raise Unreadable("is not UTF-8: save it as UTF-8 (iconv -f ENCODING -t UTF-8)")
