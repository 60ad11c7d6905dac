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
_RUN, _LINK, _CELL, _PARAGRAPH = (f"{_WORD}{name}" for name in ("r", "hyperlink", "tc", "p"))
_MOST_UNPACKED = 50_000_000  # bytes beside the size of the file itself: pictures do not grow when they are unpacked
_MOST_PARTS = 5_000
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
        raise Unreadable(f"is no Word document that can be read ({first_line(err)})") from None


def _check_size(data: bytes) -> None:
    """Raises Unreadable for a ZIP bomb. `zipfile` gives no more of a part than the size that its header declares."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = archive.infolist()
    unpacked, most = sum(part.file_size for part in parts), _MOST_UNPACKED + len(data)
    if unpacked > most or len(parts) > _MOST_PARTS:
        raise Unreadable(f"unpacks to {unpacked / 1e6:,.0f} MB in {len(parts):,} parts: not opened (a ZIP bomb?)")


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
    for block in document.iter_inner_content():
        if hasattr(block, "rows"):
            # of a merged cell `row.cells` gives one for each column that it says to span, which may be a billion
            rows = ([_text_of(cell) for cell in row._tr.iterchildren(_CELL)] for row in block.rows)
            yield "\n".join("\t".join(cells) for cells in rows), 0
        else:
            yield _text_of_paragraph(block._p), levels.get(block._p.style, 0)


def _text_of(cell: Any) -> str:
    """The text of a cell, its paragraphs on lines."""
    return "\n".join(map(_text_of_paragraph, cell.iterchildren(_PARAGRAPH))).strip()


def _text_of_paragraph(paragraph: Any) -> str:
    """As python-docx's `Paragraph.text`, which makes an XPath for each."""
    return "".join(run.text for run in paragraph.iterchildren(_RUN, _LINK))


def _levels(document: Any) -> dict[str, int]:
    """Id of a style -> the level of its headings.

    By the elements, as `paragraph.style` goes through all styles at each paragraph, which is ten times the rest of the
    work, and an object for each style costs a third of it.
    """
    styles = ((style.styleId, style.name_val) for style in document.styles.element.xpath(_HEADING_STYLES))
    return {style: int(name[1]) for style, value in styles if (name := _HEADING.match(value))}
