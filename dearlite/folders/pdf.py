"""PDF by pypdfium2: the text of each page."""

from __future__ import annotations

from contextlib import closing

from dearlite.errors import first_line, need
from dearlite.folders.content import Content, Unreadable

_PASSWORD = 4  # PDFium's FPDF_ERR_PASSWORD
_BETWEEN = "\n\n"


def read_pdf(data: bytes) -> Content:
    """The content of a PDF. Raises Unreadable if it is encrypted or damaged, and MissingExtra without pypdfium2."""
    pdfium = need("pypdfium2", extra="files")
    try:
        document = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as err:
        if getattr(err, "err_code", None) == _PASSWORD:
            raise Unreadable("is encrypted: save it without its password (qpdf --decrypt)") from None
        raise Unreadable(f"is no PDF that can be read ({first_line(err)})") from None
    pages, damaged = list[str](), list[int]()
    with closing(document):
        for number in range(len(document)):
            try:
                with closing(document[number]) as page, closing(page.get_textpage()) as textpage:
                    pages.append(textpage.get_text_range().replace("\r\n", "\n").replace("\r", "\n"))
            except pdfium.PdfiumError:
                pages.append("")
                damaged.append(number + 1)
    if not any(map(str.strip, pages)):
        raise Unreadable("has no text: its pages are pictures (ocrmypdf adds their text)")
    starts = [0]
    for page_text in pages[:-1]:
        starts.append(starts[-1] + len(page_text) + len(_BETWEEN))
    note = f"has pages that cannot be read: {', '.join(map(str, damaged[:5]))}" if damaged else ""
    return Content(_BETWEEN.join(pages), page_starts=starts, note=note)
