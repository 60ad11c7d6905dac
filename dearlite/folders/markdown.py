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
    for number, line in enumerate(lines):
        start, end = starts[number], starts[number] + len(line)
        if number < front:
            continue
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not mark[2].strip():
                fence = ""
            continue
        if mark and not (mark[1][0] == "`" and "`" in mark[2]):
            fence, before = mark[1], 0
        elif hashes := _HASHES.match(line):
            before = 0
            if title := (hashes[2] or "").strip():
                yield Heading(start, end, len(hashes[1]), title)
        elif before and (under := _UNDERLINE.match(line)):
            title = " ".join(text[before - 1 : start].split())
            yield Heading(before - 1, end, 1 if under[1][0] == "=" else 2, title)
            before = 0
        elif not line.strip() or (_NO_TEXT.match(line) and not before):
            before = 0
        else:
            before = before or start + 1


def _end_of_front_matter(lines: Sequence[str]) -> int:
    """The number of lines of the metadata between `---` at the head of the file; 0 if there are none."""
    if lines[0].rstrip() != "---":
        return 0
    return next((number + 1 for number, line in enumerate(lines[1:], start=1) if line.rstrip() in ("---", "...")), 0)
