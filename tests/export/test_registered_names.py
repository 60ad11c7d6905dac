"""Registered names exported from tiny models of their architectures: the entry's prompt, pooling and licence hold."""

from dataclasses import replace

import pytest
from qwen_tokenizer import qwen_tokenizer_json
from spm_tokenizer import spm_json

pytest.importorskip("torch")
pytest.importorskip("onnx")

from answering_models import bidirectional_scorer, causal_model

from dearlite import Reranker
from dearlite.export import export, pipeline
from dearlite.export.source import inputs
from dearlite.models.bundle import Bundle
from dearlite.models.registry import load_registry, model_file

QWEN = qwen_tokenizer_json()
GEMMA = spm_json(("<pad>", "<eos>", "<bos>"), "<bos> $A")
LLAMA = spm_json(("<|begin_of_text|>", "<|end_of_text|>"), "<|begin_of_text|> $A")
MODELS = {  # name -> writes the folder
    "qwen3-reranker-0.6b": lambda folder: causal_model(folder, "Qwen3", QWEN, tie_word_embeddings=True),
    "mxbai-base-v2": lambda folder: causal_model(folder, "Qwen2", QWEN, tie_word_embeddings=True),
    "zerank-1-small": lambda folder: causal_model(folder, "Qwen3", QWEN, tie_word_embeddings=True),
    "bge-v2-gemma": lambda folder: causal_model(folder, "Gemma", GEMMA, hidden_act="gelu_pytorch_tanh"),
    "nemotron-1b": lambda folder: bidirectional_scorer(folder, LLAMA),
}


@pytest.mark.parametrize("name", MODELS)
def test_registered_language_model_is_exported_with_the_prompt_of_its_entry(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path / "home"))
    folder = tmp_path / "published"
    folder.mkdir()
    MODELS[name](folder)
    entry = replace(load_registry()[name], max_tokens=512)  # as many positions as the tiny model has
    fetched = []
    monkeypatch.setattr(inputs, "fetch", lambda *asked: fetched.append(asked) or folder)
    monkeypatch.setattr(pipeline, "_entry_of", lambda _: entry)
    notes = []
    result = export(name, quant="fp32", card=False, accept_licence=not entry.commercial, report=notes.append)
    manifest = Bundle(result.path).manifest
    assert result.path == model_file(entry)
    assert fetched == [(entry.repository, entry.revision)]
    assert notes[0].startswith(f"{name}: licence {entry.licence}")
    assert (manifest.name, manifest.prompt, manifest.pooling) == (name, entry.prompt, entry.pooling)
    assert (manifest.licence, manifest.architecture) == (entry.licence, entry.architecture)
    good, bad = Reranker.load(name, threads=1).score([("light bulb", "Edison, 1879"), ("light bulb", "tea")])
    assert good != bad
