"""Strict parsing of written orders."""

import pytest

from dearlite.listwise.answers import read_order, sentences_naming

NAMES = ("1", "2", "3")
BROKEN = "the order breaks off, or holds something else than identifiers"


@pytest.mark.parametrize(
    ("text", "positions", "problems"),
    [
        ("[2] > [1] > [3]", (1, 0, 2), ()),
        ("I think [2]>[1]  >\n[3].", (1, 0, 2), ()),
        ("Step 1 of 3: passage [3] has it. [2] > [1] > [3]", (1, 0, 2), ()),  # numbers outside the chain are not read
        ("First [1] > [2], no: [3] > [2] > [1]", (2, 1, 0), ()),  # the last chain counts
        ("<think>[1] > [2] > [3]</think>[3] > [1] > [2]", (2, 0, 1), ()),
        ("[1] > [2] > [3]</think>nothing", (), ("no order [i] > [j] in the answer",)),
        ("[2] > [2] > [1]", (1, 0), ("[2] twice", "[3] missing")),
        ("[2] > [7] > [1] > [3]", (1, 0, 2), ("[7] unknown",)),
        ("[2] > [1] > [three]", (1, 0), ("[3] missing", BROKEN)),
        ("[02] > [1] > [3]", (1, 0, 2), ()),
        ("Received passage [2].", (), ("no order [i] > [j] in the answer",)),
        ("1 > 2 > 3", (), ("no order [i] > [j] in the answer",)),
        ("", (), ("no order [i] > [j] in the answer",)),
    ],
)  # fmt: skip
def test_read_order(text, positions, problems):
    assert read_order(text, NAMES) == (positions, problems)


def test_one_document_is_read_without_a_chain():
    assert read_order("The answer is [0].", ("0",)) == ((0,), ())


def test_sentences_naming_gives_each_passage_its_sentences():
    text = "Passage [2] names Edison. It is old.\n- [1] is about coffee, unlike [2]\nNothing more [12]."
    assert sentences_naming(text, NAMES) == [
        "- [1] is about coffee, unlike [2]",
        "Passage [2] names Edison. - [1] is about coffee, unlike [2]",
        "",
    ]
