"""The part of a document to show: one line around the query's terms, safe to print on a terminal or in HTML."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from html import escape

# Words of a query that do not help to locate an answer.
_COMMON_TEXT = """a an and are as at be by can did do does for from has have how i in is it its of on or that the their
there this to was were what when where which who whom whose why will with you your"""
_COMMON = frozenset(_COMMON_TEXT.split())
_WORD = re.compile(r"\w+")
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


def snippet(text: str, terms: set[str], width: int) -> str:
    """At most `width` characters of `text`, from the part with the most different `terms`; … marks each cut.

    The part is within the first LONGEST characters.
    """
    if len(text) <= width:
        return text
    best = _richest(text, term_spans(text[:LONGEST], terms), width - 2)
    if best + width < len(text) and best < width // 3:
        best = 0  # near the beginning: start there
    start = max(0, min(best - width // 6, len(text) - width)) if best else 0
    if start:
        start = text.find(" ", start) + 1 or start
    cut = text[start : start + width - 2]
    if start + len(cut) < len(text):
        cut = cut.rsplit(" ", 1)[0] + "…"
    return ("…" if start else "") + cut
