"""The part of a document that a person should see: where the query's words are, on one harmless line."""

from __future__ import annotations

import re
import unicodedata

# Words that say nothing about where an answer is.
_COMMON_TEXT = """a an and are as at be by can did do does for from has have how i in is it its of on or that the their
there this to was were what when where which who whom whose why will with you your"""
_COMMON = frozenset(_COMMON_TEXT.split())
_WORD = re.compile(r"\w+")
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
_TURNS_TEXT = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # bidi controls


def plain(text: str) -> str:
    """`text` on one line and without control characters: no document may move a terminal's cursor or turn its text."""
    text = " ".join(text.split())
    if text.isascii() and text.isprintable():
        return text
    return "".join(" " if unicodedata.category(c) in _UNPRINTABLE or c in _TURNS_TEXT else c for c in text)


def query_terms(query: str) -> set[str]:
    """The words of `query` that are worth picking out, in lower case."""
    words = {word.lower() for word in _WORD.findall(query)}
    return {word for word in words if word not in _COMMON and (len(word) > 1 or word.isdigit())} or words


def term_spans(text: str, terms: set[str]) -> list[tuple[int, int]]:
    """Where words of `terms` stand in `text`, as (start, end); a term of four letters also matches a longer word."""
    stems = tuple(term for term in terms if len(term) >= 4)
    spans = []
    for match in _WORD.finditer(text):
        word = match[0].lower()
        if word in terms or (stems and word.startswith(stems)):
            spans.append(match.span())
    return spans


def snippet(text: str, terms: set[str], width: int) -> str:
    """At most `width` characters of `text`, from the place where most of `terms` are, with … where it is cut."""
    if len(text) <= width:
        return text
    spans = term_spans(text, terms)
    best, most = 0, 0
    for start, _ in spans:
        inside = {text[a:b].lower() for a, b in spans if a >= start and b <= start + width - 2}
        if len(inside) > most:
            best, most = start, len(inside)
    if best + width < len(text) and best < width // 3:
        best = 0  # near the beginning: begin there
    start = max(0, min(best - width // 6, len(text) - width)) if best else 0
    if start:
        start = text.find(" ", start) + 1 or start
    cut = text[start : start + width - 2]
    if start + len(cut) < len(text):
        cut = cut.rsplit(" ", 1)[0] + "…"
    return ("…" if start else "") + cut
