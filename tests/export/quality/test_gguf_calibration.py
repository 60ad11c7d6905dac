"""A calibration in the metadata of a GGUF: written by `models calibrate`, read with the prompt of its fit."""

import json

import numpy as np
import pytest
from llama import need_llama

need_llama()
pytest.importorskip("torch", reason="torch is not installed (extra train)")
import tiny_scorers  # noqa: E402

from dearlite import Reranker  # noqa: E402
from dearlite.errors import ModelFileError, UsageError  # noqa: E402
from dearlite.export import calibrate  # noqa: E402
from dearlite.models.gguf import GgufFile  # noqa: E402
from dearlite.models.gguf_writer import write_with_text  # noqa: E402

QUERY = "where does the river of the city fall"
DOCS = ["rain falls on hills", "ships carry grain", "snow", "the river", "a city on a river", "what the ships carry"]


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "language.gguf"
    tiny_scorers.write_decoder(path, tiny_scorers.decoder("qwen2", seed=1))
    return path


def write_split(folder, scores):
    """A collection of one query in which the half of DOCS with the higher scores is relevant."""
    best = np.argsort(scores)[len(DOCS) // 2 :]
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": QUERY}) + "\n")
    (folder / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": f"d{n}", "text": t}) + "\n" for n, t in enumerate(DOCS))
    )
    (folder / "run.trec").write_text("".join(f"q Q0 d{n} {n + 1} {9.0 - n} first\n" for n in range(len(DOCS))))
    (folder / "qrels.txt").write_text("".join(f"q 0 d{n} 1\n" for n in best))
    return {"run": folder / "run.trec", "qrels": folder / "qrels.txt"}


def test_language_model_is_calibrated_for_one_prompt(language, tmp_path, cli):
    plain = Reranker.load(language, threads=1, prompt="mxbai-v2").rerank(QUERY, DOCS)
    assert {hit.relevance_from for hit in plain} == {"activation"}
    scores = [hit.score for hit in sorted(plain, key=lambda hit: hit.index)]
    files = write_split(tmp_path, scores)
    output = tmp_path / "calibrated.gguf"
    code, out, err = cli(
        *("models", "calibrate", language, tmp_path, "--prompt", "mxbai-v2", "--split", "mine"),
        *("--run", files["run"], "--qrels", files["qrels"], "-o", output),
    )
    assert code == 0 and "fitted on 6 pairs, 3 of them relevant" in out, err
    record = json.loads(GgufFile(output).metadata["dearlite.calibration"])
    assert (record["prompt"], record["fitted_on"], record["pairs"]) == ("mxbai-v2", "mine", 6)
    fitted = Reranker.load(output, threads=1, prompt="mxbai-v2").rerank(QUERY, DOCS)
    assert {hit.relevance_from for hit in fitted} == {"calibration"}
    assert [(hit.index, hit.score) for hit in fitted] == [(hit.index, hit.score) for hit in plain]
    expected = [1 / (1 + np.exp(-(record["scale"] * hit.score + record["bias"]))) for hit in fitted]
    assert [hit.relevance for hit in fitted] == pytest.approx(expected, abs=1e-9)
    other = Reranker.load(output, threads=1, prompt="ctxl-v2").rerank(QUERY, DOCS)
    assert {hit.relevance_from for hit in other} == {None}  # fitted for another prompt
    assert not Reranker.load(output, threads=1).pointwise
    code, out, err = cli(
        "rerank",
        "-q",
        QUERY,
        "-m",
        output,
        "--prompt",
        "mxbai-v2",
        "--min-relevance",
        "0.5",
        *DOCS[:0],
        tmp_path / "corpus.jsonl",
    )
    assert code == 0, err


def test_file_with_a_head_of_its_own_is_calibrated_in_place(language, tmp_path):
    rows = np.random.default_rng(5).standard_normal((2, tiny_scorers.HIDDEN)).astype(np.float32)
    path = tmp_path / "labelled.gguf"
    labels = {"qwen3.pooling_type": 4, "qwen3.classifier.output_labels": ["yes", "no"]}
    tiny_scorers.write_decoder(path, tiny_scorers.decoder("qwen3"), {"cls.output.weight": rows}, labels)
    before = {name: GgufFile(path).read_tensor(name, np.float32) for name in GgufFile(path).tensors}
    scores = Reranker.load(path, threads=1).score([(QUERY, doc) for doc in DOCS])
    files = write_split(tmp_path, scores)
    for split in ("one", "two"):  # the second replaces the first
        result = calibrate(path, tmp_path, split=split, output=path, **files)
        assert result.fitted_on == split
    calibrated = GgufFile(path)
    assert json.loads(calibrated.metadata["dearlite.calibration"])["fitted_on"] == "two"
    assert all(np.array_equal(calibrated.read_tensor(name, np.float32), values) for name, values in before.items())
    reranker = Reranker.load(path, threads=1)
    assert reranker.score([(QUERY, doc) for doc in DOCS]) == scores
    assert reranker.margin == result.margin


def test_hash_of_an_exported_file_is_that_of_its_copy(tmp_path):
    head = np.random.default_rng(6).standard_normal(tiny_scorers.HIDDEN).astype(np.float32)
    path, output = tmp_path / "own.gguf", tmp_path / "calibrated.gguf"
    own = {"schema": 1, "kind": "pointwise", "name": "own", "prompt": "dear", "max_tokens": 96}
    pair = {"pair.before": [1], "pair.between": [2, 1], "pair.after": [2], "head": [float(v) for v in head]}
    metadata = {f"dearlite.{key}": value for key, value in (own | pair | {"sha256": "0" * 64}).items()}
    tiny_scorers.write_decoder(path, tiny_scorers.decoder("qwen3"), metadata=metadata)
    digest = GgufFile(path).sha256()
    data = path.read_bytes()
    start, size = GgufFile(path).value_span("dearlite.sha256")
    path.write_bytes(data[:start] + digest.encode() + data[start + size :])
    assert GgufFile(path).verify()
    scores = Reranker.load(path, threads=1).score([(QUERY, doc) for doc in DOCS])
    calibrate(path, tmp_path, split="s", output=output, **write_split(tmp_path, scores))
    assert GgufFile(output).verify() and GgufFile(output).recorded_sha256 != digest
    assert Reranker.load(output, threads=1).score([(QUERY, doc) for doc in DOCS]) == scores


def test_refusals(language, tmp_path, cli):
    files = write_split(tmp_path, range(len(DOCS)))
    with pytest.raises(UsageError, match="name a pointwise model, or the family of its answers with --prompt"):
        calibrate(language, tmp_path, split="s", output=tmp_path / "x.gguf", **files)
    with pytest.raises(UsageError, match="cannot be compared between queries"):
        calibrate(language, tmp_path, split="s", prompt="upr", output=tmp_path / "x.gguf", **files)
    with pytest.raises(UsageError, match=r"x\.dear"):
        calibrate(language, tmp_path, split="s", prompt="ctxl-v2", output=tmp_path / "x.dear", **files)
    with pytest.raises(UsageError, match=r"x\.gguf"):
        calibrate("minilm-l12", tmp_path, split="s", output=tmp_path / "x.gguf", **files)
    write_with_text(GgufFile(language), tmp_path / "bad.gguf", "dearlite.calibration", "[1]")
    code, _, err = cli(
        "rerank",
        "-q",
        QUERY,
        tmp_path / "corpus.jsonl",
        "-m",
        tmp_path / "bad.gguf",
        "--prompt",
        "ctxl-v2",
        "--min-relevance",
        "0.5",
    )
    assert code == 1 and "its dearlite.calibration is not a JSON object" in err, err
    with pytest.raises(ModelFileError, match="not a JSON object"):
        Reranker.load(tmp_path / "bad.gguf", prompt="ctxl-v2")


@pytest.mark.parametrize("text", ["", "x", "ä" * 1000, json.dumps({"a": [1, 2]})])
def test_copies_keep_every_tensor_and_entry(language, tmp_path, text):
    source = GgufFile(language)
    for number, key in enumerate(("new.entry", "tokenizer.ggml.model", "new.entry")):
        output = tmp_path / f"{number}.gguf"
        write_with_text(source, output, key, text)
        copy = GgufFile(output)
        assert copy.metadata == source.metadata | {key: text}
        assert list(copy.tensors) == list(source.tensors)
        for name, tensor in source.tensors.items():
            assert np.array_equal(
                copy.read_tensor(name, np.uint8 if tensor.type != "f32" else np.float32),
                source.read_tensor(name, np.float32),
            )
        source = copy
