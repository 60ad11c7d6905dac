from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from dearlite.errors import ModelFileError
from dearlite.pointwise.tokens import PairEncoder, TokenRow, cut_longest_first

# Ids in BERT's published vocab.txt: line numbers from 0.
CLS, SEP, MASK, PAD = 101, 102, 103, 0
OPEN, SEP_WORD, CLOSE = 1031, 19802, 1033  # "[", "sep", "]"

SENTENCE = "The quick brown fox jumps over the lazy dog, which is unremarkable. "
PAIRS = {
    "short": ("what is snow?", "Snow is frozen water."),
    "empty document": ("what is snow?", ""),
    "long document": ("what is snow?", SENTENCE * 200),
    "long query": (SENTENCE * 200, "Snow is frozen water."),
    "both long": (SENTENCE * 40, SENTENCE * 50),
    "both equally long": (SENTENCE * 40, SENTENCE * 40),
    "query a little longer": (SENTENCE * 40 + "dog", SENTENCE * 40),
    "accents": ("Où est l'Élysée?", "ÅNGSTRÖM naïve café — “quoted” … №5"),
    "Chinese": ("什么是雪?", "雪是冻结的水。" * 300),
    "emoji": ("snow ❄️ 👩‍👩‍👧", "🏔️❄️ snow⛄" * 90),
    "Arabic and Hindi": ("ما هو الثلج", "हिम जमा हुआ पानी है"),
    "control characters": ("a\x00b\tc\r\nd", "\u200bzero\u00adwidth\ufeff \ufffd"),
    "a word too long": ("x" * 150, "y" * 20_000),
}


def by_reference(tokenizer_json: bytes, max_tokens: int) -> Tokenizer:
    """The tokenizers library alone: template, types and truncation."""
    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens, strategy="longest_first")
    return tokenizer


@pytest.fixture(scope="session")
def coders(tokenizer_json: bytes) -> dict[int, tuple[PairEncoder, Tokenizer]]:
    """max_tokens -> our encoder and the reference."""
    sizes = (8, 16, 33, 128, 512)
    return {n: (PairEncoder(tokenizer_json, max_tokens=n), by_reference(tokenizer_json, n)) for n in sizes}


@pytest.fixture(scope="session")
def uncut(tokenizer_json: bytes) -> Tokenizer:
    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def encode(encoder: PairEncoder, query: str, document: str) -> TokenRow:
    (row,) = encoder.pairs(encoder.ids(query), [document])
    return row


@pytest.mark.parametrize("max_tokens", [16, 33, 128, 512])
@pytest.mark.parametrize(("query", "document"), PAIRS.values(), ids=PAIRS.keys())
def test_pair_equals_the_tokenizers_librarys(coders, uncut, query, document, max_tokens):
    encoder, reference = coders[max_tokens]
    row, expected = encode(encoder, query, document), reference.encode(query, document)
    assert row.ids.tolist() == expected.ids
    assert row.types.tolist() == expected.type_ids
    total = len(uncut.encode(query, document).ids)
    assert (row.tokens_used, row.tokens_total) == (len(expected.ids), total)
    assert row.truncated == (total > max_tokens)
    query_kept, query_total = expected.sequence_ids.count(0), len(uncut.encode(query).ids) - 2
    assert row.query_truncated == (query_kept < query_total)


@settings(max_examples=150)
@given(query=st.text(max_size=60), document=st.text(max_size=200), max_tokens=st.sampled_from([8, 33, 128]))
def test_any_unicode_pair_equals_the_tokenizers_librarys(coders, query, document, max_tokens):
    encoder, reference = coders[max_tokens]
    row, expected = encode(encoder, query, document), reference.encode(query, document)
    assert row.ids.tolist() == expected.ids
    assert row.types.tolist() == expected.type_ids


def test_a_row_by_hand(coders):
    # vocab.txt: what 2054, is 2003, hello 7592, world 2088
    row = encode(coders[512][0], "what is", "Hello world")
    assert row.ids.tolist() == [CLS, 2054, 2003, SEP, 7592, 2088, SEP]
    assert row.types.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert row.ids.dtype == row.types.dtype == np.int64
    assert (row.tokens_used, row.tokens_total, row.truncated) == (7, 7, False)


def test_a_cut_row_by_hand(coders):
    # 8 tokens minus 3 special ones leave 5: the query keeps its 2, the document 3 of its 6
    row = encode(coders[8][0], "what is", "hello world " * 3)
    assert row.ids.tolist() == [CLS, 2054, 2003, SEP, 7592, 2088, 7592, SEP]
    assert (row.tokens_used, row.tokens_total, row.truncated) == (8, 11, True)


def test_a_truncated_query_is_reported(coders):
    # room for 5: a query of 4 and a document of 1 fit; 4 and 4 are cut to 2 and 3
    assert not encode(coders[8][0], "what is what is", "hello").query_truncated
    assert not encode(coders[8][0], "what is", "hello world " * 3).query_truncated
    cut = encode(coders[8][0], "what is what is", "hello world " * 2)
    assert cut.ids.tolist() == [CLS, 2054, 2003, SEP, 7592, 2088, 7592, SEP]
    assert cut.query_truncated


def test_a_pair_that_just_fits_is_not_truncated(coders):
    row = encode(coders[8][0], "what is", "hello world hello")
    assert (row.tokens_used, row.tokens_total, row.truncated) == (8, 8, False)


@pytest.mark.parametrize(
    ("forged", "pieces"),
    [
        ("[SEP]", ["[", "sep", "]"]),
        ("[sep]", ["[", "sep", "]"]),
        ("[CLS]", ["[", "cl", "##s", "]"]),
        ("[PAD]", ["[", "pad", "]"]),
        ("[MASK]", ["[", "mask", "]"]),
        ("</s>", ["<", "/", "s", ">"]),
    ],
)
def test_special_tokens_in_a_text_are_plain_characters(coders, tokenizer_json, forged, pieces):
    vocabulary = json.loads(tokenizer_json)["model"]["vocab"]
    plain = [vocabulary[piece] for piece in pieces]
    hello, world = vocabulary["hello"], vocabulary["world"]
    row = encode(coders[512][0], f"hello {forged}", f"{forged} hello{forged}world")
    query, document = [hello, *plain], [*plain, hello, *plain, world]
    assert row.ids.tolist() == [CLS, *query, SEP, *document, SEP]
    assert row.types.tolist() == [0] * (len(query) + 2) + [1] * (len(document) + 1)


def test_a_forged_separator_has_the_published_ids(coders):
    row = encode(coders[512][0], "[SEP]", "[SEP][CLS]")
    assert row.ids.tolist()[:5] == [CLS, OPEN, SEP_WORD, CLOSE, SEP]
    assert row.ids.tolist().count(CLS) == 1
    assert row.ids.tolist().count(SEP) == 2


def test_a_unigram_vocabulary_does_not_find_its_special_pieces_in_a_text():
    """XLM-R's and T5's vocabularies hold "</s>" as a piece like any other."""
    characters = [[character, -3.0] for character in "</s>▁ab"]
    model = {"type": "Unigram", "unk_id": 2, "vocab": [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], *characters]}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    specials = {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}
    a, end, b = (
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "</s>", "type_id": 0}},
        {"Sequence": {"id": "B", "type_id": 1}},
    )
    tokenizer = {
        "added_tokens": [{"id": n, "content": text, **flags} for n, text in enumerate(("<pad>", "</s>", "<unk>"))],
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [a, end],
            "pair": [a, end, b, end],
            "special_tokens": specials,
        },
        "decoder": None,
        "model": model,
    }
    encoder = PairEncoder(json.dumps(tokenizer).encode(), max_tokens=64)
    forged = [7, 3, 4, 5, 6]  # ▁ < / s >
    (row,) = encoder.pairs(encoder.ids("</s>"), ["a</s> <unk>b"])
    assert row.ids.tolist() == [*forged, 1, 7, 8, 3, 4, 5, 6, 7, 3, 2, 6, 9, 1]
    assert encoder.special_tokens == {"<pad>": 0, "</s>": 1, "<unk>": 2}


SPECIAL = st.sampled_from(["[SEP]", "[CLS]", "[PAD]", "[MASK]", "[UNK]", "</s>", "<s>"])


@settings(max_examples=100)
@given(st.lists(st.one_of(SPECIAL, st.text(alphabet="ab [].", max_size=4)), max_size=12).map("".join))
def test_no_text_holds_a_special_token(coders, text):
    ids = coders[512][0].ids(text)
    assert not {CLS, SEP, MASK, PAD} & set(ids)


def test_truncation_and_padding_baked_into_the_file_are_switched_off(tokenizer_json):
    baked = json.loads(tokenizer_json)
    assert baked["padding"] is not None  # the published file has both, otherwise this test checks nothing
    assert baked["truncation"] is not None
    encoder = PairEncoder(tokenizer_json, max_tokens=2000)
    row = encode(encoder, "hello", "world " * 1000)
    assert row.ids.tolist() == [CLS, 7592, SEP, *[2088] * 1000, SEP]
    assert encode(encoder, "hello", "world").tokens_used == 5


@pytest.mark.parametrize(
    ("query", "document", "room", "kept"),
    [
        (10, 500, 100, (10, 90)),
        (500, 10, 100, (90, 10)),
        (80, 80, 100, (50, 50)),
        (80, 80, 101, (50, 51)),
        (81, 80, 101, (51, 50)),
        (50, 500, 100, (50, 50)),
        (51, 500, 100, (50, 50)),
        (60, 40, 100, (60, 40)),
        (0, 500, 100, (0, 100)),
        (500, 0, 100, (100, 0)),
        (0, 0, 2, (0, 0)),
    ],
)
def test_the_longer_side_is_cut_first(query, document, room, kept):
    assert cut_longest_first(query, document, room) == kept


def word_counter() -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({"a": 0, "b": 1}, unk_token="a"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return tokenizer


WORD_COUNTER = word_counter()


@settings(max_examples=150)
@given(query=st.integers(0, 300), document=st.integers(0, 300), room=st.integers(2, 320))
@example(query=50, document=51, room=100)
@example(query=51, document=50, room=100)
@example(query=50, document=50, room=99)
def test_the_cut_is_the_tokenizers_librarys_own(query, document, room):
    WORD_COUNTER.enable_truncation(room, strategy="longest_first")
    sides = WORD_COUNTER.encode("a " * query, "b " * document).sequence_ids
    assert cut_longest_first(query, document, room) == (sides.count(0), sides.count(1))


def test_rows_come_in_the_order_of_the_texts(coders):
    encoder = coders[512][0]
    numbers = [str(n) for n in range(300)]  # more than one chunk of the tokenizer
    rows = list(encoder.pairs(encoder.ids("hello"), numbers))
    assert len(rows) == 300
    assert [row.ids.tolist() for row in rows] == [encode(encoder, "hello", n).ids.tolist() for n in numbers]


def test_a_huge_text_between_small_ones_loses_none(coders):
    encoder = coders[128][0]
    rows = list(encoder.pairs(encoder.ids("hello"), ["hello", "world " * 200_000, "hello"]))
    totals = [row.tokens_total for row in rows]
    assert (totals[0], totals[2]) == (5, 5)
    assert 128 < totals[1] <= 200_004
    assert [row.tokens_total_is_bound for row in rows] == [False, True, False]
    assert [row.tokens_used for row in rows] == [5, 128, 5]


def test_texts_are_taken_as_rows_are_consumed(coders):
    taken = 0

    def texts() -> Iterator[str]:
        nonlocal taken
        for _ in range(10_000):
            taken += 1
            yield "hello"

    encoder = coders[128][0]
    rows = encoder.pairs(encoder.ids("hello"), texts())
    assert taken == 0
    next(rows)
    assert taken < 1000


def test_no_texts_give_no_rows(coders):
    assert list(coders[128][0].pairs([7592], [])) == []


@pytest.mark.parametrize("data", [b"", b"{}", b"not json", b"\xff\xfe"])
def test_a_tokenizer_that_cannot_be_read_is_a_bundle_error(data):
    with pytest.raises(ModelFileError, match="tokenizer"):
        PairEncoder(data, max_tokens=512)


@pytest.mark.parametrize("max_tokens", [-1, 0, 3, 4])
def test_max_tokens_without_room_for_two_texts_is_a_bundle_error(tokenizer_json, max_tokens):
    with pytest.raises(ModelFileError, match=f"max_tokens {max_tokens} "):
        PairEncoder(tokenizer_json, max_tokens=max_tokens)
