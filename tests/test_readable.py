"""Emptiness by characters: a text that shows nothing is empty, and any text that shows something is not."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dearlite.readable import readable

# The characters of public bug reports (a page of which is "a document" to str.strip), and further ones of their kind.
NOTHING = {
    "zero-width space": "\u200b",
    "zero-width joiner": "\u200d",
    "byte order mark": "\ufeff",
    "soft hyphen": "\u00ad",
    "word joiner": "\u2060",
    "left-to-right mark": "\u200e",
    "variation selector": "\ufe0f",
    "half a surrogate, or bytes that could not be read": "\ufffd",
    "object replacement": "\ufffc",
    "NUL": "\0",
    "control characters": "\x01\x1b\x7f\x85",
    "private use": "\ue000\U000f0000",
    "noncharacter": "\uffff\ufdd0\U0001fffe",
    "lone combining mark": "\u0301",
    "lone combining mark after a space": " \u0301\u20dd",
    "Hangul filler": "\u3164\u115f\uffa0",
    "empty Braille cell": "\u2800",
    "spaces": " \t\r\n\u00a0\u2003\u3000",
    "no character": "",
}
SOMETHING = ["a", "7", "?", "€", "🙂", "e\u0301", "é", "雨", "ـ", "²", "\u200b.", "👩\u200d🚀", "\u0378", "가", "्क"]


@pytest.mark.parametrize("text", NOTHING.values(), ids=NOTHING)
def test_characters_that_show_nothing_are_no_text(text):
    assert not readable(text)
    assert not readable(text * 100_000)


@pytest.mark.parametrize("text", SOMETHING)
def test_one_character_that_shows_something_is_a_text(text):
    assert readable(text)
    assert readable("\u200b" * 200_000 + text)


@given(st.lists(st.sampled_from(list(NOTHING.values()))).map("".join), st.text())
def test_a_text_is_readable_if_and_only_if_a_part_of_it_is(nothing, text):
    assert not readable(nothing)
    assert readable(nothing + text) == readable(text)
    assert readable(text + nothing) == readable(text)


@given(st.text(st.characters(categories=["L", "N", "P"]), min_size=1))
def test_letters_digits_and_punctuation_are_read(text):
    assert readable(text) or all(unicodedata.name(char, "").endswith("FILLER") for char in text)
