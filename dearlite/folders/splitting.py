"""Passages of a text: by pages, headings and paragraphs, each at most a window of characters.

A passage never crosses a page or a heading. Paragraphs that fit into one window are put together; a longer one is cut
at sentences, else at line ends, else at spaces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from dearlite.folders.content import Content, Heading
from dearlite.readable import readable

WINDOW = 900  # characters: about 180 tokens of English
_TOKENS = 5  # characters of a token in an alphabet; in Chinese, Japanese and Korean a character is one
_PARAGRAPH = re.compile(r"\S[^\n]*(?:\n[^\S\n]*\S[^\n]*)*")  # lines up to a blank one; spaces may be at its end
_SENTENCE = re.compile(r"[.!?…][\"'”’)\]]*\s+|[。！？]")
_LINE = re.compile(r"\n")
_SPACE = re.compile(r"\s+")
_NARROW = bytes(range(0x2E))  # first bytes of characters below U+2E00 in UTF-16
_WIDE = re.compile("[\u2e80-\ud7ff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]+")


def passage_spans(content: Content, window: int = WINDOW) -> Iterator[tuple[int, int, str]]:
    """(start, end, heading path) of each passage of `content`, in the order of the text.

    `window` is the most characters of a passage, fewer in a text of wide characters. The spans have no space at either
    end; between them lies nothing to read.
    """
    window = _narrowed(content.text, window)
    breaks = (_LINE, _SPACE) if content.code else (_SENTENCE, _LINE, _SPACE)
    for start, end, heading in _sections(content):
        for span in _packed(_pieces(content.text, start, end, window, breaks), window):
            if readable(content.text[slice(*span)]):
                yield *span, heading


def _narrowed(text: str, window: int) -> int:
    """The window for `text`, whose wide characters cost as many tokens as a whole word does elsewhere."""
    # by bytes: to search a long text for a set of characters takes as long as the rest of the split
    if text.isascii() or not text.encode("utf-16-be", "surrogatepass")[::2].translate(None, _NARROW):
        return window
    wide = sum(len(run[0]) for run in _WIDE.finditer(text))
    return max(1, round(window / (1 + (_TOKENS - 1) * wide / len(text))))


def _sections(content: Content) -> Iterator[tuple[int, int, str]]:
    """(start, end, heading path) of the spans between headings and pages.

    A heading with nothing below it but another heading is put before that one, so that it is read with a text.
    """
    text, path = content.text, list[Heading]()
    headings = {heading.start: heading for heading in content.headings}
    starts = sorted({0, *headings, *content.page_starts})
    pages, pending = set(content.page_starts), -1
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        heading = headings.get(start)
        if heading is not None:
            path = [*(above for above in path if above.level < heading.level), heading]
            if end not in pages and end < len(text) and not text[heading.end : end].strip():
                pending = start if pending < 0 else pending
                continue
        yield (start if pending < 0 else pending), end, " > ".join(above.title for above in path)
        pending = -1


def _pieces(
    text: str, start: int, end: int, window: int, breaks: tuple[re.Pattern[str], ...]
) -> Iterator[tuple[int, int]]:
    """The paragraphs between `start` and `end`; of a paragraph longer than the window its parts."""
    for paragraph in _PARAGRAPH.finditer(text, start, end):
        position, last = paragraph.span()
        while text[last - 1].isspace():
            last -= 1
        while last - position > window:
            low, high = position + max(1, window // 2), position + window
            cuts = (max((cut.end() for cut in rule.finditer(text, low, high)), default=0) for rule in breaks)
            cut = next(filter(None, cuts), high)
            yield from _trimmed(text, position, cut)
            position = cut
        if position == paragraph.start():
            yield position, last
        else:
            yield from _trimmed(text, position, last)


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The span without spaces at its ends; nothing if it is blank."""
    part = text[start:end]
    if part and not part.isspace():
        yield start + len(part) - len(part.lstrip()), start + len(part.rstrip())


def _packed(pieces: Iterator[tuple[int, int]], window: int) -> Iterator[tuple[int, int]]:
    """Neighbouring pieces as one span while it stays within the window."""
    first, last = next(pieces, (0, 0))
    for start, end in pieces:
        if end - first > window:
            yield first, last
            first = start
        last = end
    if last:
        yield first, last
