"""The place of a passage: its file, its lines or its page, and its characters in the text of the file."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage of a file, the record of its Document.

    - `path`: the file as `open` takes it; a name that is not UTF-8 has Python's surrogate escapes.
    - `first_line`, `last_line`: its lines in the file, from 1; None for a file without lines (PDF, DOCX, mail).
    - `page`: its page in a PDF, from 1; None for other files.
    - `start`, `end`: its characters in the text that was taken from the file. Of a text file that is the text as
      `open` gives it, with line ends as newlines.
    - `heading`: the headings above it, joined by " > "; empty if there are none.
    """

    path: str
    first_line: int | None
    last_line: int | None
    page: int | None
    start: int
    end: int
    heading: str = ""

    @property
    def place(self) -> str:
        """The place as results show it: `notes/tax.md:120-134`, `report.pdf p. 7` or `letter.docx § Costs`."""
        name = self.printable_path
        if self.page is not None:
            return f"{name} p. {self.page}"
        if self.first_line is not None:
            last = "" if self.last_line == self.first_line else f"-{self.last_line}"
            return f"{name}:{self.first_line}{last}"
        return f"{name} § {self.heading.rpartition(' > ')[2]}" if self.heading else name

    @property
    def printable_path(self) -> str:
        """The path for people and for JSON: bytes that are not UTF-8, and characters that show nothing, as escapes."""
        return printable_path(self.path)

    @property
    def utf8_path(self) -> str:
        """The path for files of data, as `open` takes it; bytes that are not UTF-8 are escapes, as in `place`."""
        return self.path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    @property
    def uri(self) -> str:
        """The file as a `file://` URI with its page or its first line, every character escaped that is not plain ASCII.

        `#page=7` is what PDF viewers and browsers take (RFC 8118), `#120` what kitty, iTerm2 and VS Code take for the
        line of a text; others open the file.
        """
        file = Path(os.path.abspath(self.path)).as_uri()
        if self.page is not None:
            return f"{file}#page={self.page}"
        return file if self.first_line is None else f"{file}#{self.first_line}"

    def place_fields(self) -> dict[str, Any]:
        """The fields of the place for JSON."""
        return asdict(self) | {"path": self.utf8_path}


def printable_path(path: str) -> str:
    """`path` for people and for JSON: bytes that are not UTF-8, and characters that show nothing, as escapes."""
    if path.isprintable():  # surrogate escapes are not
        return path
    name = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)
