"""The parts of a scorer's folder are held to each other: a change of one part is refused by name, or does no harm."""

import json

import numpy as np
import pytest
from corruptions import added, both, config, copy_of, edit_json, tensors, tokenizer
from tiny_decoders import checkpoint

from dearlite import Reranker
from dearlite.errors import CheckpointError, ModelFileError, UsageError
from dearlite.export import export

ROWS, HIDDEN = 26, 64


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scorer") / "model"
    _, tok = checkpoint(folder, "llama, 4 heads of 4, 10000", vocab_size=ROWS)
    assert tok.get_vocab_size() == ROWS
    return folder


def template(**changes):
    """A change of the pair template's special tokens: token -> id."""

    def edit(content):
        for token, number in changes.items():
            content["post_processor"]["special_tokens"][f"<{token}>"]["ids"] = [number]

    return tokenizer(edit)


def renamed(content, old, new):
    return json.loads(json.dumps(content).replace(old, new))


def vocabulary(edit):
    return tokenizer(lambda content: edit(content["model"]["vocab"]))


def without(name):
    return tensors(lambda values: values.pop(name))


def with_tensor(name, *sides):
    return tensors(lambda values: values.update({name: np.ones(sides, np.float32)}))


LAYER = "model.layers.0.self_attn"
FAULTS = {
    # tokenizer against embedding
    "token added after training": (added(ROWS, "<x>"), "'<x>' has the id 26", "embedding has 26 rows", "resize_token"),
    "special token added after training": (added(ROWS, "<x>", special=True), "'<x>' has the id 26", "resize_token"),
    "embedding too short, and config.json says so": (
        both(
            tensors(lambda v: v.update({"model.embed_tokens.weight": v["model.embed_tokens.weight"][:-20]})),
            config(vocab_size=ROWS - 20),
        ),
        "17 more", "embedding has 6 rows",
    ),
    "embedding too short": (
        tensors(lambda v: v.update({"model.embed_tokens.weight": v["model.embed_tokens.weight"][:-20]})),
        "model.embed_tokens.weight is (6, 64), not (26, 64)",
    ),
    "vocab_size of config.json": (config(vocab_size=ROWS + 4), "model.embed_tokens.weight is (26, 64), not (30, 64)"),
    "a hole that moves an added token": (
        both(vocabulary(lambda v: v.pop("tea")), added(ROWS, "<x>")), "gives the added token '<x>' the id 26",
    ),
    "two tokens of one id": (vocabulary(lambda v: v.update(tea=v["coffee"])), "share the id"),
    "unknown token that does not exist": (vocabulary(lambda v: v.pop("<unk>")), "cannot encode"),
    "added_tokens.json with another token": (
        edit_json("added_tokens.json", **{"<x>": 25}),
        "added_tokens.json gives '<x>' the id 25, and tokenizer.json none",
    ),
    "added_tokens.json with another id": (
        edit_json("added_tokens.json", tea=5), "added_tokens.json gives 'tea' the id 5, and tokenizer.json",
    ),
    "tokenizer_config.json with another token": (
        edit_json("tokenizer_config.json", added_tokens_decoder={"26": {"content": "<x>", "special": False}}),
        "tokenizer_config.json gives '<x>' the id 26, and tokenizer.json none",
    ),
    "tokenizer_config.json that is no JSON": (
        lambda folder: (folder / "tokenizer_config.json").write_text("{"), "tokenizer_config.json cannot be read",
    ),
    "tokenizer.json that is no tokenizer": (
        lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json is not a tokenizer",
    ),
    # template tokens and special ids
    "template with another id": (template(bos=3), "its template gives '<bos>' the id 3, and its vocabulary 1"),
    "template with a token of no vocabulary": (
        tokenizer(lambda c: c.update(post_processor=renamed(c["post_processor"], "<bos>", "<s>"))),
        "its template puts '<s>' around texts, which is no token of it",
    ),
    "template without the document": (
        tokenizer(lambda c: c["post_processor"]["pair"].pop()), "joins a pair in a way that is not supported",
    ),
    "pad token beyond the embedding": (config(pad_token_id=ROWS), "gives the pad token the id 26"),
    "bos token of config.json": (
        both(config(bos_token_id=5), edit_json("tokenizer_config.json", bos_token="<bos>")),
        "config.json gives the bos token the id 5, and tokenizer.json gives '<bos>' 1",
    ),
    # lengths
    "more tokens than positions": (config(max_position_embeddings=32), "--max-tokens 48", "position_embeddings, 32"),
    # head
    "head of two labels": (
        tensors(lambda v: v.update({"score.weight": np.ones((2, HIDDEN), np.float32)})), "score.weight is (2, 64)",
    ),
    "labels of config.json": (config(id2label={"0": "a", "1": "b"}), "states 2 labels", "score.weight has one row"),
    "head of another width": (
        tensors(lambda v: v.update({"score.weight": np.ones((1, 32), np.float32)})), "score.weight is (1, 32), not (1",
    ),
    "head with a bias": (with_tensor("score.bias", 1), "score.bias has no place in it"),
    "second head": (with_tensor("classifier.weight", 1, HIDDEN), "classifier.weight has no place in it"),
    "value head": (with_tensor("v_head.summary.weight", 1, HIDDEN), "v_head.summary.weight has no place in it"),
    "pooler": (with_tensor("pooler.dense.weight", HIDDEN, HIDDEN), "pooler.dense.weight has no place in it"),
    "no head": (without("score.weight"), "has no score head"),
    # network
    "layers of config.json, fewer": (config(num_hidden_layers=2), "model.layers.2", "has no place in it"),
    "layers of config.json, more": (config(num_hidden_layers=4), "model.layers.3", "is missing"),
    "bias that config.json does not state": (with_tensor(f"{LAYER}.q_proj.bias", 64), "q_proj.bias has no place in it"),
    "norm of heads that LLaMA does not have": (with_tensor(f"{LAYER}.q_norm.weight", 16), "q_norm.weight has no place"),
    "heads": (config(num_attention_heads=8, head_dim=16), "q_proj.weight is (64, 64), not (128, 64)"),
    "heads of keys": (config(num_key_value_heads=2), "k_proj.weight is (64, 64), not (32, 64)"),
    "heads of keys that do not divide": (
        both(
            config(num_key_value_heads=3),
            tensors(lambda v: v.update({n: a[:48] for n, a in v.items() if "k_proj" in n or "v_proj" in n})),
        ),
        "4 heads that share 3 heads",
    ),
    "size of a head": (config(head_dim=32), "q_proj.weight is (64, 64), not (128, 64)"),
    "width": (config(hidden_size=32), "model.embed_tokens.weight is (26, 64), not (26, 32)"),
    "width of the feed-forward part": (config(intermediate_size=96), "gate_proj.weight is (128, 64), not (96, 64)"),
    "a number that is a text": (config(num_hidden_layers="3"), "num_hidden_layers '3'"),
    "a number below 1": (config(num_attention_heads=0), "num_attention_heads 0"),
    "epsilon that is none": (config(rms_norm_eps="tiny"), "rms_norm_eps 'tiny'"),
    "quantised checkpoint": (config(quantization_config={"quant_method": "fp8"}), "quantization_config"),
    "activation": (config(hidden_act="gelu"), "hidden_act 'gelu'"),
    "partial rotary": (config(partial_rotary_factor=0.5), "partial_rotary_factor"),
    "partial rotary in rope_parameters": (
        config(rope_parameters={"rope_type": "default", "partial_rotary_factor": 0.5}), "partial_rotary_factor",
    ),
    "no causal mask": (config(is_causal=False), "is_causal false"),
    "rope of each layer type": (
        config(rope_parameters={"full_attention": {"rope_type": "default"}}), "one object for all layers",
    ),
    "rope without its factor": (config(rope_scaling={"rope_type": "linear"}), "'linear' has no number for factor"),
    "rope of llama3 without limits": (
        config(rope_scaling={"rope_type": "llama3", "factor": 8.0}), "low_freq_factor, high_freq_factor",
    ),
    "rope theta": (config(rope_theta="big"), "rope_theta is 'big'"),
    "rope of another kind": (config(rope_scaling={"rope_type": "yarn", "factor": 4.0}), "rope scaling 'yarn'"),
    "linear biases": (config(mlp_bias=True), "biases"),
}  # fmt: skip
HARMLESS = {
    "nothing": lambda folder: None,
    "more rows than tokens": both(
        tensors(
            lambda v: v.update({"model.embed_tokens.weight": np.resize(v["model.embed_tokens.weight"], (64, HIDDEN))})
        ),
        config(vocab_size=64),
    ),
    "added token with a row": both(
        tensors(
            lambda v: v.update({"model.embed_tokens.weight": np.resize(v["model.embed_tokens.weight"], (27, HIDDEN))})
        ),
        config(vocab_size=27),
        added(ROWS, "<x>"),
    ),
    "keys that no network reads": config(use_cache=False, attention_dropout=0.1, my_note="x"),
    "output matrix of the base": with_tensor("lm_head.weight", ROWS, HIDDEN),
    "rotary table of an old checkpoint": with_tensor(f"{LAYER}.rotary_emb.inv_freq", 8),
    "pad token that tokenizer.json lacks": both(
        edit_json("added_tokens.json", **{"<pad0>": ROWS}), edit_json("special_tokens_map.json", pad_token="<pad0>")
    ),
    "eos as a list": config(eos_token_id=[1, 2]),
}


def made(scorer, tmp_path, change):
    folder = copy_of(scorer, tmp_path / "model")
    change(folder)
    return export(folder, output=tmp_path / "m.dear", quant="fp32", max_tokens=48, card=False).path


@pytest.mark.parametrize("name", FAULTS)
def test_each_mismatch_is_refused_in_one_line(scorer, tmp_path, name):
    change, *words = FAULTS[name]
    with pytest.raises((CheckpointError, UsageError)) as caught:
        made(scorer, tmp_path, change)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_excess_is_exported_and_reads_every_token(scorer, tmp_path, name):
    reranker = Reranker.load(made(scorer, tmp_path, HARMLESS[name]))
    scores = reranker.score([("tea", "a <x> b"), ("tea", "<pad> <bos> <pad0>"), ("tea", "coffee")])
    assert np.isfinite(scores).all()


def test_file_of_an_older_version_is_refused_when_it_is_loaded(scorer, tmp_path, monkeypatch):
    monkeypatch.setattr("dearlite.export.pointwise.check_tokenizer", lambda *_: None)
    monkeypatch.setattr("dearlite.export.decoders.pipeline.check_probes", lambda *_: None)
    path = made(scorer, tmp_path, added(ROWS, "<x>"))
    with pytest.raises(ModelFileError, match="its tokenizer has the id 26, and its embedding 26 rows") as caught:
        Reranker.load(path)
    assert "\n" not in str(caught.value)


def test_written_file_without_a_score_for_an_added_token_gets_no_name(scorer, tmp_path, monkeypatch):
    """The check of the folder is switched off: the scoring of the texts must find the fault by itself."""
    monkeypatch.setattr("dearlite.export.pointwise.check_tokenizer", lambda *_: None)
    monkeypatch.setattr("dearlite.export.quality.check.call_worker", worker_with_fault)
    with pytest.raises(ModelFileError, match="no score for a text of its own tokens") as caught:
        made(scorer, tmp_path, added(ROWS, "<x>"))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def worker_with_fault(module, argument, job, *, name):
    assert any("<x>" in text for text in job["probes"])
    return {"scores": [], "probe_fault": "'<x>': idx=26 must be within the range"}
