"""Lines of a text file, each with its location ("docs.txt:7")."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO

from dearlite.errors import InvalidInput
from dearlite.files.streams import utf8_remedy


def read_lines(stream: BinaryIO, name: str) -> Iterator[tuple[str, str | InvalidInput]]:
    """(location, text) of each line that is not blank; the text is an InvalidInput if the line is not UTF-8."""
    for number, raw in enumerate(raw_lines(stream), start=1):
        where = f"{name}:{number}"
        try:
            line = raw.decode()
        except UnicodeDecodeError as err:
            yield where, not_utf8(where, raw, err.start)
            continue
        if line.strip():
            yield where, line


def raw_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of `stream` with their ends. A newline ends a line; in a file without any, a carriage return does."""
    first, second = stream.readline(), stream.readline()
    if not second and b"\r" in first.rstrip(b"\r\n"):
        yield from re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", first)
    else:
        yield from chain([line for line in (first, second) if line], stream)


def not_utf8(where: str, raw: bytes, start: int) -> InvalidInput:
    """The error for the line `raw` at `where`, whose byte at `start` is not UTF-8."""
    return InvalidInput(f"{where} is not UTF-8 (byte 0x{raw[start]:02x} at column {start + 1}): {utf8_remedy(raw)}")
