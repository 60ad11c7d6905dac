"""Predicted seconds, tokens and memory of a model, by hand from small numbers."""

from dataclasses import replace

import pytest

from dearlite.models.entries import ModelEntry
from dearlite.models.registry import load_registry
from dearlite.recommend.prediction import (
    Workload,
    gguf_type,
    peak_memory_mb,
    seconds_in_llama,
    seconds_in_onnx,
    tokens_of,
)
from dearlite.recommend.rates import GgufRates, OnnxRates

# 10^9 operations a second at every width, 1 ns a value, 0.01 ns a pair
RATES = OnnxRates({256: 1e9, 1024: 1e9}, 1e-9, 1e-11)


def entry(**facts):
    given = {"kind": "pointwise", "repository": "", "architecture": "bert", "prompt": "plain", "pooling": "first-token"}
    given |= {"max_tokens": 512, "licence": "MIT", "size_mb": 10, "memory_mb": 100}
    given |= {"parameters": 10**7, "matrix_parameters": 10**6, "layers": 2, "hidden": 100}
    return ModelEntry(name="m", **(given | facts))


def test_an_encoder_reads_query_and_document_together():
    # 16 of the query, 4 special ones, 80 of the document
    assert (tokens_of(entry(), Workload(1, 80)).shared, tokens_of(entry(), Workload(1, 80)).each) == (0, 100)


def test_a_document_is_cut_at_the_maximum_of_the_model():
    tokens = tokens_of(entry(max_tokens=120), Workload(1, 500))
    assert (tokens.each, tokens.read) == (120, 100)


def test_a_decoder_reads_the_query_once_unless_it_follows_the_document():
    plain = tokens_of(entry(pooling="last-token"), Workload(1, 80))
    assert (plain.shared, plain.each) == (16, 84)
    qwen = tokens_of(entry(pooling="last-token", prompt="qwen3-reranker", max_tokens=8192), Workload(1, 80))
    assert qwen.shared > 60  # the system turn, the instruction and the query
    assert 84 < qwen.each < 110  # the document and the end of the turn
    assert tokens_of(entry(pooling="last-token", prompt="ctxl-v2"), Workload(1, 80)).shared == 0
    assert tokens_of(entry(pooling="mean", prompt="nemotron"), Workload(1, 80)).shared == 0


def test_seconds_of_an_encoder():
    # A row of 100 tokens: products 100 x 2 x 10^6 / 10^9 = 0.2 s; 100 x 200 values x 1 ns = 20 us; 100 x 100 pairs x
    # 200 values x 0.01 ns = 20 us. Ten rows on two threads take five times as long.
    assert seconds_in_onnx(entry(), Workload(10, 80), RATES, 2) == pytest.approx(5 * 0.20004)


def test_one_document_does_not_use_a_second_thread():
    work = Workload(1, 80)
    assert seconds_in_onnx(entry(), work, RATES, 2) == seconds_in_onnx(entry(), work, RATES, 1)


def test_seconds_of_a_gguf():
    # 16 + 10 x 84 tokens, each 2 x 10^6 / 10^9 s and 200 values x 1 us
    gguf = entry(pooling="last-token", file="m.gguf")
    assert seconds_in_llama(gguf, Workload(10, 80), GgufRates(1e9, 1e-6)) == pytest.approx(856 * 0.0022)


def test_a_listwise_model_reads_overlapping_windows():
    # 100 documents: (100 - 20) / 10 + 1 = 9 windows of 20 x (80 + 8) + 136 tokens
    seconds = seconds_in_llama(entry(kind="listwise", max_tokens=5000), Workload(100, 80), GgufRates(1e9, 0.0))
    assert seconds == pytest.approx(9 * 1896 * 0.002)


def test_an_entry_without_a_shape_has_no_prediction():
    shapeless = entry(layers=None)
    assert seconds_in_onnx(shapeless, Workload(1, 80), RATES, 1) is None
    assert seconds_in_llama(shapeless, Workload(1, 80), GgufRates(1e9, 0.0)) is None


@pytest.mark.parametrize(("width", "rate"), [(64, 10.0), (256, 10.0), (512, 15.0), (1024, 20.0), (8192, 20.0)])
def test_rates_between_two_widths_are_interpolated_and_not_beyond(width, rate):
    assert OnnxRates({256: 10.0, 1024: 20.0}, 0.0, 0.0).operations_per_s(width) == pytest.approx(rate)


@pytest.mark.parametrize(("size_mb", "kind"), [(6, "q4_k"), (11, "q8_0"), (20, "f16")])
def test_the_type_of_a_gguf_follows_from_bits_per_parameter(size_mb, kind):
    assert gguf_type(entry(size_mb=size_mb)) == kind


def test_memory_is_the_entry_s_with_texts_and_attention():
    decoder = entry(pooling="last-token", max_tokens=8192)
    assert peak_memory_mb(decoder, Workload(1000, 500), 2) == pytest.approx(100 + 4.0)  # 1000 x 4,000 bytes
    # Attention of an encoder: 2 threads x 100/64 x 1,000^2 pairs x 11 bytes = 34.4 MB
    encoder = entry(max_tokens=1000)
    assert peak_memory_mb(encoder, Workload(1, 5000), 2) == pytest.approx(100 + 34.4, abs=0.1)


def test_a_model_that_picks_reads_a_group_for_each_comparison():
    """Heapsort of 20 documents, 3 children: 3 + 2 + 5 x 1 to build the tree, 3 x 2 + 6 x 3 for those after the best."""
    model = entry(kind="listwise", prompt="setwise-sft", max_tokens=5000)
    tokens = 34 * (4 * (200 + 8) + 120 + 16)
    assert seconds_in_llama(model, Workload(20, 200), GgufRates(1e9, 0.0)) == pytest.approx(tokens * 2 * 10**6 / 1e9)


def test_every_registered_model_has_a_prediction():
    work = Workload(100, 200)
    for model in load_registry().values():
        gguf = model.kind == "listwise" or model.file
        seconds = (
            seconds_in_llama(model, work, GgufRates(1e11, 1e-7)) if gguf else seconds_in_onnx(model, work, RATES, 2)
        )
        assert seconds is not None and seconds > 0, model.name
        larger = replace(model, matrix_parameters=2 * model.matrix_parameters)
        assert seconds_in_onnx(larger, work, RATES, 2) > seconds_in_onnx(model, work, RATES, 2)
