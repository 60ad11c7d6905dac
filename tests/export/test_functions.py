"""`export`, `verify` and `calibrate` from Python: the records that they return, and that they print nothing."""

import json
from dataclasses import FrozenInstanceError

import pytest
from gguf_models import write_model

from dearlite.errors import CheckpointError, ModelFileError, UsageError
from dearlite.export import ExportOptions, calibrate, export, verify
from dearlite.models.bundle import Bundle
from dearlite.models.gguf import GgufFile
from dearlite.offline.collection.collection import make_collection

TINY = "llama, 4 heads of 1, llama3 scaling, untied"


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    from tiny_decoders import checkpoint  # needs torch

    folder = tmp_path_factory.mktemp("scorer")
    checkpoint(folder, "llama, 4 heads of 4, 10000")
    return folder


def test_export_of_a_scorer_returns_the_facts_and_the_card_of_the_file(scorer, tmp_path, capfd):
    notes = []
    path = tmp_path / "m.dear"
    result = export(scorer, output=path, quant="fp32", max_tokens=48, report=notes.append)
    manifest = Bundle(path).manifest
    assert (result.path, result.kind, result.size_bytes) == (path, "pointwise", path.stat().st_size)
    assert {name: getattr(manifest, name) for name in ("name", "prompt", "pooling", "max_tokens", "licence")} == {
        "name": "m", "prompt": "dear", "pooling": "last-token", "max_tokens": 48, "licence": "not stated",
    }  # fmt: skip
    assert (result.facts.name, result.facts.source) == (manifest.name, manifest.source)
    assert result.card == Bundle(path).card()
    assert result.card["kendall_tau"] == 1
    assert result.source_bytes == (scorer / "model.safetensors").stat().st_size
    assert len(notes) == 1 and "--pooling last-position" in notes[0]  # the two padding ids of this model differ
    assert capfd.readouterr() == ("", "")


def test_export_of_a_language_model_returns_the_facts_of_the_file(tmp_path, capfd):
    folder = write_model(tmp_path / "model", TINY)
    result = export(str(folder), output=str(tmp_path / "m.gguf"), quant="f16", window=8, stride=4, card=False)
    metadata = GgufFile(tmp_path / "m.gguf").metadata
    assert (result.kind, result.card, result.facts.window) == ("listwise", {}, metadata["dearlite.window"])
    assert result.facts.source == json.loads(metadata["dearlite.source"])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 7}, "--max-tokens is 7: it must be a whole number from 8"),
        ({"window": 1}, "--window is 1: it must be a whole number from 2"),
        ({"stride": 0}, "--stride is 0: it must be a whole number from 1"),
        ({"stride": True}, "--stride is True: it must be a whole number"),
        ({"min_tau": 1.5}, "--min-tau is 1.5: it must be a number from -1 to 1"),
        ({"min_agreement": -0.1}, "--min-agreement is -0.1: it must be a number from 0 to 1"),
        ({"min_agreement": float("nan")}, "--min-agreement is nan"),
        ({"min_tau": "0.9"}, "--min-tau is '0.9': it must be a number from -1 to 1"),
        ({"min_tau": 0.9, "card": False}, "--min-tau is compared with the card, which --no-card leaves out"),
        ({"min_agreement": 0.9, "card": False}, "--min-agreement is compared with the card"),
    ],
)
def test_values_that_no_model_accepts_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        ExportOptions(**options)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("pointwise", {"quant": "int9"}, "--quant int9 does not apply to m, a pointwise model: it is one of int8"),
        ("pointwise", {"target": "tpu"}, "--for tpu does not apply to m: it is one of cpu, cuda, both"),
        ("pointwise", {"pooling": "mean"}, "--pooling mean does not apply to m: it is one of last-token"),
        ("pointwise", {"stride": 3, "window": 5}, "--window, --stride does not apply to a pointwise model"),
        ("listwise", {"prompt": "what"}, "--prompt what does not apply to m, a listwise model: it is one of"),
        ("listwise", {"window": 5}, "--stride 10 skips the documents between two windows: give at most --window, 5"),
        ("listwise", {"min_tau": 0.0}, "--min-tau does not apply to a listwise model"),
    ],
)
def test_options_of_another_kind_are_refused(kind, options, message):
    with pytest.raises(UsageError, match=message):
        ExportOptions(**options).check("m", kind)


@pytest.mark.parametrize(
    ("name", "options", "spelling"),
    [
        ("dear-3b-ce", {"prompt": "plain"}, "--prompt"),
        ("dear-3b-ce", {"max_tokens": 100, "pooling": "last-token"}, "--max-tokens, --pooling"),
        ("dear-8b-listwise", {"prompt": "chat"}, "--prompt"),
        ("dear-8b-listwise", {"max_tokens": 100}, "--max-tokens"),
    ],
)
def test_options_that_models_toml_decides_are_refused(tmp_path, monkeypatch, name, options, spelling):
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=f"^{spelling} does not apply to {name}, whose own value is in models.toml"):
        export(name, **options)
    assert not any(tmp_path.iterdir())


def test_options_are_frozen_and_a_misspelt_one_is_an_error():
    with pytest.raises(FrozenInstanceError):
        ExportOptions().quant = "fp32"
    with pytest.raises(TypeError, match="quants"):
        ExportOptions(quants="fp32")
    with pytest.raises(TypeError, match="quants"):
        export("m", quants="fp32")


def test_export_of_a_missing_model_is_refused(tmp_path):
    with pytest.raises(UsageError, match="nobody is neither a folder nor a name of"):
        export("nobody", output=tmp_path / "m.dear")
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        export(tmp_path, output=tmp_path / "m.dear")
    assert list(tmp_path.iterdir()) == []


def test_verify_counts_the_parts_and_reports_each_step(embedded_path, tmp_path, capfd):
    lines = []
    outcome = verify(embedded_path, report=lines.append)
    assert (outcome.kind, outcome.parts, outcome.hashed) == (
        "pointwise",
        len(Bundle(embedded_path).manifest.members),
        True,
    )
    assert (outcome.readings, outcome.reproduced, len(outcome.scores)) == ((), True, 4)
    whole = f"{outcome.parts} members match their sha256, and 49 int8 matrices keep the limit of pairs"
    assert lines == [f"{embedded_path}: {whole}"]
    damaged = tmp_path / "m.dear"
    data = bytearray(embedded_path.read_bytes())
    data[Bundle(embedded_path)._offsets["weights.bin"][0] + 100] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(ModelFileError, match=r"weights\.bin does not match its sha256"):
        verify(damaged)
    assert capfd.readouterr() == ("", "")


def test_calibrate_takes_a_collection_and_returns_the_record_of_the_file(tmp_path, capfd):
    queries = {"q1": "who invented the light bulb", "q2": "who wrote Hamlet"}
    texts = {"d1": "Thomas Edison invented the light bulb in 1879", "d2": "Hamlet was written by William Shakespeare"}
    run = {query_id: {"d1": 2.0, "d2": 1.0} for query_id in queries}
    collection = make_collection(queries, texts, run)
    qrels = {"q1": {"d1": 1}, "q2": {"d2": 1}}
    counts = []
    result = calibrate(
        "minilm-l12", collection, qrels=qrels, split="two", output=tmp_path / "m.dear",
        progress=lambda done, total: counts.append((done, total)),
    )  # fmt: skip
    assert (result.path, result.fitted_on, result.pairs, result.relevant) == (tmp_path / "m.dear", "two", 4, 2)
    assert Bundle(result.path).manifest.calibration == result.record()
    assert counts[-1] == (4, 4)
    assert capfd.readouterr() == ("", "")
    with pytest.raises(UsageError, match="has no judgements"):
        calibrate("minilm-l12", collection, split="two", output=tmp_path / "n.dear")
