"""Lines around a passage, put together from the passages of its file: no file is read a second time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from dearlite.documents import Document
from dearlite.folders.kinds import reader_of
from dearlite.folders.pages import read_html
from dearlite.folders.passage import Passage


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file: its number, None where the file has none; its text; True if it is of the passage itself."""

    number: int | None
    text: str
    inside: bool


def lines_around(passage: Passage, documents: Sequence[Document], count: int) -> list[Line]:
    """The lines of `passage`, with `count` lines before it and after it.

    `documents` are the passages of the files, in their order. Blank lines between passages are kept where lines have
    numbers. A passage of a PDF has only lines of its page around it.
    """
    lines = list[Line]()
    for line, is_joined in _lines(passage, documents):
        last = lines[-1] if lines else None
        if last is not None and line.number is not None and last.number is not None:
            if line.number == last.number:  # a long line that was cut, perhaps within a word
                text = f"{last.text}{'' if is_joined else ' '}{line.text}"
                lines[-1] = replace(last, text=text, inside=last.inside or line.inside)
                continue
            lines += [Line(number, "", False) for number in range(last.number + 1, line.number)]
        lines.append(line)
    inside = [number for number, line in enumerate(lines) if line.inside]
    if not inside:
        return []
    return lines[max(0, inside[0] - count) : inside[-1] + 1 + count]


def _lines(passage: Passage, documents: Sequence[Document]) -> Iterator[tuple[Line, bool]]:
    """The lines of the file, or of the page, in order; True for one that the text before it runs into."""
    # of a web page the lines are those of its text, whose numbers the source does not have
    has_numbers, end = reader_of(passage.path) is not read_html, -1
    for document in documents:
        other = document.record
        if not isinstance(other, Passage) or (other.path, other.page) != (passage.path, passage.page):
            continue
        texts = document.text.split("\n")
        first, last = other.first_line, other.last_line
        is_numbered = has_numbers and first is not None and last is not None and last - first + 1 == len(texts)
        for offset, text in enumerate(texts):
            number = first + offset if is_numbered and first is not None else None
            yield Line(number, text, other == passage), offset == 0 and other.start == end
        end = other.end
