"""reStructuredText: the text by lines, with its section titles, whose level is the order in which their marks come."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from dearlite.folders.content import Content, Heading, line_starts
from dearlite.folders.encodings import decode

_MARK = re.compile(r"([!-/:-@\[-`{-~])\1*[ \t]*$")


def read_restructured(data: bytes) -> Content:
    """The content of a reStructuredText file."""
    text, note = decode(data)
    starts = line_starts(text)
    headings = tuple(_headings(text, starts))
    return Content(text, headings, line_starts=starts, line_numbers=range(1, len(starts) + 1), note=note)


def _headings(text: str, starts: Sequence[int]) -> Iterator[Heading]:
    lines, levels = text.split("\n"), list[str]()  # of each level the mark, twice for one above the title too
    for number in range(1, len(lines)):
        under, title = lines[number].rstrip(), lines[number - 1]
        if not _MARK.match(under) or not title.strip() or _MARK.match(title):
            continue
        above = lines[number - 2].rstrip() if number > 1 else ""
        both = above == under
        if len(under) < len(title.strip()) or (not both and (title[0].isspace() or above)):
            continue  # too short, or the last line of a paragraph
        style = under[0] * (1 + both)
        if style not in levels:
            levels.append(style)
        end = starts[number] + len(lines[number])
        yield Heading(starts[number - 1 - both], end, levels.index(style) + 1, title.strip())
