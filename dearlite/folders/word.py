"""Word documents (`.docx`) by python-docx: paragraphs, headings and tables. Pictures and macros are not looked at."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from dearlite.errors import first_line, need
from dearlite.folders.content import Content, Heading, Unreadable

_BETWEEN = "\n\n"
_HEADING = re.compile(r"heading (\d)$", re.IGNORECASE)
_HEADING_STYLES = "w:style[starts-with(translate(w:name/@w:val, 'HEADING', 'heading'), 'heading ')]"
_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_RUN, _PARAGRAPH, _TABLE, _ROW, _CELL = (f"{_WORD}{name}" for name in ("r", "p", "tbl", "tr", "tc"))
# elements that hold those above: links, content controls, tracked insertions; deletions are not read
_AROUND = frozenset(
    f"{_WORD}{name}"
    for name in ["hyperlink", "sdt", "sdtContent", "ins", "moveTo", "smartTag", "customXml", "fldSimple"]
)
_MOST_UNPACKED = 50_000_000  # bytes beside the size of the file itself: pictures do not grow when they are unpacked
_MOST_PARTS = 5_000
_MOST_TAGS = 2_000_000  # of the text: an element takes 200 bytes of memory, and 6 of the file
_PART = re.compile(r"named '([\w./\[\]-]+)'")  # in the message of a missing one
_CFB = b"\xd0\xcf\x11\xe0"  # what Office writes around an encrypted document, and all of an old .doc


def read_docx(data: bytes) -> Content:
    """The content of a Word document. Raises Unreadable if it is encrypted, damaged or unpacks to too much.

    Raises MissingExtra without python-docx.
    """
    if data.startswith(_CFB):
        raise Unreadable("is encrypted, or an old .doc: save it as .docx without a password")
    docx = need("docx", extra="files")
    try:
        _check_size(data)
        document = docx.Document(io.BytesIO(data))
        return _content(document)
    except Unreadable:
        raise
    except Exception as err:  # python-docx meets a damaged file with errors of many kinds
        raise Unreadable(f"is no Word document that can be read ({_reason(err)})") from None


def _reason(err: Exception) -> str:
    """The reason in words for the reader of the document, where the library's are for its programmer."""
    message = first_line(err)
    if isinstance(err, zipfile.BadZipFile):
        return "it is damaged, or no .docx"
    if isinstance(err, KeyError):
        part = _PART.search(message)
        return f"its part {part[1]} is missing" if part else "a part of it is missing"
    if isinstance(err, SyntaxError):  # of XML
        return "its parts are nested too deep" if "Excessive depth" in message else "its XML is damaged"
    return f"it is damaged: {message}"


def _check_size(data: bytes) -> None:
    """Raises Unreadable for a ZIP bomb. `zipfile` gives no more of a part than the size that its header declares."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = archive.infolist()
        if any(part.flag_bits & 1 for part in parts):
            raise Unreadable("is encrypted: save it as .docx without a password")
    unpacked, most = sum(part.file_size for part in parts), _MOST_UNPACKED + len(data)
    if unpacked > most or len(parts) > _MOST_PARTS:
        raise Unreadable(f"unpacks to {unpacked / 1e6:,.0f} MB in {len(parts):,} parts: not opened (a ZIP bomb?)")
    for part in parts:
        if part.filename.endswith(".xml") and part.file_size > _MOST_TAGS and (tags := _tags(data, part)) > _MOST_TAGS:
            raise Unreadable(f"unpacks to {tags:,} elements in {part.filename}: not opened (a ZIP bomb?)")


def _tags(data: bytes, part: zipfile.ZipInfo) -> int:
    """The number of tags in a part."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive, archive.open(part) as file:
        return sum(block.count(b"<") for block in iter(lambda: file.read(2**20), b""))


def _content(document: Any) -> Content:
    pieces, headings, length = list[str](), list[Heading](), 0
    for text, level in _blocks(document):
        if not text.strip():
            continue
        start = length + len(_BETWEEN) * bool(pieces)
        length = start + len(text)
        pieces.append(text)
        if level:
            headings.append(Heading(start, length, level, " ".join(text.split())))
    title = document.core_properties.title or ""
    return Content(_BETWEEN.join(pieces), headings, title=" ".join(title.split()))


def _blocks(document: Any) -> Iterator[tuple[str, int]]:
    """(text, level of the heading or 0) of the paragraphs and tables, in order; a row of a table is a line."""
    levels = _levels(document)
    for block in _inner(document.element.body, (_PARAGRAPH, _TABLE)):
        yield _text_of(block), levels.get(block.style, 0) if block.tag == _PARAGRAPH else 0


def _text_of(block: Any) -> str:
    """The text of a paragraph or table. By the elements: python-docx makes an object and an XPath for each.

    Of a merged cell its `row.cells` gives one for each column that it says to span, which may be a billion.
    """
    if block.tag == _PARAGRAPH:
        return "".join(run.text for run in _inner(block, (_RUN,)))
    return "\n".join("\t".join(map(_text_of_cell, _inner(row, (_CELL,)))) for row in _inner(block, (_ROW,)))


def _text_of_cell(cell: Any) -> str:
    """The text of a cell, its paragraphs and the tables in it on lines."""
    return "\n".join(map(_text_of, _inner(cell, (_PARAGRAPH, _TABLE)))).strip()


def _inner(element: Any, tags: tuple[str, ...]) -> Iterator[Any]:
    """The elements with `tags` in `element`, also those within links, content controls and insertions."""
    for child in element:
        if child.tag in tags:
            yield child
        elif child.tag in _AROUND:
            yield from _inner(child, tags)


def _levels(document: Any) -> dict[str, int]:
    """Id of a style -> the level of its headings.

    By the elements, as `paragraph.style` goes through all styles at each paragraph, which is ten times the rest of the
    work, and an object for each style costs a third of it.
    """
    styles = ((style.styleId, style.name_val) for style in document.styles.element.xpath(_HEADING_STYLES))
    return {style: int(name[1]) for style, value in styles if (name := _HEADING.match(value))}
