"""The order of texts that every integration uses."""

import asyncio
import importlib
import sys

import pytest
from integrations.conftest import ORDER, QUERY, TEXTS

from dearlite import DearliteWarning, MissingExtra, Reranker, UsageError
from dearlite.installing import pip_install
from dearlite.integrations.ordering import aorder_texts, as_reranker, order_texts


def both(*arguments, **options):
    orders = order_texts(*arguments, **options), asyncio.run(aorder_texts(*arguments, **options))
    assert orders[0] == orders[1]
    return orders[0]


def test_positions_and_scores_of_the_best(reranker, relevance, logits):
    assert both(reranker, QUERY, TEXTS) == [(index, relevance[TEXTS[index]]) for index in ORDER]
    assert both(reranker, QUERY, TEXTS, top_k=2, raw=True) == [(index, logits[TEXTS[index]]) for index in ORDER[:2]]
    assert both(reranker, QUERY, []) == []


def test_empty_texts_come_last_with_a_warning(reranker, relevance, logits):
    texts = ["", TEXTS[2], None, TEXTS[1], "\u200b"]
    with pytest.warns(DearliteWarning, match=r"^3 documents \(the first is 0\) are empty and cannot be ranked"):
        order = order_texts(reranker, QUERY, texts)
    assert order == [(3, relevance[TEXTS[1]]), (1, relevance[TEXTS[2]]), (0, 0.0), (2, 0.0), (4, 0.0)]
    with pytest.warns(DearliteWarning, match="^document 0 is empty"):
        raw = both(reranker, QUERY, ["", TEXTS[2]], raw=True)
    assert raw == [(1, logits[TEXTS[2]]), (0, logits[TEXTS[2]])]
    with pytest.warns(DearliteWarning, match="^3 documents"):
        best = both(reranker, QUERY, texts, top_k=3)
    with pytest.warns(DearliteWarning, match="^2 documents"):
        nothing = both(reranker, QUERY, ["", ""], top_k=1)
    assert (best, nothing) == (order[:3], [(0, 0.0)])


def test_a_wrong_number_is_refused_also_without_texts(reranker):
    for texts in ([], TEXTS):
        with pytest.raises(UsageError, match="top_k is 0"):
            order_texts(reranker, QUERY, texts, top_k=0)


def test_a_loaded_model_is_taken_and_keeps_its_options(reranker):
    assert as_reranker(reranker) is reranker
    with pytest.raises(UsageError, match="minilm-l12 is loaded already: give device, threads and instruction to"):
        as_reranker(reranker, threads=2)
    closed = Reranker.load(threads=1)
    closed.close()
    with pytest.raises(UsageError, match="was closed"):
        as_reranker(closed)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("langchain", "langchain_core", "langchain"),
        ("llama_index", "llama_index", "llama-index"),
        ("haystack", "haystack", "haystack"),
        ("lancedb", "lancedb", "lancedb"),
        ("lancedb", "pyarrow", "lancedb"),
        ("rerankers", "rerankers", "rerankers"),
    ],
)
def test_a_missing_framework_is_named_with_its_extra(monkeypatch, name, module, extra):
    if module == "lancedb":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra parquet)")
    for loaded in [key for key in sys.modules if key == module or key.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"dearlite.integrations.{name}", raising=False)
    with pytest.raises(MissingExtra) as raised:
        importlib.import_module(f"dearlite.integrations.{name}")
    assert str(raised.value) == f"{module} is needed here and is not installed: {pip_install(extra)}"
