"""The split of a text into passages, and the headings of Markdown and reStructuredText; expected values by hand."""

import pytest

from dearlite.folders.content import Content, Heading
from dearlite.folders.markdown import read_markdown
from dearlite.folders.restructured import read_restructured
from dearlite.folders.splitting import passage_spans
from dearlite.folders.texts import read_code


def parts(content, window):
    return [content.text[start:end] for start, end, _ in passage_spans(content, window)]


@pytest.mark.parametrize(
    ("text", "window", "passages"),
    [
        ("one\n\ntwo\n\nthree", 8, ["one\n\ntwo", "three"]),  # neighbours within the window are one passage
        ("one\n\ntwo\n\nthree", 15, ["one\n\ntwo\n\nthree"]),
        ("  \n\n one \n \n", 50, ["one"]),
        ("", 50, []),
        ("Aa bb cc. Dd ee ff. Gg.", 20, ["Aa bb cc. Dd ee ff.", "Gg."]),  # at the last sentence that fits
        ("aaaa bbbb cccc dddd", 10, ["aaaa bbbb", "cccc dddd"]),  # at a space
        ("abcdefghij", 4, ["abcd", "efgh", "ij"]),  # nowhere to cut
        ("\u200b\ufeff", 50, []),  # nothing to read
    ],
)
def test_paragraphs_become_passages_within_the_window(text, window, passages):
    assert parts(Content(text), window) == passages


def test_code_is_cut_at_lines_and_not_at_sentences():
    assert parts(read_code(b"x = 1. \ny = 2\nz = 3\n"), 16) == ["x = 1. \ny = 2", "z = 3"]


def test_wide_characters_count_as_the_tokens_that_they_are():
    text = "漢" * 300
    assert {len(part) for part in parts(Content(text), 900)} == {180, 120}


def test_no_passage_crosses_a_page_or_a_heading():
    content = Content("one\n\ntwo\n\nHead\n\nthree", [Heading(10, 14, 1, "Head")], page_starts=[0, 5])
    assert [(content.text[a:b], content.page(a), path) for a, b, path in passage_spans(content, 900)] == [
        ("one", 1, ""),
        ("two", 2, ""),
        ("Head\n\nthree", 2, "Head"),
    ]


def test_a_heading_without_text_goes_with_the_one_below_it():
    content = read_markdown(b"# A\n\n## B\n\ntext\n\n# C\n")
    assert [(content.text[a:b], path) for a, b, path in passage_spans(content)] == [
        ("# A\n\n## B\n\ntext", "A > B"),
        ("# C", "C"),
    ]


@pytest.mark.parametrize(
    ("source", "headings"),
    [
        ("# One\n## Two ##\n#No\n####### No\n#\n", [(1, "One"), (2, "Two")]),
        ("One\n===\n\nTwo\nlines\n---\n", [(1, "One"), (2, "Two lines")]),
        ("```\n# code\n```\n~~~ x\n# code\n```\n~~~\n# After\n", [(1, "After")]),
        ("---\n# metadata\n---\n# Text\n", [(1, "Text")]),
        ("text\n\n---\n\n- item\n---\n", []),  # rules between paragraphs
        ("    # code\n", []),
    ],
)
def test_headings_of_markdown(source, headings):
    content = read_markdown(source.encode())
    assert [(heading.level, heading.title) for heading in content.headings] == headings
    assert all(content.text[heading.start : heading.end].strip() for heading in content.headings)


def test_titles_of_restructured_text_have_the_level_of_their_marks():
    content = read_restructured(
        b"====\nBook\n====\n\nPart\n====\n\nText.\n\nItem\n----\n\nMore\n----\n\nLast\n====\n\na\n-\n\nlong title\n--\n"
    )
    assert [(heading.level, heading.title) for heading in content.headings] == [
        (1, "Book"),
        (2, "Part"),
        (3, "Item"),
        (3, "More"),
        (2, "Last"),
        (3, "a"),
    ]
