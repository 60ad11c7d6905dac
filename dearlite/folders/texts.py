"""Plain text and source code: the text itself, by lines."""

from __future__ import annotations

from dearlite.folders.content import Content, line_starts
from dearlite.folders.encodings import decode


def read_text(data: bytes) -> Content:
    """The content of a text file."""
    text, note = decode(data)
    starts = line_starts(text)
    return Content(text, line_starts=starts, line_numbers=range(1, len(starts) + 1), note=note)


def read_code(data: bytes) -> Content:
    """The content of a source file, whose lines are not broken at the ends of sentences."""
    text, note = decode(data)
    starts = line_starts(text)
    return Content(text, line_starts=starts, line_numbers=range(1, len(starts) + 1), code=True, note=note)
