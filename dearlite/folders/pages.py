"""HTML by lxml: the text that a browser would show, with the headings and the lines of the source."""

from __future__ import annotations

import codecs
import re
from typing import Any

from dearlite.errors import first_line, need
from dearlite.folders.content import Content, Heading, Unreadable
from dearlite.folders.encodings import decode

_CHARSET = re.compile(rb"<meta[^>]{1,200}charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_UNSEEN = frozenset(["script", "style", "template", "noscript", "svg", "math", "iframe", "object"])
_BLOCK_NAMES = (
    "address article aside blockquote body caption dd details div dl dt fieldset figcaption figure footer "
    "form h1 h2 h3 h4 h5 h6 header hr li main nav ol p pre section summary table ul"
)
_BLOCKS = frozenset(_BLOCK_NAMES.split())
_LINES = frozenset(["br", "option", "tr"])
_CELLS = frozenset(["td", "th"])
_LEVELS = {f"h{level}": level for level in range(1, 7)}


def read_html(data: bytes) -> Content:
    """The content of a web page. Raises Unreadable if it is no HTML, and MissingExtra without lxml."""
    etree = need("lxml.etree", extra="files")
    text, note = decode(data, _declared(data))
    parser = etree.HTMLParser(encoding="utf-8", no_network=True, huge_tree=True)
    try:
        root = etree.fromstring(text.encode("utf-8", "replace"), parser) if text.strip() else None
    except etree.LxmlError as err:
        raise Unreadable(f"is no HTML ({first_line(err)})") from None
    page = _Page()
    if root is not None:
        page.read(etree, root)
    return page.content(note)


def _declared(data: bytes) -> str:
    """The encoding that the page names, "" if it names none that Python knows."""
    name = _CHARSET.search(data, 0, 2048)
    try:
        return codecs.lookup(name[1].decode()).name if name else ""
    except LookupError:
        return ""


class _Page:
    """The text of a page as it is put together, in pieces; `length` counts the characters."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.length = 0
        self.line = 1  # of the source
        self.starts, self.numbers = [0], [1]
        self.headings: list[Heading] = []
        self.title = ""
        self.gap = ""  # between the piece before and the next one

    def read(self, etree: Any, root: Any) -> None:
        """Takes the text of all elements. The tree is walked without recursion: pages may be nested without end."""
        unseen, heading = None, 0
        for event, element in etree.iterwalk(root, events=("start", "end", "comment", "pi")):
            name = element.tag if isinstance(element.tag, str) else ""
            if event == "start":
                self.line = element.sourceline or self.line
                if unseen is None and (name in _UNSEEN or name == "head"):
                    unseen = element
                if name == "title" and element.text and not self.title:
                    self.title = " ".join(element.text.split())
                if unseen is not None:
                    continue
                self._separate(name)
                heading = len(self.pieces) if name in _LEVELS else heading
                self._add(element.text or "")
                continue
            if event == "end" and unseen is None:
                if name in _LEVELS:
                    self._head(heading, _LEVELS[name])
                self._separate(name)
            if event == "end" and element is unseen:
                unseen = None
            if unseen is None:
                self._add(element.tail or "")

    def content(self, note: str) -> Content:
        """The content of the page."""
        return Content(
            "".join(self.pieces),
            self.headings,
            line_starts=self.starts,
            line_numbers=self.numbers,
            title=self.title,
            note=note,
        )

    def _separate(self, name: str) -> None:
        gap = "\n\n" if name in _BLOCKS else "\n" if name in _LINES else " " if name in _CELLS else ""
        self.gap = max(self.gap, gap, key=_size)

    def _add(self, text: str) -> None:
        """Adds a text with its spaces as one, and each of its lines with the line of the source."""
        for number, line in enumerate(text.split("\n")):
            if number:
                self.line += 1
                self.gap = max(self.gap, "\n", key=_size)
            words = " ".join(line.split())
            if not words:
                self.gap = self.gap or (" " if line else "")
                continue
            self.gap = self.gap or (" " if line[0].isspace() else "")
            gap = self.gap if self.pieces else ""
            self.length += len(gap) + len(words)
            self.pieces += [gap + words]
            if gap.startswith("\n") or not self.length - len(words):
                self._number(self.length - len(words))
            self.gap = " " if line[-1].isspace() else ""

    def _number(self, start: int) -> None:
        if start:
            self.starts.append(start)
            self.numbers.append(self.line)
        else:
            self.numbers[0] = self.line

    def _head(self, first: int, level: int) -> None:
        """Adds the heading whose text is in the pieces from `first`."""
        text = "".join(self.pieces[first:])
        if title := " ".join(text.split()):
            start = self.length - len(text.lstrip())
            self.headings.append(Heading(start, self.length, level, title))


def _size(gap: str) -> int:
    return ("", " ", "\n", "\n\n").index(gap)
