"""Files per second of `read_folder`, beside the library beneath it alone: Markdown, HTML, PDF and Word.

    python benchmarks/folders.py --files 1000

The library alone takes the text of each file in the same order: markdown-it-py parses the blocks of Markdown, lxml
reads HTML, pypdfium2 PDF, python-docx Word. `read_folder` also walks the folder, splits the texts and finds lines and
pages. lxml's text runs the words of neighbouring paragraphs together, and has no lines. Times are of the
clock, the median of rounds in which the two take turns. The files are made from the documentation of this checkout;
those of PDF need fpdf2.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from dearlite import read_folder

DOCS = Path(__file__).parents[1] / "docs"
CHARACTERS = 8_000  # of a file: three pages


def texts(count: int) -> Iterator[str]:
    """Parts of the documentation, each file with another beginning."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md")))
    for number in range(count):
        start = (number * 7919) % (len(text) - CHARACTERS)
        yield f"# File {number}\n\n{text[start : start + CHARACTERS]}"


def write_markdown(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_html(path: Path, text: str) -> None:
    paragraphs = "".join(f"<p>{part}</p>\n" for part in text.replace("<", "&lt;").split("\n\n"))
    path.write_text(f"<html><body>{paragraphs}</body></html>", encoding="utf-8")


def write_pdf(path: Path, text: str) -> None:
    from fpdf import FPDF

    pdf = FPDF()
    pdf.set_font("Helvetica", size=10)
    for start in range(0, len(text), CHARACTERS // 3):
        pdf.add_page()
        pdf.multi_cell(0, text=text[start : start + CHARACTERS // 3].encode("latin-1", "replace").decode("latin-1"))
    pdf.output(str(path))


def write_docx(path: Path, text: str) -> None:
    import docx

    document = docx.Document()
    for part in text.split("\n\n"):
        document.add_paragraph("".join(char for char in part if char.isprintable()))
    document.save(str(path))


def markdown_alone(path: Path) -> str:
    from markdown_it import MarkdownIt  # rich needs it

    return str(MarkdownIt("commonmark").disable("inline").parse(path.read_text(encoding="utf-8")))


def html_alone(path: Path) -> str:
    from lxml import html

    return str(html.fromstring(path.read_bytes()).text_content())


def pdf_alone(path: Path) -> str:
    import pypdfium2

    document = pypdfium2.PdfDocument(path.read_bytes())
    try:
        return "".join(page.get_textpage().get_text_range() for page in document)
    finally:
        document.close()


def docx_alone(path: Path) -> str:
    import docx

    return "\n".join(paragraph.text for paragraph in docx.Document(str(path)).paragraphs)


# ending -> the writer of a file, the library alone, and the share of the files: Word is slow to write
KINDS: dict[str, tuple[Callable[[Path, str], None], Callable[[Path], str], float]] = {
    ".md": (write_markdown, markdown_alone, 1),
    ".html": (write_html, html_alone, 1),
    ".pdf": (write_pdf, pdf_alone, 1),
    ".docx": (write_docx, docx_alone, 0.1),
}


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print("| kind | files | MB | library alone, files/s | read_folder, files/s | ratio | passages |")
    print("|---|---|---|---|---|---|---|")
    for ending, (write, alone, share) in KINDS.items():
        with tempfile.TemporaryDirectory() as name:
            folder, count = Path(name), round(options.files * share)
            for number, text in enumerate(texts(count)):
                write(folder / f"{number:05}{ending}", text)
            files = sorted(folder.iterdir())
            size = sum(path.stat().st_size for path in files) / 1e6
            pairs = [
                (seconds(lambda: [alone(path) for path in files]), seconds(lambda: read_folder(folder)))  # noqa: B023
                for _ in range(options.rounds + 1)
            ][1:]  # the first fills the file cache and imports the libraries
            library, ours = (count / median(times) for times in zip(*pairs, strict=True))
            print(
                f"| {ending} | {count:,} | {size:.1f} | {library:,.0f} | {ours:,.0f} | {ours / library:.2f} "
                f"| {len(read_folder(folder)):,} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
