"""The part of a text to show: the one with the most different terms, at a cost that long texts do not raise."""

from hypothesis import given
from hypothesis import strategies as st

from dearlite.render import snippet as module
from dearlite.render.snippet import LONGEST, mark_terms, plain, snippet, term_spans

TEXTS = st.lists(st.sampled_from(["rain", "hill", "Hill", "sea", "x", "a" * 50]), max_size=60).map(" ".join)


@given(TEXTS, st.integers(5, 90))
def test_the_part_with_the_most_different_terms_is_shown(text, width):
    spans = term_spans(text, {"rain", "hill", "a" * 50})
    best, most = 0, 0
    for start, _ in spans:  # all pairs of terms: the definition, and quadratic
        inside = {text[a:b].lower() for a, b in spans if a >= start and b <= start + width}
        if len(inside) > most:
            best, most = start, len(inside)
    assert module._richest(text, spans, width) == best
    assert len(snippet(text, {"rain", "hill"}, width)) <= width


def test_a_text_of_megabytes_is_shown_by_its_beginning():
    text = "rain falls " * 1_000_000
    shown = mark_terms(snippet(plain(text), {"rain"}, 240), {"rain"})
    assert shown.startswith("<mark>rain</mark> falls")
    assert shown.endswith("…")
    assert len(plain(text)) <= LONGEST + 1
    assert len(snippet(text, {"falls"}, 240)) <= 240
