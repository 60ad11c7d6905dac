"""Attention rerankers: the exported file against the authors' definition on transformers' attention weights."""

import json

import pytest
from attention_models import QUERY, TEXTS, causal, reference

from dearlite import Reranker
from dearlite.errors import CheckpointError, UsageError
from dearlite.export import export
from dearlite.export.decoders.attention_graph import attention_graph
from dearlite.export.quality.card import kendall_tau
from dearlite.export.source.families import shape_of
from dearlite.export.source.heads import HEADS, read_heads

DOCS = [text.strip() for text in TEXTS if "<|" not in text]  # the reference would read a special token in a text
FEW = {0: (1,), 1: (0, 3)}
ALL = dict.fromkeys(range(3), (0, 1, 2, 3))


def scores(path, query=QUERY, docs=DOCS, **options):
    with Reranker.load(path, device="cpu", **options) as model:
        hits = model.rerank(query, docs)
    return [hit.score for hit in sorted(hits, key=lambda hit: hit.index)]


@pytest.mark.parametrize("kind", ["llama, 4 heads of 1, llama3 scaling", "qwen2", "qwen3"])
def test_fp32_scores_are_those_of_the_authors_definition(tmp_path, kind):
    net, tok = causal(tmp_path, kind)
    (tmp_path / "few.txt").write_text("1-3, 0-1\n1-0")
    for heads, chosen in (("icr", ALL), (str(tmp_path / "few.txt"), FEW)):
        path = export(tmp_path, output=tmp_path / f"{len(chosen)}.dear", quant="fp32", heads=heads).path
        expected = reference(net, tok, QUERY, DOCS, chosen)
        assert scores(path) == pytest.approx(expected, abs=1e-4)
        assert max(expected) - min(expected) > 0.02  # else the comparison would hold for any model


def test_steps_of_a_prompt_leave_the_scores_as_they_are(tmp_path, monkeypatch):
    net, tok = causal(tmp_path, "llama, 4 heads of 4, 10000")
    path = export(tmp_path, output=tmp_path / "m.dear", quant="fp32", heads="icr").path
    long_query = " ".join([QUERY] * 12)
    monkeypatch.setattr("dearlite.attention.engine.STEP_TOKENS", 13)
    assert scores(path, long_query) == pytest.approx(reference(net, tok, long_query, DOCS, ALL), abs=1e-4)


def test_int8_keeps_the_order_and_repeats(tmp_path):
    net, tok = causal(tmp_path, "llama, 6 heads of 2, its own head size")
    path = export(tmp_path, output=tmp_path / "m.dear", heads="icr").path
    heads = {layer: tuple(range(6)) for layer in range(3)}
    expected = reference(net, tok, QUERY, DOCS, heads)
    own = scores(path)
    assert kendall_tau(own, expected) >= 0.6  # of random weights; the card of a real model is near 1
    assert scores(path, threads=1) == own == scores(path, threads=3)


def test_layers_behind_the_last_head_are_left_out(tmp_path):
    causal(tmp_path, "qwen2")
    (tmp_path / "few.txt").write_text("0-1,1-0")
    export(tmp_path, output=tmp_path / "m.dear", quant="fp32", heads=str(tmp_path / "few.txt"))
    with Reranker.load(tmp_path / "m.dear", device="cpu") as model:
        tensors = model.bundle.manifest.tensors
        assert model.bundle.manifest.schema == 4 and model.bundle.manifest.attention.heads == "0-1,1-0"
    assert not any(name.startswith("layer.2") for name in tensors)
    assert {name for name in tensors if name.startswith("layer.1")} == {"layer.1.qkv.weight", "layer.1.qkv.bias"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0-4", "names the head 0-4, and this model has the layers 0 to 2 with the heads 0 to 3"),
        ("3-0", "names the head 3-0"),
        ("0-1;0-2", "holds '0-1;0-2': write a head as layer-head"),
        ("8.21", "holds '8.21'"),
        (" ,\n", "names no head"),
        ("0-1,1-0,0-1", "names the head 0-1 twice: name each head once"),
        ("\ufeff" * 3, "write a head as layer-head"),
    ],
)
def test_a_list_that_does_not_fit_is_refused_by_its_part(tmp_path, text, message):
    shape = shape_of(config(), 256)
    (tmp_path / "heads.txt").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"^[^\n]+$") as refused:
        read_heads(str(tmp_path / "heads.txt"), shape)
    assert message in str(refused.value)


def test_a_list_may_begin_with_the_mark_of_an_editor(tmp_path):
    (tmp_path / "heads.txt").write_text("0-1, 1-0", encoding="utf-8-sig")
    assert read_heads(str(tmp_path / "heads.txt"), shape_of(config(), 256)) == {0: (1,), 1: (0,)}


def test_a_name_of_another_model_and_an_unknown_name_are_refused(tmp_path):
    shape = shape_of(config(), 256)
    with pytest.raises(
        UsageError, match=r"is for Llama-3\.2-1B-Instruct, of 16 layers with 32 heads, and this model has 3"
    ):
        read_heads("qrhead-llama-3.2-1b", shape)
    with pytest.raises(UsageError, match="neither a file nor a name: the names are icr, qrhead-llama"):
        read_heads("qrhead", shape)
    with pytest.raises(UsageError, match="the name in --heads is empty: give a file, or one of icr, qrhead-llama"):
        read_heads("", shape)
    (tmp_path / "heads.txt").write_bytes(b"\xff\xfe0-1")
    with pytest.raises(UsageError, match="is no text"):
        read_heads(str(tmp_path / "heads.txt"), shape)
    with pytest.raises(UsageError, match="cannot read the heads"):
        read_heads(str(tmp_path), shape)


@pytest.mark.parametrize("name", HEADS)
def test_each_published_list_fits_its_model_and_has_sixteen_heads(name):
    entry = HEADS[name]
    sizes = {"num_hidden_layers": entry.layers, "num_attention_heads": entry.heads, "head_dim": 64}
    heads = read_heads(name, shape_of(config() | sizes, 256))
    assert sum(map(len, heads.values())) == 16


def test_the_last_layer_that_is_run_is_the_last_with_a_head():
    with pytest.raises(AssertionError):
        attention_graph(shape_of(config(), 256), {0: (1,)}, "fp32", block_hadamard=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "last-token"}, "--pooling does not apply to an attention reranker"),
        ({"window": 20}, "--window does not apply"),
        ({"prompt": "chat"}, "--prompt does not apply to --heads"),
        ({"quant": "q4_k_m"}, "llama.cpp gives no attention"),
        ({"max_tokens": 4096}, "more than the model's max_position_embeddings, 1024"),
    ],
)
def test_options_of_other_kinds_are_refused(tmp_path, options, message):
    (tmp_path / "config.json").write_text(json.dumps(config()))
    (tmp_path / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    with pytest.raises((UsageError, CheckpointError)) as refused:
        export(tmp_path, output=tmp_path / "m.dear", heads="icr", **options)
    assert message in str(refused.value)


def config():
    return {
        "model_type": "llama", "num_hidden_layers": 3, "hidden_size": 64, "intermediate_size": 128, "vocab_size": 96,
        "num_attention_heads": 4, "num_key_value_heads": 4, "rms_norm_eps": 1e-5, "max_position_embeddings": 1024,
    }  # fmt: skip
