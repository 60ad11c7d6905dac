"""The text that a reader takes from a file, with its headings and with what its lines and pages are in the file."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass


class Unreadable(Exception):
    """A file that gives no text. The message is the rest of a sentence about the file: "is encrypted: ..."."""


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading: its first character and the one after it in the text, its level from 1, and its words."""

    start: int
    end: int
    level: int
    title: str


@dataclass(frozen=True, slots=True)
class Content:
    """The text of a file.

    - `headings`: in the order of the text.
    - `line_starts`, `line_numbers`: the first character of each line, and the number of that line in the file. Empty
      for a file without lines.
    - `page_starts`: the first character of each page; empty for a file without pages.
    - `title`: the file's own title, empty if it has none.
    - `code`: True for a text whose lines are better units than its sentences.
    - `note`: the rest of a sentence about how the file was read, empty if there is nothing to say.
    """

    text: str
    headings: Sequence[Heading] = ()
    line_starts: Sequence[int] = ()
    line_numbers: Sequence[int] = ()
    page_starts: Sequence[int] = ()
    title: str = ""
    code: bool = False
    note: str = ""

    def line(self, position: int) -> int | None:
        """The line of the character at `position`; None in a file without lines."""
        if not self.line_starts:
            return None
        return self.line_numbers[bisect_right(self.line_starts, position) - 1]

    def page(self, position: int) -> int | None:
        """The page of the character at `position`, from 1; None in a file without pages."""
        return bisect_right(self.page_starts, position) if self.page_starts else None


def line_starts(text: str) -> list[int]:
    """The first character of each line of `text`."""
    starts = [0]
    while position := text.find("\n", starts[-1]) + 1:
        starts.append(position)
    return starts
