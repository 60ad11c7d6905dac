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


def test_a_part_begins_with_its_sentence_unless_a_term_would_be_lost():
    text = "A long first sentence that says nothing of the matter. It was late. Rain fell on the hill all day long."
    assert snippet(text, {"rain", "hill"}, 60) == "…Rain fell on the hill all day long."
    assert snippet("Ships carry grain. " + text, {"rain", "hill"}, 60) == "…Rain fell on the hill all day long."
    # The sentence's beginning is too far from its words.
    far = (
        "Ships carry. On that morning, when nobody had thought of it any more and all were asleep, rain fell on a hill."
    )
    assert snippet(far, {"rain", "hill"}, 40).endswith("rain fell on a hill.")
    assert snippet("雪が降る。雨が 丘 に降る。" * 1 + "x" * 40, {"丘"}, 30).startswith("…雨が")
