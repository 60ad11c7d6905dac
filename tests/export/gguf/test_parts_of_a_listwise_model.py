"""The parts of a language model are held to each other: a change of one is refused by name, or does no harm."""

import json

import numpy as np
import pytest
from corruptions import both, config, copy_of, edit_json, tensors
from gguf_models import CHAT_TEMPLATE, VOCABULARY, pieces, write_model, write_sentencepiece, write_smollm2_tokenizer
from llama import need_llama
from tiny_gguf import smollm2, write_tiny

from dearlite import Reranker
from dearlite.errors import CheckpointError, ModelFileError, UsageError
from dearlite.export import export
from dearlite.models.gguf import GgufFile

TINY = "llama, 4 heads of 1, llama3 scaling, untied"
LAYER = "model.layers.0.self_attn"
HIDDEN = 64


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("listwise") / "model", TINY)


def settings(**changes):
    return edit_json("tokenizer_config.json", **changes)


def with_tensor(name, *sides):
    return tensors(lambda values: values.update({name: np.ones(sides, np.float32)}))


def more_pieces(count):
    extra = [(f"▁w{n}", -100.0, 1) for n in range(count - len(pieces()))]
    return lambda folder: write_sentencepiece(folder / "tokenizer.model", [*pieces(), *extra])


def decoder(number, text, **fields):
    return settings(added_tokens_decoder={str(number): {"content": text} | fields})


FAULTS = {
    # tokenizer against embedding
    "more pieces than rows": (more_pieces(VOCABULARY + 2), "tokenizer.model has 386 tokens", "embedding has 384 rows"),
    "added token beyond the embedding": (
        edit_json("added_tokens.json", **{"<x>": 384}), "added_tokens.json gives '<x>' the id 384", "resize_token",
    ),
    "added token of tokenizer_config.json": (
        decoder(390, "<x>", special=False), "tokenizer_config.json gives '<x>' the id 390", "embedding has 384 rows",
    ),
    "added token in the place of a piece": (
        edit_json("added_tokens.json", **{"<x>": 261}), "gives '<x>' the id 261, which is '▁the' in tokenizer.model",
    ),
    "embedding too short": (
        tensors(lambda v: v.update({"model.embed_tokens.weight": v["model.embed_tokens.weight"][:-8]})),
        "model.embed_tokens.weight is [376, 64], not [384, 64]",
    ),
    "output matrix too short": (
        tensors(lambda v: v.update({"lm_head.weight": v["lm_head.weight"][:-8]})), "lm_head.weight is [376, 64]",
    ),
    "vocab_size of config.json": (config(vocab_size=300), "model.embed_tokens.weight is [384, 64], not [300, 64]"),
    "tokenizer_config.json that is no JSON": (
        lambda folder: (folder / "tokenizer_config.json").write_text("{"), "tokenizer_config.json",
    ),
    # special ids
    "eos token of config.json": (config(eos_token_id=384), "config.json gives the eos token the id 384 of 384 tokens"),
    "one of several eos tokens": (config(eos_token_id=[2, 999]), "gives the eos token the id 999"),
    "bos token of config.json": (config(bos_token_id=4000), "gives the bos token the id 4000"),
    "pad token of config.json": (config(pad_token_id=384), "gives the pad token the id 384"),
    "eos token that is no token": (settings(eos_token="<|end|>"), "names the eos token '<|end|>'"),
    "bos token that is no token": (settings(bos_token={"content": "<|b|>"}), "names the bos token '<|b|>'"),
    # chat template
    "template that cannot be read": (settings(chat_template="{% unheard %}"), "cannot be read", "--prompt plain"),
    "template without the texts": (settings(chat_template="hello"), "leaves out parts", "--prompt"),
    "template that refuses": (settings(chat_template="{{ raise_exception('no') }}"), "refuses this conversation"),
    "no template": (settings(chat_template=...), "has no chat template", "--prompt plain"),
    # network
    "more tokens than positions": (config(max_position_embeddings=256), "--max-tokens 400 is more than", "256"),
    "heads of keys": (config(num_key_value_heads=2), "k_proj.weight is [16, 64], not [32, 64]"),
    "heads of keys that do not divide": (config(num_key_value_heads=3), "4 heads that share 3 heads"),
    "layers, fewer": (config(num_hidden_layers=1), "model.layers.1", "has no place in the file"),
    "layers, more": (config(num_hidden_layers=3), "model.layers.2", "is missing"),
    "bias": (with_tensor(f"{LAYER}.o_proj.bias", HIDDEN), "o_proj.bias has no place in the file"),
    "pooler": (with_tensor("pooler.weight", HIDDEN), "pooler.weight has no place in the file"),
    "value head": (with_tensor("v_head.weight", 1, HIDDEN), "v_head.weight has no place in the file"),
    "tied, with another output matrix": (config(tie_word_embeddings=True), "lm_head.weight is another matrix"),
    "untied, without an output matrix": (tensors(lambda v: v.pop("lm_head.weight")), "lm_head.weight is missing"),
    "quantised checkpoint": (config(quantization_config={"quant_method": "awq"}), "quantization_config"),
    "rope without its factor": (config(rope_scaling={"rope_type": "linear"}), "has no number for factor"),
    "partial rotary": (config(partial_rotary_factor=0.25), "partial_rotary_factor"),
    "no causal mask": (config(is_causal=False), "is_causal false"),
    "linear biases": (config(attention_bias=True), "biases"),
}  # fmt: skip
HARMLESS = {
    "nothing": lambda folder: None,
    "keys that no network reads": config(use_cache=False, my_note="x", attention_dropout=0.1),
    "special token beyond the embedding": both(decoder(900, "<pad0>", special=True), settings(pad_token="<pad0>")),
    "pad token beyond the embedding, of an old file": both(
        edit_json("added_tokens.json", **{"<pad0>": 384}), edit_json("special_tokens_map.json", pad_token="<pad0>")
    ),
    "added token in a row without a piece": edit_json("added_tokens.json", **{"<x>": 380}),
    "tokens without a row of text": config(eos_token_id=[2, 383]),
    "unreadable template with a form that needs none": settings(chat_template="{% unheard %}"),
}


def made(model, tmp_path, change, **options):
    folder = copy_of(model, tmp_path / "model")
    change(folder)
    return export(folder, output=tmp_path / "m.gguf", max_tokens=400, card=False, **options).path


@pytest.mark.parametrize("name", FAULTS)
def test_each_mismatch_is_refused_in_one_line(model, tmp_path, name):
    change, *words = FAULTS[name]
    with pytest.raises((CheckpointError, UsageError)) as caught:
        made(model, tmp_path, change, quant="f16")
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_excess_is_exported_and_read(model, tmp_path, name):
    need_llama()
    prompt = "plain" if "needs none" in name else "chat"
    path = made(model, tmp_path, HARMLESS[name], quant="q8_0", prompt=prompt)  # quantised: the probe runs
    assert len(GgufFile(path).metadata["tokenizer.ggml.tokens"]) == VOCABULARY


def test_probe_of_the_written_file_refuses_it(model, tmp_path, monkeypatch):
    def call(task, job):
        return {"fault": "its logits are not finite"} if task == "probe" else real(task, job)

    need_llama()
    from dearlite.export.gguf import pipeline

    real = pipeline.call_llama
    monkeypatch.setattr(pipeline, "call_llama", call)
    with pytest.raises(Exception, match="cannot read its own tokens") as caught:
        made(model, tmp_path, lambda folder: None, quant="q8_0")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_byte_level_tokenizer_with_more_tokens_than_rows_is_refused(tmp_path):
    folder = write_model(tmp_path / "model", TINY, tokenizer=False, vocab_size=49152)
    write_smollm2_tokenizer(folder, GgufFile(smollm2()).metadata)
    settings(chat_template=CHAT_TEMPLATE)(folder)
    raw = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    raw["added_tokens"].append(raw["added_tokens"][0] | {"id": 49152, "content": "<x>", "special": False})
    (folder / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(CheckpointError, match="'<x>' has the id 49152, and the model's embedding has 49152 rows"):
        export(folder, output=tmp_path / "m.gguf", quant="f16", max_tokens=400, card=False)


def test_file_with_fewer_rows_than_tokens_is_refused_when_it_is_loaded(tmp_path):
    path = write_tiny(tmp_path / "m.gguf", tensors={"token_embd.weight": np.ones((1000, 32), np.float32)})
    with pytest.raises(ModelFileError, match=r"its tokenizer has \d+ tokens, and its embedding 1000 rows") as caught:
        Reranker.load(path)
    assert "\n" not in str(caught.value)
