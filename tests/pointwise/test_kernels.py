"""The kernels of 8-bit products by name, the small products that measure them, and their lines in the report."""

import numpy as np
import pytest

from dearlite.pointwise import kernels


@pytest.mark.parametrize(
    ("architecture", "features", "exact", "system", "name"),
    [
        ("x86_64", {"AVX2", "AVX512VNNI"}, True, "linux", "VNNI"),
        ("x86_64", {"AVX2"}, True, "win32", "VNNI"),  # AVX-VNNI, which NumPy has no name for
        ("x86_64", {"AVX2"}, False, "linux", "AVX2 exact"),
        ("x86_64", {"SSE42"}, True, "linux", "SSE4.1"),
        ("arm64", {"ASIMDDP", "I8MM"}, True, "linux", "Arm matrix"),
        ("arm64", {"ASIMDDP", "I8MM"}, True, "darwin", "Arm dot product"),
        ("arm64", {"ASIMDDP"}, True, "linux", "Arm dot product"),
        ("arm64", set(), True, "linux", "Arm without dot product"),
        ("riscv64", set(), True, "linux", "generic"),
    ],
)
def test_kernels_are_named_by_the_processor(monkeypatch, architecture, features, exact, system, name):
    monkeypatch.setattr(kernels, "architecture", lambda: architecture)
    monkeypatch.setattr(kernels, "cpu_features", lambda: features)
    monkeypatch.setattr(kernels, "multiplies_u8s8_exactly", lambda: exact)
    monkeypatch.setattr(kernels.sys, "platform", system)
    assert kernels.kernels() == name
    assert kernels.kernels_in_words().startswith(f"{name}: ")


@pytest.mark.parametrize("kinds", [(np.int8, np.uint8), (np.float32, np.float32)])
def test_products_have_the_sides_of_their_weights(kinds):
    weights, factors = kinds
    random = np.random.default_rng(0)
    b, a = random.integers(0, 60, (256, 384)).astype(weights), random.integers(0, 255, (3, 256)).astype(factors)
    product = kernels.open_product(b).run(None, {"a": a})[0]
    assert np.array_equal(product, a.astype(np.int64) @ b.astype(np.int64))


def test_rates_count_both_operations(monkeypatch):
    """A clock that moves by a millisecond a look gives one call of 2 * 128 * 256 * 256 operations in each two."""
    times = iter(range(10**6))
    monkeypatch.setattr(kernels, "_SHAPE", (128, 256, 256))
    monkeypatch.setattr(kernels, "_MEASURED_S", 1.5e-3)
    monkeypatch.setattr(kernels.time, "perf_counter", lambda: next(times) / 1e3)
    rates = kernels.product_rates()
    assert rates.int8_gops == pytest.approx(2 * 128 * 256 * 256 / 2e-3 / 1e9)
    assert rates.fp32_gops == pytest.approx(rates.int8_gops)
    assert str(kernels.ProductRates(112.4, 70.3)).startswith("112 GOP/s in int8, 70 in fp32 (1.6 times)")


def test_doctor_names_the_kernels_and_their_rate(cli, monkeypatch):
    monkeypatch.setattr("dearlite.cli.doctor.product_rates", lambda: kernels.ProductRates(120, 60))
    code, out, _ = cli("doctor")
    facts = dict(line.strip().split("  ", 1) for line in out.splitlines() if "  " in line.strip())
    assert code == 0
    assert facts["int8 kernels"].strip() == kernels.kernels_in_words()
    assert facts["small products"].strip().startswith("120 GOP/s in int8, 60 in fp32 (2.0 times)")
    assert "u8" not in out
