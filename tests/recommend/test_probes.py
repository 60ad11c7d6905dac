"""The measurements of this machine: that they end, and their figures belong together. No figure is held to a value."""

import numpy as np
import pytest

from dearlite.errors import MissingExtra
from dearlite.llama.bindings import library
from dearlite.models.gguf import GgufFile
from dearlite.recommend import gguf_probe, onnx_probe
from dearlite.recommend.rates import OnnxRates, kept


def test_the_product_is_one_of_square_matrices():
    session, values = onnx_probe._product(256)
    result = session.run(None, {"a": values})[0]
    assert result.shape == (128, 256)
    assert (result == 3 * 2 * 256).all()
    assert session.get_inputs()[0].shape[1] == 256


def test_rates_of_onnx_are_positive_and_kept_as_they_are(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_probe, "_WIDTHS", (256,))
    monkeypatch.setattr(onnx_probe, "_LENGTHS", (16, 32))
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path))
    rates = onnx_probe.probe_onnx(1)
    assert rates.products[256] > 1e8
    assert rates.value_s >= 0 and rates.pair_s >= 0
    for again in (True, False):
        assert kept(OnnxRates, "onnx", "library 1", 1, lambda: rates, again=again) == rates
    with pytest.raises(ZeroDivisionError):  # another version measures anew
        kept(OnnxRates, "onnx", "library 2", 1, lambda: 1 / 0, again=False)


def test_rates_of_all_widths_are_of_one_size(monkeypatch):
    monkeypatch.setattr(onnx_probe, "_REPEATS", 1)
    rates = onnx_probe.probe_onnx(1)
    assert sorted(rates.products) == list(onnx_probe._WIDTHS)
    assert max(rates.products.values()) < 30 * min(rates.products.values())


def test_rates_are_those_of_the_fit(monkeypatch):
    """With 10^10 operations a second and 5 ns a value, the probe's two models give these figures back."""

    def seconds(shape, kind, threads):
        return shape.operations / 1e10 + shape.values * 5e-9

    monkeypatch.setattr(gguf_probe, "_seconds_per_token", seconds)
    rates = gguf_probe.probe_gguf("q8_0", 2)
    assert rates.operations_per_s == pytest.approx(1e10)
    assert rates.value_s == pytest.approx(5e-9)


def test_a_disturbed_measurement_still_gives_rates(monkeypatch):
    monkeypatch.setattr(gguf_probe, "_seconds_per_token", lambda shape, kind, threads: 1e-3)  # both models alike
    rates = gguf_probe.probe_gguf("q8_0", 2)
    assert rates.operations_per_s > 0 and rates.value_s >= 0


@pytest.mark.parametrize("kind", ["q4_k", "q8_0", "f16"])
def test_the_written_model_is_a_whole_one_of_zeros(tmp_path, kind):
    gguf_probe._write(tmp_path / "probe.gguf", gguf_probe._SHAPES[0], kind)
    file = GgufFile(tmp_path / "probe.gguf")
    assert file.main_type == kind
    assert file.tensors["blk.3.ffn_down.weight"].shape == (512, 256)
    assert not file.read_tensor("output_norm.weight", np.float32).any()


def test_llama_runs_the_written_model(monkeypatch):
    try:
        library()
    except MissingExtra:
        pytest.skip("llama.cpp is not installed")
    monkeypatch.setattr(gguf_probe, "BATCH_TOKENS", 32)
    assert gguf_probe._seconds_per_token(gguf_probe._Shape(256, 256, 1), "q8_0", 1) > 0
