"""The parts of a cross-encoder's folder are held to each other: a change of one is refused by name, or does no harm."""

import numpy as np
import pytest

pytest.importorskip("optimum.exporters.onnx", reason="the extra `encoders` is not installed")
from corruptions import added, both, config, copy_of, edit_json, tensors, tokenizer
from test_encoders import checkpoint

from dearlite import Reranker
from dearlite.errors import DearliteError
from dearlite.export import export

ROWS, HIDDEN = 24, 32


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert") / "model"
    _, tok = checkpoint(folder, "bert", vocab_size=ROWS)
    assert len(tok) == ROWS
    return folder


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    folder = tmp_path_factory.mktemp("roberta") / "model"
    checkpoint(folder, "roberta", vocab_size=ROWS)
    return folder


def rows(name, count):
    """The first `count` rows of a tensor, repeated if it has fewer."""
    return tensors(lambda v: v.update({name: np.resize(v[name], (count, *v[name].shape[1:]))}))


WORDS, TYPES = "bert.embeddings.word_embeddings.weight", "bert.embeddings.token_type_embeddings.weight"
POSITIONS = "bert.embeddings.position_embeddings.weight"
BERT_FAULTS = {
    "token added after training": (added(ROWS, "<x>"), "'<x>' has the id 24", "embedding has 24 rows"),
    "special token added after training": (added(ROWS, "<x>", special=True), "'<x>' has the id 24"),
    "embedding too short": (rows(WORDS, 20), "word_embeddings.weight is (20, 32), not (24, 32)"),
    "embedding too short, and config.json says so": (both(rows(WORDS, 20), config(vocab_size=20)), "has 20 rows"),
    "template with another id": (
        tokenizer(lambda c: c["post_processor"].update(sep=["[SEP]", 5])), "gives '[SEP]' the id 5, and its vocabulary",
    ),
    "template with a token of no vocabulary": (
        tokenizer(lambda c: c["post_processor"].update(cls=["<s>", 1])), "puts '<s>' around texts, which is no token",
    ),
    "cls token of config.json": (config(cls_token_id=7), "config.json gives the cls token the id 7"),
    "sep token of config.json": (config(sep_token_id=0), "config.json gives the sep token the id 0"),
    "pad token beyond the embedding": (config(pad_token_id=ROWS), "gives the pad token the id 24"),
    "added_tokens.json": (edit_json("added_tokens.json", tea=3), "added_tokens.json gives 'tea' the id 3"),
    "one token type": (
        both(rows(TYPES, 1), config(type_vocab_size=1)), "token type 1", "type_vocab_size of 1", "model_input_names",
    ),
    "token types of config.json": (config(type_vocab_size=3), "token_type_embeddings.weight is (2, 32), not (3, 32)"),
    "positions too few": (rows(POSITIONS, 48), "position_embeddings.weight is (48, 32), not (64, 32)"),
    "more tokens than positions": (
        both(rows(POSITIONS, 40), config(max_position_embeddings=40)), "40 positions, fewer than --max-tokens 48",
    ),
    "head of another width": (rows("classifier.weight", 2), "classifier.weight is (2, 32), not (1, 32)"),
    "head without its bias": (tensors(lambda v: v.pop("classifier.bias")), "classifier.bias is missing"),
    "labels of config.json": (config(id2label={"0": "a", "1": "b"}), "2 labels"),
    "second head": (
        tensors(lambda v: v.update({"score.weight": np.ones((1, HIDDEN), np.float32)})), "score.weight fits nothing",
    ),
    "no pooler": (tensors(lambda v: v.pop("bert.pooler.dense.weight")), "bert.pooler.dense.weight is missing"),
    "heads that do not divide": (config(num_attention_heads=5), "5"),
    "activation that does not exist": (config(hidden_act="unheard"), "unheard"),
    "a number that is a text": (config(hidden_size="wide"), "transformers cannot load the model"),
    "no vocab_size": (config(vocab_size="many"), "vocab_size"),
    "quantised checkpoint": (config(quantization_config={"quant_method": "gptq"}), "quantization_config"),
}  # fmt: skip
ROBERTA_FAULTS = {
    "pad token beyond the embedding": (
        both(config(pad_token_id=ROWS, max_position_embeddings=80)),
        "gives the pad token the id 24",
    ),
    "pad token, from which positions count": (config(pad_token_id=18), "47 positions, fewer than --max-tokens 48"),
    "positions without those up to the pad token": (config(max_position_embeddings=48), "46 positions, fewer than"),
    "bos token of config.json": (config(bos_token_id=9), "config.json gives the bos token the id 9"),
    "eos token of config.json": (config(eos_token_id=9), "config.json gives the eos token the id 9"),
}
HARMLESS = {
    "nothing": lambda folder: None,
    "more rows than tokens": both(rows(WORDS, 64), config(vocab_size=64)),
    "added token with a row": both(rows(WORDS, 25), config(vocab_size=25), added(ROWS, "<x>")),
    "keys that no network reads": config(use_cache=False, my_note="x"),
}


def made(folder, tmp_path, change):
    copy = copy_of(folder, tmp_path / "model")
    change(copy)
    return export(copy, output=tmp_path / "m.dear", quant="fp32", max_tokens=48, card=False).path


@pytest.mark.parametrize(
    ("kind", "name"), [*(("bert", n) for n in BERT_FAULTS), *(("roberta", n) for n in ROBERTA_FAULTS)]
)
def test_each_mismatch_is_refused_in_one_line(request, tmp_path, kind, name):
    change, *words = (BERT_FAULTS if kind == "bert" else ROBERTA_FAULTS)[name]
    with pytest.raises(DearliteError) as caught:
        made(request.getfixturevalue(kind), tmp_path, change)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_one_token_type_with_a_tokenizer_without_types_is_exported(roberta, tmp_path):
    assert np.isfinite(Reranker.load(made(roberta, tmp_path, lambda folder: None)).score([("tea", "coffee")])).all()


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_excess_is_exported_and_reads_every_token(bert, tmp_path, name):
    reranker = Reranker.load(made(bert, tmp_path, HARMLESS[name]))
    assert np.isfinite(reranker.score([("tea", "a <x> b"), ("tea", "[SEP] [PAD]"), ("tea", "coffee")])).all()
