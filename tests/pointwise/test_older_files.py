"""Files from before the limit of pairs: their scores, and the refusal of a graph that this CPU multiplies wrongly."""

import shutil

import numpy as np
import pytest
from older_files import IN_FP32, PAIRS, SCORES, WIDE_GRAPH

pytest.importorskip("onnx", reason="onnx is not installed (extra export)")
from tiny_bundle import network

from dearlite import Reranker
from dearlite.errors import ModelFileError
from dearlite.export import verify
from dearlite.export.encoders import minilm
from dearlite.models.bundle import Bundle
from dearlite.models.bundle_writer import add_members
from dearlite.models.pair_limit import check_pair_limit
from dearlite.models.registry import find_model
from dearlite.pointwise.onnxruntime import CAPABILITIES


def write(path, **options):
    """A file with the tiny network's weights over their whole range, which states `options`."""
    tokenizer = Bundle(WIDE_GRAPH).read("tokenizer.json")
    minilm.write_graphs(network(), tokenizer, minilm.GRAPHS, {}, path, **options)
    return path


def test_an_older_file_loads_and_scores_as_before():
    manifest = Bundle(WIDE_GRAPH).manifest
    assert (manifest.schema, manifest.pair_limited) == (1, False)
    assert Reranker.load(WIDE_GRAPH, device="cpu").score(PAIRS) == pytest.approx(SCORES, abs=0.02)
    assert np.abs(np.array(SCORES) - IN_FP32).max() < 0.05


def test_an_older_file_takes_its_wide_graph_where_products_saturate(monkeypatch):
    monkeypatch.setitem(CAPABILITIES, "u8s8-exact", lambda: False)
    model = Reranker.load(WIDE_GRAPH, device="cpu")
    assert model._backend.build.graph == "cpu-wide.onnx"
    assert model.score(PAIRS) == pytest.approx(SCORES, abs=1e-4)


def test_an_older_file_takes_its_fast_graph_where_products_are_exact(monkeypatch):
    monkeypatch.setitem(CAPABILITIES, "u8s8-exact", lambda: True)
    assert Reranker.load(WIDE_GRAPH, device="cpu")._backend.build.graph == "cpu.onnx"


def test_the_fast_graph_of_unlimited_weights_is_refused_where_products_saturate(tmp_path, monkeypatch, cli):
    """Even where the file names no requirement."""
    path = write(tmp_path / "m.dear")
    assert not any(build.requires for build in Bundle(path).manifest.builds)
    monkeypatch.setitem(CAPABILITIES, "u8s8-exact", lambda: False)
    (tmp_path / "d.txt").write_text("a\n")
    code, out, err = cli("rerank", "-q", "a", tmp_path / "d.txt", "-m", path)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "m.dear has no graph for this CPU" in err and err.endswith("export the model again\n")


def test_limited_weights_run_without_a_test_of_the_cpu(tiny_bundle, monkeypatch):
    def unused():
        raise AssertionError("the CPU was tested")

    monkeypatch.setitem(CAPABILITIES, "u8s8-exact", unused)
    assert Reranker.load(tiny_bundle, device="cpu")._backend.build.graph == "cpu.onnx"


def test_verify_checks_what_the_file_states(tmp_path, tiny_bundle, cli):
    said = []
    assert verify(tiny_bundle, report=said.append).parts == 4
    assert said[0].endswith("4 members match their sha256, and 5 int8 matrices keep the limit of pairs")
    write(tmp_path / "m.dear", pair_limited=True)
    with pytest.raises(ModelFileError, match=r"states pair_limited, and two neighbours in .*export the model again"):
        verify(tmp_path / "m.dear")
    code, _, err = cli("models", "verify", tmp_path / "m.dear")
    assert (code, err.count("\n")) == (1, 1) and err.startswith("dearlite: ")
    assert check_pair_limit(Bundle(write(tmp_path / "n.dear"))) == 0  # it states nothing


def test_the_statement_is_true_or_false(tmp_path, tiny_bundle):
    path = shutil.copy(tiny_bundle, tmp_path / "m.dear")
    add_members(path, {}, pair_limited=1)
    with pytest.raises(ModelFileError, match="'pair_limited' is not of type bool"):
        Bundle(path)


@pytest.mark.parametrize("file", ["embedded", "tiny"])
def test_no_int8_matrix_holds_128(file, tiny_bundle):
    """Twice (-128)(-128) overflows the 16 bits in which Arm CPUs without dot products add."""
    tensors = Bundle(find_model("minilm-l12") if file == "embedded" else tiny_bundle).tensors()
    matrices = [values for values in tensors.values() if values.dtype == np.int8]
    assert len(matrices) >= 7 and all(values.min() >= -127 for values in matrices)
