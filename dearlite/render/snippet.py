"""The part of a document to show: one line around the query's terms, safe to print on a terminal or in HTML."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from html import escape

# Words of a query that do not help to locate an answer.
_COMMON_TEXT = """a an and are as at be by can did do does for from has have how i in is it its of on or that the their
there this to was were what when where which who whom whose why will with you your"""
_COMMON = frozenset(_COMMON_TEXT.split())
_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"[.!?]['\"”’)\]]*\s+|[。！？]['\"”’」』)]*\s*")
LONGEST = 100_000  # characters of a text that are looked at: a text of megabytes costs no more than these
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain(text: str) -> str:
    """`text` on one line, without control characters, at most LONGEST characters of it; … marks the cut.

    A document must not move a terminal's cursor or reverse the direction of its text.
    """
    text = " ".join(text[:LONGEST].split()) + ("…" if len(text) > LONGEST else "")
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        " " if unicodedata.category(char) in _UNPRINTABLE or char in _BIDI_CONTROLS else char for char in text
    )


def query_terms(query: str) -> set[str]:
    """The words of `query` to mark, in lower case: all but common ones and single letters, or all if none is left."""
    words = {word.lower() for word in _WORD.findall(query[:LONGEST])}
    return {word for word in words if word not in _COMMON and (len(word) > 1 or word.isdigit())} or words


def term_spans(text: str, terms: set[str]) -> list[tuple[int, int]]:
    """The (start, end) of each word of `text` in `terms`. A term of four or more letters also matches as a prefix."""
    stems = tuple(term for term in terms if len(term) >= 4)
    spans = []
    for match in _WORD.finditer(text):
        word = match[0].lower()
        if word in terms or (stems and word.startswith(stems)):
            spans.append(match.span())
    return spans


def mark_terms(text: str, terms: set[str]) -> str:
    """`text` as HTML: escaped, with the words of `term_spans` in <mark>."""
    parts, end_of_last = [], 0
    for start, end in term_spans(text, terms):
        parts += [escape(text[end_of_last:start]), f"<mark>{escape(text[start:end])}</mark>"]
        end_of_last = end
    return "".join(parts) + escape(text[end_of_last:])


def _richest(text: str, spans: list[tuple[int, int]], width: int) -> int:
    """The start of the first span from which `width` characters have the most different words of `spans`; or 0."""
    best, most, last = 0, 0, 0
    words = [text[start:end].lower() for start, end in spans]
    inside: Counter[str] = Counter()  # of the words of spans[first:last]
    for first, (start, _) in enumerate(spans):
        while last < len(spans) and spans[last][1] <= start + width:
            inside[words[last]] += 1
            last += 1
        if len(inside) > most:
            best, most = start, len(inside)
        if last == first:  # a word longer than the window
            last += 1
        elif inside[words[first]] == 1:
            del inside[words[first]]
        else:
            inside[words[first]] -= 1
    return best


def _words_within(text: str, spans: list[tuple[int, int]], start: int, width: int) -> int:
    """The number of different words of `spans` in the `width` characters from `start`."""
    words = set()
    for first, last in spans[bisect_left(spans, (start, start)) :]:
        if last > start + width:
            break
        words.add(text[first:last].lower())
    return len(words)


def _sentence_start(text: str, position: int, reach: int) -> int | None:
    """The start of the sentence with the character at `position`; None if the `reach` characters before have none."""
    before = text[max(0, position - reach) : position]
    ends = [match.end() for match in _SENTENCE_END.finditer(before)]
    if ends:
        return position - len(before) + ends[-1]
    return 0 if position <= reach else None


def snippet(text: str, terms: set[str], width: int) -> str:
    """At most `width` characters of `text`, from the part with the most different `terms`; … marks each cut.

    The part begins with its sentence, unless that pushes a term out. It is within the first LONGEST characters.
    """
    if len(text) <= width:
        return text
    spans = term_spans(text[:LONGEST], terms)
    best = _richest(text, spans, width - 2)
    start = _sentence_start(text, best, width) if best else 0
    if start is None or _words_within(text, spans, start, width - 2) < _words_within(text, spans, best, width - 2):
        start = max(0, min(best - width // 6, len(text) - width))
        if start:
            start = text.find(" ", start) + 1 or start
    cut = text[start : start + width - 2]
    if start + len(cut) < len(text):
        cut = cut.rsplit(" ", 1)[0] + "…"
    return ("…" if start else "") + cut
