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
_LEAST_STEM = 4  # letters of a term that also matches as a prefix
_NEAR = 100  # characters in which an answer has the query's terms
LONGEST = 100_000  # characters of a text that are looked at: a text of megabytes costs no more than these
_HEADING_MARK = re.compile(r"^(?:#{1,6} +|Subject: *)")
_UNDERLINE = re.compile(r"([=~^\"*+#-])\1{2,}")
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
    """The (start, end) of each word of `text` in `terms`. A term of four or more letters also matches as a prefix.

    So does the rest of an English one without its ending: "repairing" finds "repair" and "repaired".
    """
    stems = tuple(stem for term in terms if len(stem := _stem(term)) >= _LEAST_STEM)
    spans = []
    for match in _WORD.finditer(text):
        word = match[0].lower()
        if word in terms or (stems and word.startswith(stems)):
            spans.append(match.span())
    return spans


def _stem(word: str) -> str:
    """`word` without -ing, -ed or -s, where four letters remain."""
    for ending in ("ing", "ed", "s"):
        if word.endswith(ending) and not word.endswith(("ss", "eed")) and len(word) >= _LEAST_STEM + len(ending):
            return word.removesuffix(ending)
    return word


def _terms_of(text: str, spans: list[tuple[int, int]], terms: set[str]) -> list[str]:
    """The stem of the term that each of `spans` matches: of several the longest."""
    stems = sorted({_stem(term) for term in terms}, key=len, reverse=True)
    words = [text[start:end].lower() for start, end in spans]
    matches: dict[str, str] = {}
    for word in set(words):
        long = (stem for stem in stems if len(stem) >= _LEAST_STEM and word.startswith(stem))
        matches[word] = next(long, word)
    return [matches[word] for word in words]


def mark_terms(text: str, terms: set[str]) -> str:
    """`text` as HTML: escaped, with the words of `term_spans` in <mark>."""
    parts, end_of_last = [], 0
    for start, end in term_spans(text, terms):
        parts += [escape(text[end_of_last:start]), f"<mark>{escape(text[start:end])}</mark>"]
        end_of_last = end
    return "".join(parts) + escape(text[end_of_last:])


def _numbers_within(spans: list[tuple[int, int]], terms: list[str], width: int) -> list[int]:
    """For each of `spans`, the number of different `terms` in the `width` characters from its start."""
    numbers, last = [], 0
    inside: Counter[str] = Counter()  # of the terms of spans[first:last]
    for first, (start, _) in enumerate(spans):
        while last < len(spans) and spans[last][1] <= start + width:
            inside[terms[last]] += 1
            last += 1
        numbers.append(len(inside))
        if last == first:  # a word longer than the window
            last += 1
        elif inside[terms[first]] == 1:
            del inside[terms[first]]
        else:
            inside[terms[first]] -= 1
    return numbers


def _richest(spans: list[tuple[int, int]], terms: list[str], width: int) -> int:
    """The start of the first span near which most of the different `terms` are; 0 without one.

    They count in _NEAR characters, so that a narrow column does not hide an answer; of equal ones, in `width`.
    """
    near, within = _numbers_within(spans, terms, max(_NEAR, width)), _numbers_within(spans, terms, width)
    best = max(range(len(spans)), key=lambda span: (near[span], within[span]), default=None)
    return 0 if best is None or not within[best] else spans[best][0]


def _number_within(spans: list[tuple[int, int]], terms: list[str], start: int, width: int) -> int:
    """The number of different `terms` of `spans` in the `width` characters from `start`."""
    first = bisect_left(spans, (start, start))
    inside = set()
    for (_, end), term in zip(spans[first:], terms[first:], strict=True):
        if end > start + width:
            break
        inside.add(term)
    return len(inside)


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
    matched = _terms_of(text, spans, terms)
    best = _richest(spans, matched, width - 2)
    start = _sentence_start(text, best, width) if best else 0
    number = _number_within(spans, matched, best, width - 2)
    if start is None or _number_within(spans, matched, start, width - 2) < number:
        start = max(0, min(best - width // 6, len(text) - width))
        if start:
            start = text.find(" ", start) + 1 or start
    cut = text[start : start + width - 2]
    if start + len(cut) < len(text):
        cut = cut.rsplit(" ", 1)[0] + "…"
    return ("…" if start else "") + cut


def without_title(text: str, title: str) -> str:
    """`text` without the lines at its beginning that repeat `title`: headings, underlined or not, and a subject.

    `title` may be a path of headings, "Garden > Tomatoes", of which each may be such a line. A text that is nothing
    else stays as it is.
    """
    names = {plain(name) for name in (title, *title.split(" > ")) if name}
    rest = text
    while names and rest:
        line, _, after = rest.lstrip().partition("\n")
        if plain(_HEADING_MARK.sub("", line)) not in names:
            break
        underline, _, below = after.partition("\n")
        rest = below if _UNDERLINE.fullmatch(underline.strip()) else after
    return rest if rest.strip() else text
