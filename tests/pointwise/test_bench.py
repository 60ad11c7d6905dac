"""`dearlite bench`: its counts, checked by hand, and a run on a real model."""

import json
import re
import sys

import pytest
from older_files import WIDE_GRAPH

from dearlite import Reranker, machine
from dearlite.cli.main import run
from dearlite.models.manifest import Build, Manifest, Tensor
from dearlite.pointwise import bench
from dearlite.pointwise.kernels import kernels_in_words
from dearlite.pointwise.onnxruntime import CAPABILITIES, EXACT_PRODUCTS
from dearlite.pointwise.reranker import PointwiseReranker


@pytest.fixture
def cli(capsys, monkeypatch):
    """Runs `dearlite bench` with a small product for the peak; returns exit code, stdout, stderr."""
    monkeypatch.setattr(bench, "_PEAK_SHAPE", (8, *bench._PEAK_SHAPE[1:]))

    def call(*args):
        with pytest.raises(SystemExit) as ended:
            run(["bench", *map(str, args)])
        out = capsys.readouterr()
        return ended.value.code, out.out, out.err

    return call


def test_json_has_every_figure_and_they_fit_together(cli):
    code, out, err = cli("--docs", 3, "--tokens", 40, "--threads", 1, "--device", "cpu", "--json")
    assert (code, err) == (0, "")
    measurement = json.loads(out)
    assert (measurement["model"], measurement["device"], measurement["threads"]) == ("minilm-l12", "cpu", 1)
    assert (measurement["documents"], measurement["tokens_per_document"]) == (3, 40)
    lowest, highest = measurement["documents_per_s_range"]
    assert 0 < lowest <= measurement["documents_per_s"] <= highest
    assert measurement["tokens_per_s"] == pytest.approx(40 * measurement["documents_per_s"])
    assert measurement["share_of_int8_peak"] == pytest.approx(
        measurement["matrices_gops"] / measurement["int8_peak_gops"]
    )
    assert measurement["kernels"] == kernels_in_words()
    assert measurement["product_rates"].keys() == {"int8_gops", "fp32_gops"}
    assert min(measurement["product_rates"].values()) > 0
    few, many = measurement["predicted"]
    assert (few["documents"], many["documents"]) == (100, 10_000)
    assert few["seconds"] == pytest.approx(measurement["load_s"] + 100 / measurement["documents_per_s"])
    assert many["seconds"] > few["seconds"] > measurement["load_s"] > 0 < measurement["first_score_s"]
    assert many["memory_mb"] > few["memory_mb"] > measurement["memory"]["peak_rss_mb"] > 50


def test_table_names_model_and_settings(cli):
    code, out, _ = cli("--docs", 1, "--tokens", 20, "--threads", 1)
    assert code == 0
    for words in (
        "minilm-l12, int8-per-row, on cpu",
        "first score",
        "1 of 20 tokens",
        "int8 peak",
        "int8 kernels",
        "in fp32 (",
        "10,000",
        "MB",
    ):
        assert words in out


def test_the_second_graph_of_an_older_file_is_named(cli, monkeypatch):
    for exact, words in ((True, kernels_in_words()), (False, "u8 x u8: the second graph of an older file")):
        monkeypatch.setitem(CAPABILITIES, EXACT_PRODUCTS, lambda exact=exact: exact)
        _, out, _ = cli("-m", WIDE_GRAPH, "--docs", 1, "--tokens", 20, "--threads", 1, "--device", "cpu")
        assert re.search(rf"^int8 kernels +{re.escape(words)}", out, re.MULTILINE)


def test_measurement_errors_are_one_line(cli, tmp_path):
    broken = tmp_path / "broken.dear"
    broken.write_bytes(b"PK")
    for args, code, words in (
        (("-m", "minilm-l21"), 2, "no model 'minilm-l21' (nearest: minilm-l2, minilm-l12, minilm-l6, minilm-l4)"),
        (("-m", tmp_path / "none.dear"), 2, "no model file"),
        (("-m", broken), 1, "not a complete .dear file"),
        (("--tokens", 513), 2, "--tokens 513: a pair of minilm-l12 has"),
        (("--tokens", 3), 2, "to 512 tokens"),
        (("--docs", 0), 2, "--docs"),
        (("--threads", 0), 2, "threads is 0"),
    ):
        status, out, err = cli(*args)
        assert (status, out, err.count("\n")) == (code, "", 1), args
        assert words in err


def test_interrupt_ends_with_130(cli, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(PointwiseReranker, "rerank", interrupted)
    code, out, err = cli("--docs", 1)
    assert (code, out, err.strip()) == (130, "", "dearlite: interrupted")


def test_documents_have_the_requested_number_of_tokens():
    reranker = Reranker.load(device="cpu", threads=1)
    corpus = bench._RandomCorpus(reranker, 45)
    texts = corpus.texts(4)
    assert len(set(texts)) == 4
    assert {(hit.tokens_used, hit.truncated) for hit in reranker.rerank(corpus.query, texts)} == {(45, False)}
    assert bench._RandomCorpus(reranker, None).tokens == bench.DEFAULT_TOKENS


def test_shared_query_is_counted_once():
    corpus = bench._RandomCorpus.__new__(bench._RandomCorpus)
    corpus.tokens, corpus._prefix = 140, 20
    assert corpus.computed_tokens(3, shared=False) == 420
    assert corpus.computed_tokens(3, shared=True) == 20 + 3 * 120


def test_operations_worked_by_hand():
    shapes = {
        "embedding": (9, 4), "embedding.scale": (9, 1), "rotary.cos": (32, 2), "words.table": (9, 4),
        "layer.0.qkv.weight": (4, 6), "layer.0.qkv.scale": (6,), "layer.0.o.weight": (4, 4),
        "layer.1.qkv.weight": (4, 6), "layer.1.o.weight": (4, 4), "head": (4, 1), "of another build": (100, 100),
    }  # fmt: skip
    tensors = {name: Tensor("int8", shape, 0) for name, shape in shapes.items()}
    build = Build("cpu", "cpu.onnx", "shared-prefix", "int8", (), tuple(shapes)[:-1])
    manifest = Manifest("pointwise", "m", "a", "dear", "last-token", 64, "MIT", {}, (build,), {}, tensors)
    # Both qkv and the first o for 10 tokens; the last layer's o and the head for each of 2 documents.
    assert bench.operations(manifest, build, 10, 2) == 2 * (10 * (24 + 16 + 24) + 2 * (16 + 4))


@pytest.mark.parametrize(
    ("vocabulary", "words"),
    [
        ({"Ġlight": 0, "Ġbulb": 1, "ing": 2, "Ġ,": 3, "ĠÃ©": 4}, ["bulb", "light"]),  # byte-level BPE
        ([["<unk>", 0.0], ["▁light", -1.5], ["s", -2.0]], ["light"]),  # unigram
        ({"[CLS]": 0, "light": 1, "##ing": 2, "w7": 3}, ["light", "w7"]),  # WordPiece, words
        ({"<0x00>": 0}, ["a"]),
    ],
)
def test_words_of_a_vocabulary(vocabulary, words):
    assert bench._vocabulary({"model": {"vocab": vocabulary}}) == words


def test_memory_without_proc_is_the_peak_alone(monkeypatch):
    class NoProc:
        def __init__(self, _):
            pass

        def read_text(self):
            raise FileNotFoundError

    monkeypatch.setattr(machine, "Path", NoProc)
    resource = pytest.importorskip("resource")

    def peak_mb():
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform != "darwin" else 1 / 1024)
        return kib * 1024 / 2**20  # ru_maxrss: KiB on Linux, bytes on macOS

    before, memory, after = peak_mb(), machine.memory_now(), peak_mb()
    assert before <= memory.peak_rss_mb <= after
    assert (memory.anonymous_mb, memory.file_mb) == (None, None)


def test_shipped_products_equal_the_exporters(tmp_path, embedded_path):
    pytest.importorskip("onnx")
    from dearlite.export.encoders.probes import write_products

    write_products(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"u8s8_product.onnx", "f32_product.onnx"}
    for path in tmp_path.iterdir():
        shipped = embedded_path.with_name(path.name).read_bytes()
        assert path.read_bytes() == shipped
        assert len(shipped) < 500
