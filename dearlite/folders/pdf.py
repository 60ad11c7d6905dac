"""PDF by PDFium, through pypdfium2: the text of each page."""

from __future__ import annotations

import ctypes
from contextlib import closing
from threading import Lock
from typing import Any

from dearlite.errors import counted, need
from dearlite.folders.content import Content, Unreadable

_PASSWORD = 4  # PDFium's FPDF_ERR_PASSWORD
_BETWEEN = "\n\n"
_MOST_DAMAGED = 1_000  # pages in a row
_PDFIUM = Lock()  # PDFium takes no two threads, whatever the documents


def read_pdf(data: bytes) -> Content:
    """The content of a PDF. Raises Unreadable if it is encrypted or damaged, and MissingExtra without pypdfium2."""
    pdfium = need("pypdfium2", extra="files")
    with _PDFIUM:
        try:
            document = pdfium.PdfDocument(data)
        except pdfium.PdfiumError as err:
            if getattr(err, "err_code", None) == _PASSWORD:
                raise Unreadable("is encrypted: save it without its password (qpdf --decrypt)") from None
            raise Unreadable("is no PDF that can be read (it is damaged, or another kind of file)") from None
        with closing(document):
            count = len(document)
            texts = _page_texts(pdfium.raw, document.raw, count)
    pages = [text or "" for text in texts]
    damaged = [str(number) for number, text in enumerate(texts, start=1) if text is None]
    if not any(map(str.strip, pages)):
        if len(damaged) == len(texts):
            raise Unreadable(f"is a damaged PDF: none of its {counted(count, 'page')} can be read")
        raise Unreadable("has no text: its pages are pictures (ocrmypdf adds their text)")
    starts = [0]
    for text in pages[:-1]:
        starts.append(starts[-1] + len(text) + len(_BETWEEN))
    note = f"has pages that cannot be read: {', '.join(damaged[:5])}{', …' * (len(damaged) > 5)}" if damaged else ""
    if len(texts) < count:
        note += f"; of the {count:,} pages that it says to have, those after {len(texts):,} were not tried"
    return Content(_BETWEEN.join(pages), page_starts=starts, note=note)


def _page_texts(raw: Any, document: Any, count: int) -> list[str | None]:
    """The text of each page, None for a damaged one. The number of pages that a PDF states may be false."""
    texts, damaged = list[str | None](), 0  # in a row
    for number in range(count):
        texts.append(_page_text(raw, document, number))
        damaged = damaged + 1 if texts[-1] is None else 0
        if damaged == _MOST_DAMAGED:
            break
    return texts


def _page_text(raw: Any, document: Any, number: int) -> str | None:
    """The text of page `number`, from 0; None if it is damaged.

    By PDFium's own functions: pypdfium2's objects for a page and its text take a sixth of the time.
    """
    page = raw.FPDF_LoadPage(document, number)
    if not page:
        return None
    textpage = raw.FPDFText_LoadPage(page)
    try:
        count = raw.FPDFText_CountChars(textpage) if textpage else -1
        if count < 0:
            return None
        buffer = (ctypes.c_ushort * (count + 1))()  # with the NUL at the end
        written = raw.FPDFText_GetText(textpage, 0, count, buffer)
        text = bytes(buffer)[: 2 * max(0, written - 1)].decode("utf-16-le", "ignore")
        return text.replace("\r\n", "\n").replace("\r", "\n")
    finally:
        if textpage:
            raw.FPDFText_ClosePage(textpage)
        raw.FPDF_ClosePage(page)
