"""Cross-encoders of sentence-transformers: their chains of modules, held to the scores of its own CrossEncoder."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

pytest.importorskip("optimum.exporters.onnx", reason="the extra `encoders` is not installed")
import torch
import transformers
from cross_encoders import (
    CHAINS,
    PAIRS,
    QUERIES,
    WIDTH,
    WORDS,
    dense,
    last,
    pooling,
    write_cross_encoder,
    write_json,
    write_modules,
)

from dearlite import Reranker
from dearlite.errors import CheckpointError, UsageError
from dearlite.export import export
from dearlite.export.encoders import pipeline
from dearlite.export.encoders.heads import read_head
from dearlite.export.encoders.networks import Classifier
from dearlite.export.quality.card import Pairs
from dearlite.export.source.checkpoint import Checkpoint
from dearlite.export.source.modules import stated_activation
from dearlite.models.bundle import Bundle

torch.set_num_threads(1)  # the models are tiny: threads would wait for each other

GOLDEN = json.loads((Path(__file__).parents[2] / "data" / "cross_encoder_golden.json").read_text())["scores"]


@pytest.mark.parametrize("case", GOLDEN)
def test_modules_give_the_scores_of_sentence_transformers(tmp_path, case):
    kind, _, name = case.partition(" ")
    write_cross_encoder(tmp_path, CHAINS[name], kind)
    checkpoint = Checkpoint(tmp_path)
    net = Classifier(read_head(checkpoint)).load(checkpoint).reference
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    with torch.inference_mode():
        scores = [
            float(net(**tokenizer(*pair, truncation=True, max_length=64, return_tensors="pt")).logits[0, 0])
            for pair in PAIRS
        ]
    assert scores == pytest.approx(GOLDEN[case], abs=1e-5)
    assert np.std(scores) > 0.04


@pytest.mark.parametrize(
    ("kind", "name", "place"),
    [("modernbert", "ettin", "first-token"), ("bert", "everything", None)],
)
def test_fp32_file_gives_the_scores_of_sentence_transformers(tmp_path, kind, name, place):
    write_cross_encoder(tmp_path, CHAINS[name], kind)
    export(tmp_path, output=tmp_path / "m.dear", quant="fp32", card=False)
    assert Reranker.load(tmp_path / "m.dear").score(PAIRS) == pytest.approx(GOLDEN[f"{kind} {name}"], abs=1e-4)
    manifest = Bundle(tmp_path / "m.dear").manifest
    assert (manifest.prompt, manifest.max_tokens) == ("plain", 64)
    assert manifest.pooling == (place or "first-token+max+mean+mean-sqrt+weighted-mean+last-token")
    weights = [f"sha256 {path.parent.name}/{path.name}" for path in tmp_path.glob("*_*/model.safetensors")]
    assert {"sha256 model.safetensors", *weights} == {name for name in manifest.source if name.startswith("sha256")}


def test_int8_file_of_an_ettin_passes_the_gate_of_a_scorer(tmp_path, monkeypatch):
    """Of 20 texts a query, eight draws had a tau of 0.932 to 0.979 before int8 weights had the limit of pairs.

    160 texts have 0.961 without the limit and 0.959 with it.
    """
    write_cross_encoder(tmp_path, CHAINS["ettin"])
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(WORDS, rng.integers(3, 30))) for _ in range(160)]
    rows = tuple(
        (f"q{n}", str(m), query, {"text": text}) for n, query in enumerate(QUERIES) for m, text in enumerate(texts)
    )
    monkeypatch.setattr(pipeline, "card_pairs", lambda *_: Pairs("words", rows, {}))
    result = export(tmp_path, output=tmp_path / "m.dear", min_tau=0.95)
    assert result.card["kendall_tau"] >= 0.95
    tensors = Bundle(tmp_path / "m.dear").manifest.tensors
    assert not any("head" in name and tensor.dtype == "int8" for name, tensor in tensors.items())


def test_a_folder_that_cannot_be_read_is_refused_in_one_line(tmp_path):
    def refused(*words, chain=CHAINS["ettin"], files=(), remove=()):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        write_json(folder / "config.json", {"model_type": "modernbert", "hidden_size": WIDTH, "vocab_size": 80})
        (folder / "model.safetensors").write_bytes(safetensors.numpy.save({"norm.weight": np.ones(WIDTH, np.float32)}))
        write_modules(folder, chain, np.random.default_rng(0))
        for name, changes in dict(files).items():
            content = json.loads((folder / name).read_text()) if (folder / name).is_file() else {}
            write_json(folder / name, content | changes if isinstance(changes, dict) else changes)
        for name in remove:
            (folder / name).unlink()
        with pytest.raises((UsageError, CheckpointError)) as caught:
            export(folder, output=folder / "m.dear", card=False)
        line = str(caught.value).replace(str(folder) + "/", "")
        assert "\n" not in line
        for word in words:
            assert word in line, line
        assert not list(folder.glob("*m.dear*"))

    def modules(*types):
        return [
            {"path": "" if n == 0 else f"{n}_{t}", "type": f"sentence_transformers.{t}"} for n, t in enumerate(types)
        ]

    settings, reading, listing = "config_sentence_transformers.json", "sentence_bert_config.json", "modules.json"
    of_dense, of_pooling, of_norm = "2_Dense/config.json", "1_Pooling/config.json", "3_LayerNorm/config.json"
    # Modules that are not read, by their name and file.
    refused(
        listing, "sentence_transformers.LSTM", "1_LSTM", "LayerNorm", files={listing: modules("Transformer", "LSTM")}
    )
    refused("LogitScore", "1_LogitScore", "encoder", files={listing: modules("Transformer", "LogitScore")})
    refused("mine.Head", files={listing: [*modules("Transformer"), {"path": "1_Head", "type": "mine.Head"}]})
    refused(listing, "Pooling", files={listing: modules("Pooling", "Dense")})
    refused("outside", "../x", files={listing: [{"path": "../x", "type": "sentence_transformers.Transformer"}]})
    refused(listing, "no list of modules", files={listing: []})
    refused(listing, "fetch", files={listing: [{"path": "x"}]})
    # Settings that would change a score.
    refused(
        of_dense,
        "torch.nn.modules.activation.Hardswish",
        "GELU",
        files={of_dense: {"activation_function": "torch.nn.modules.activation.Hardswish"}},
    )
    refused(of_dense, "mine.GELU", files={of_dense: {"activation_function": "mine.GELU"}})
    refused(of_dense, "dropout", files={of_dense: {"dropout": 0.1}})
    refused(of_dense, "'tokens'", "before", files={of_dense: {"module_input_name": "tokens"}})
    refused(of_pooling, "'attention'", "weightedmean", files={of_pooling: {"pooling_mode": "attention"}})
    refused(settings, "'query'", files={settings: {"prompts": {"query": "Q: "}, "default_prompt_name": "query"}})
    refused(
        "SentenceTransformer",
        "no cross-encoder",
        files={settings: {"model_type": "SentenceTransformer"}},
    )
    refused(reading, "'text-generation'", files={reading: {"transformer_task": "text-generation"}})
    refused(reading, "processing_kwargs", files={reading: {"processing_kwargs": {"text": {"max_length": 3}}}})
    refused(
        reading,
        "pooler_output",
        files={reading: {"modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}}},
    )
    # Files that do not fit.
    refused(of_pooling, "is missing", remove=[of_pooling])
    refused(of_pooling, "reads 16", "gives 32", files={of_pooling: {"embedding_dimension": 16}})
    refused(of_dense, "in_features 'x'", files={of_dense: {"in_features": "x"}})
    refused(of_dense, "bias", "neither", files={of_dense: {"bias": 1}})
    refused(of_dense, "linear.weight is (32, 32), not (8, 32)", files={of_dense: {"out_features": 8}})
    refused(of_dense, "linear.bias is missing", files={of_dense: {"bias": True}})
    refused(of_norm, "reads 31", files={of_norm: {"dimension": 31}})
    refused("2_Dense", "no model.safetensors", remove=["2_Dense/model.safetensors"])
    # Chains without one score.
    refused(listing, "no module that writes 'scores'", chain=(pooling(),))
    refused(listing, "2 scores", chain=(pooling(), dense(WIDTH, 2, module_output_name="scores")))
    refused(listing, "each token", chain=(last(module_input_name="token_embeddings"),))


def test_pickled_weights_of_a_module_are_never_read(tmp_path):
    write_cross_encoder(tmp_path, CHAINS["ettin"])
    (tmp_path / "4_Dense" / "model.safetensors").rename(tmp_path / "4_Dense" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"4_Dense has its weights as pickle only .pytorch_model.bin"):
        export(tmp_path, output=tmp_path / "m.dear", card=False)


def test_nan_in_a_module_is_named(tmp_path):
    write_cross_encoder(tmp_path, CHAINS["ettin"])
    path = tmp_path / "3_LayerNorm" / "model.safetensors"
    tensors = safetensors.numpy.load(path.read_bytes())
    tensors["norm.bias"][3] = np.nan
    path.write_bytes(safetensors.numpy.save(tensors))
    with pytest.raises(CheckpointError, match=r"3_LayerNorm/model.safetensors: tensor 'norm.bias' holds NaN"):
        export(tmp_path, output=tmp_path / "m.dear", card=False)


def test_limits_of_the_folder_are_kept(tmp_path):
    write_cross_encoder(tmp_path, CHAINS["ettin"])
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    write_json(tmp_path / "tokenizer_config.json", settings | {"model_max_length": 24})
    assert read_head(Checkpoint(tmp_path)).max_tokens == 24
    reading = json.loads((tmp_path / "sentence_bert_config.json").read_text())
    write_json(tmp_path / "sentence_bert_config.json", reading | {"max_seq_length": 20})
    assert read_head(Checkpoint(tmp_path)).max_tokens == 20


SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"


@pytest.mark.parametrize(
    ("settings", "config", "stated"),
    [
        (IDENTITY, {}, False),
        (SIGMOID, {}, True),
        (None, {}, False),  # a default of sentence-transformers' code is no statement of the makers
        (None, {"sentence_transformers": {"activation_fn": SIGMOID, "version": "4.1.0"}}, True),
        (None, {"sentence_transformers": {"activation_fn": IDENTITY}}, False),
        (None, {"sentence_transformers": "4.1.0"}, False),
        (None, {"sbert_ce_default_activation_function": SIGMOID}, True),
        (IDENTITY, {"sbert_ce_default_activation_function": SIGMOID}, False),  # the newer file holds
    ],
)
def test_the_probability_of_the_makers_is_what_the_folder_states(tmp_path, settings, config, stated):
    if settings is not None:
        write_json(tmp_path / "config_sentence_transformers.json", {"activation_fn": settings})
    assert stated_activation(tmp_path, config) == ({"scale": 1.0, "bias": 0.0} if stated else None)
