"""Markdown: the text by lines, with the headings of CommonMark's two forms that are in no block of code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from dearlite.folders.content import Content, Heading, line_starts
from dearlite.folders.encodings import decode

_HASHES = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^\n]*)$")
_NO_TEXT = re.compile(r" {4}|\t| {0,3}(?:>|[-+*][ \t]|\d+[.)][ \t])")  # code, quotations and lists


def read_markdown(data: bytes) -> Content:
    """The content of a Markdown file."""
    text, note = decode(data)
    starts = line_starts(text)
    headings = tuple(_headings(text, starts))
    return Content(text, headings, line_starts=starts, line_numbers=range(1, len(starts) + 1), note=note)


def _headings(text: str, starts: Sequence[int]) -> Iterator[Heading]:
    fence, before = "", 0  # the mark that opened a block of code; the start of the paragraph above, plus 1
    lines = text.split("\n")
    front = _end_of_front_matter(lines)
    for number in range(front, len(lines)):
        line = lines[number]
        start, first = starts[number], line.lstrip()[:1]
        if fence:
            if first == fence[0] and (mark := _FENCE.match(line)) and mark[1].startswith(fence) and not mark[2].strip():
                fence = ""
            continue
        if not first:
            before = 0
        elif first in "`~" and (mark := _FENCE.match(line)) and not (first == "`" and "`" in mark[2]):
            fence, before = mark[1], 0
        elif first == "#" and (hashes := _HASHES.match(line)):
            before = 0
            if title := (hashes[2] or "").strip():
                yield Heading(start, start + len(line), len(hashes[1]), title)
        elif before and first in "=-" and _UNDERLINE.match(line):
            title = " ".join(text[before - 1 : start].split())
            yield Heading(before - 1, start + len(line), 1 if first == "=" else 2, title)
            before = 0
        elif not before and not _NO_TEXT.match(line):
            before = start + 1


def _end_of_front_matter(lines: Sequence[str]) -> int:
    """The number of lines of the metadata between `---` at the head of the file; 0 if there are none."""
    if lines[0].rstrip() != "---":
        return 0
    return next((number + 1 for number, line in enumerate(lines[1:], start=1) if line.rstrip() in ("---", "...")), 0)
