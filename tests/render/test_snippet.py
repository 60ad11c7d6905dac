"""The part of a text to show: the one with the most different terms, at a cost that long texts do not raise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dearlite.render import snippet as module
from dearlite.render.snippet import LONGEST, mark_terms, plain, query_terms, snippet, term_spans, without_title

TEXTS = st.lists(st.sampled_from(["rain", "hill", "Hill", "sea", "x", "a" * 50]), max_size=60).map(" ".join)


@given(TEXTS, st.integers(5, 90))
def test_the_part_with_the_most_different_terms_is_shown(text, width):
    terms = {"rain", "hill", "a" * 50}
    spans = term_spans(text, terms)
    best, most = 0, (0, 0)
    for start, _ in spans:  # all pairs of terms: the definition, and quadratic
        near, inside = (
            {text[a:b].lower() for a, b in spans if a >= start and b <= start + reach} for reach in (100, width)
        )
        if (len(near), len(inside)) > most:
            best, most = start, (len(near), len(inside))
    assert module._richest(spans, module._terms_of(text, spans, terms), width) == (best if most[1] else 0)
    assert len(snippet(text, {"rain", "hill"}, width)) <= width


@pytest.mark.parametrize("width", [36, 40, 60, 90])
def test_an_answer_is_shown_rather_than_a_header_with_one_of_its_words(width):
    mail = plain(
        "To: Roof and roofs\nSubject: Offer for your roof, roofing, roofs\nFrom: Anna Meyer\n\nDear Bob, thank you for "
        "the call and the pictures, which we saw in the office on Monday.\nRepairing the roof of the shed will cost "
        "1,240 euros, with all tiles and the work of two days.\n"
    )
    assert snippet(mail, query_terms("what did the roof repair cost?"), width).startswith("…Repairing the roof of")
    assert "Repair of" in snippet("x " * 80 + "Repair of it.", query_terms("costs of repairing"), width)


def test_terms_count_once_whatever_their_endings():
    text = "Roof roofs roofing roofed. " + "x " * 60 + "It rains. The roof costs money."
    assert snippet(text, {"roof", "costing"}, 40) == "…The roof costs money."
    assert term_spans("sting bed reed dress dres", {"sting", "bed", "reed", "dress"}) == [
        *((0, 5), (6, 9), (10, 14), (15, 20)),
    ]


@pytest.mark.parametrize(
    ("text", "title", "rest"),
    [
        ("Rye bread\n\nMix 500 g.", "Rye bread", "Mix 500 g."),
        ("Rye bread\n=====\nMix", "Rye bread", "Mix"),
        ("# Garden\n\n## Tomatoes\nWater", "Garden > Tomatoes", "Water"),
        ("## Tomatoes\n\nWater", "Garden > Tomatoes", "Water"),
        ("Subject: Offer\nFrom: Anna", "Offer", "From: Anna"),
        ("Rye is a grain.", "Rye", "Rye is a grain."),  # a sentence begins with the title
        ("## Tomatoes", "Garden > Tomatoes", "## Tomatoes"),
        ("## Roof\n\nTiles", "", "## Roof Tiles"),
    ],
)
def test_a_title_is_not_shown_twice(text, title, rest):
    assert plain(without_title(text, title)) == rest


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
