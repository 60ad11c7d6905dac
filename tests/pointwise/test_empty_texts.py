"""What a tokenizer makes of texts that show nothing."""

from tokenizers import Tokenizer, models, pre_tokenizers, processors

from dearlite.documents import Document
from dearlite.options import Long
from dearlite.pointwise.passages import split_documents
from dearlite.pointwise.tokens import PairEncoder
from dearlite.readable import readable


def test_a_passage_of_nothing_is_not_read():
    """With bytes as tokens invisible characters fill passages; BERT drops them."""
    tokenizer = Tokenizer(
        models.BPE(vocab={char: n for n, char in enumerate(pre_tokenizers.ByteLevel.alphabet())}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B:1", [("<s>", 256)])
    encoder = PairEncoder(tokenizer.to_str().encode(), max_tokens=64)
    text = "rain falls on hills " + "\u200b" * 200 + " ships carry grain"
    parts = split_documents(
        [Document(text), Document("\u200b" * 90, title="Hills")],
        encoder,
        encoder.layout.room_beside(2),
        Long("chunk", 16),
    )
    shown = [part.document.text for part in parts if part.index == 0]
    assert "".join(shown).count("\u200b") < 20
    assert all(any(map(str.isalpha, passage)) for passage in shown)
    assert shown[-1].endswith("grain")
    assert [part.index for part in parts].count(1) == 1  # the title is read with one passage


def test_bert_has_a_token_of_every_character_that_shows_something(tokenizer_json):
    encoder = PairEncoder(tokenizer_json, max_tokens=512)
    chars = map(chr, (*range(0xD800), *range(0xE000, 0x20000)))
    assert [char for char in chars if readable(char) and not encoder.ids(char)] == []
