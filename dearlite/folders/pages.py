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
# what is between two texts, by its strength: of two gaps the stronger one counts
_GAPS = ("", " ", "\n", "\n\n")
_NOTHING, _SPACE, _LINE, _PARAGRAPH = range(4)
_GAP_OF = dict.fromkeys(_BLOCK_NAMES.split(), _PARAGRAPH) | {"br": _LINE, "option": _LINE, "tr": _LINE}
_GAP_OF |= {"td": _SPACE, "th": _SPACE}
_LAST_LINE = 65_535  # libxml2 counts no further
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
    if ends := parser.error_log.filter_from_fatals():  # nested too deep, of which the parser raises no error
        message = first_line(ends[0].message)
        message = "elements are nested too deep" if "Excessive depth" in message else message
        reason = f"{message}, line {ends[0].line}"
        if not page.pieces:
            raise Unreadable(f"is no HTML that can be read ({reason})")
        note = f"is read in part, as the parser stopped ({reason})"
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
        self.heading = 0  # the first piece of the last one
        self.headings: list[Heading] = []
        self.title = ""
        self.gap = _NOTHING  # between the piece before and the next one

    def read(self, etree: Any, root: Any) -> None:
        """Takes the text of all elements. The tree is walked without recursion: pages may be nested without end."""
        unseen = None
        for event, element in etree.iterwalk(root, events=("start", "end", "comment", "pi")):
            name, line = element.tag, element.sourceline
            if event != "end" and line and line < _LAST_LINE:  # of a comment it is the last one
                self.line = line
            if event == "start":
                if name == "title" and element.text and not self.title:
                    self.title = " ".join(element.text.split())
                if unseen is None and (name in _UNSEEN or name == "head"):
                    unseen = element
                self._take(element.text, name, seen=unseen is None, starts=True)
                continue
            if event == "end" and unseen is None:
                self._end(name)
            elif element is unseen:
                unseen = None
            self._take(element.tail, "", seen=unseen is None)

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

    def _take(self, text: str | None, name: str, *, seen: bool, starts: bool = False) -> None:
        """Takes the text at the start of the element `name`, or after an end; of one that is not `seen` its lines."""
        if not seen:
            self.line += text.count("\n") if text else 0
            return
        if starts:
            self.gap = max(self.gap, _GAP_OF.get(name, _NOTHING))
            if name in _LEVELS:
                self.heading = len(self.pieces)
        if text:
            self._add(text)

    def _end(self, name: str) -> None:
        if name in _LEVELS:
            self._head(self.heading, _LEVELS[name])
        self.gap = max(self.gap, _GAP_OF.get(name, _NOTHING))

    def _add(self, text: str) -> None:
        """Adds a text with its spaces as one, and each of its lines with the line of the source."""
        if text.isspace():  # between two tags
            lines = text.count("\n")
            self.line += lines
            self.gap = max(self.gap, _LINE if lines else _SPACE)
            return
        gap, length, pieces = self.gap, self.length, self.pieces
        for number, line in enumerate(text.split("\n"), start=self.line):
            if number > self.line and gap < _LINE:
                gap = _LINE
            words = line.strip()
            if "  " in words or not words.isprintable():  # of all spaces the plain one is printable alone
                words = " ".join(words.split())
            if not words:
                gap = gap or (_SPACE if line else _NOTHING)
                continue
            if not pieces:
                self.numbers[0] = number
            else:
                if not gap and line[0] != words[0]:
                    gap = _SPACE
                if gap >= _LINE:
                    self.starts.append(length + gap - 1)
                    self.numbers.append(number)
                length += gap if gap < _LINE else gap - 1
            pieces.append(_GAPS[gap] + words if pieces else words)
            length += len(words)
            gap = _NOTHING if line[-1] == words[-1] else _SPACE
        self.line, self.gap, self.length = number, gap, length

    def _head(self, first: int, level: int) -> None:
        """Adds the heading whose text is in the pieces from `first`."""
        text = "".join(self.pieces[first:])
        if title := " ".join(text.split()):
            start = self.length - len(text.lstrip())
            self.headings.append(Heading(start, self.length, level, title))
