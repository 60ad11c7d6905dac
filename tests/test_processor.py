"""The CPU's class and instructions, on several systems through stand-ins for what they report."""

import sys
from types import SimpleNamespace

import pytest

from dearlite import processor


@pytest.fixture(autouse=True)
def _uncached():
    processor.cpu_features.cache_clear()
    yield
    processor.cpu_features.cache_clear()


@pytest.mark.parametrize(
    ("system", "features", "arm", "expected"),
    [
        ("AMD64", {"AVX": True, "AVX2": True, "AVX512F": False}, {"SME"}, "x86_64 AVX2"),
        ("x86_64", {"AVX2": True, "AVX512F": True, "AVX512VNNI": True}, set(), "x86_64 AVX512VNNI"),
        ("aarch64", {"ASIMD": True, "ASIMDDP": True}, set(), "arm64 ASIMDDP"),
        ("arm64", {"ASIMD": True}, {"ASIMDDP", "I8MM"}, "arm64 ASIMDDP"),  # Windows: NumPy does not ask there
        ("arm64", {"ASIMDDP": True}, {"ASIMDDP", "I8MM", "SME"}, "arm64 SME"),  # fp32 products of its own
        ("arm64", {}, set(), "arm64"),
        ("riscv64", None, set(), "riscv64"),
    ],
)
def test_processor_class_has_one_name_on_all_systems(monkeypatch, system, features, arm, expected):
    monkeypatch.setattr(processor.platform, "machine", lambda: system)
    module = SimpleNamespace() if features is None else SimpleNamespace(__cpu_features__=features)
    monkeypatch.setattr(processor, "import_module", lambda name: module)
    monkeypatch.setattr(processor, "_arm_has", lambda name: name in arm)
    assert processor.processor_class.__wrapped__() == expected


def _linux(vector):
    """A C library of Linux with these entries in a process' vector."""

    def getauxval(number):
        return vector[number]

    return SimpleNamespace(getauxval=getauxval)


def _macos(values):
    """A C library of macOS with these values of sysctl."""

    def sysctlbyname(name, value, size, new, new_size):
        value._obj.value = values.get(name.decode(), value._obj.value)
        return 0 if name.decode() in values else -1

    return SimpleNamespace(sysctlbyname=sysctlbyname)


@pytest.mark.parametrize(
    ("platform", "library", "expected"),
    [
        ("linux", _linux({16: 1 << 20, 26: 1 << 13}), {"ASIMDDP", "I8MM"}),
        ("linux", _linux({16: 1 << 19 | 1 << 21, 26: 1 << 23}), {"SME"}),
        ("linux", SimpleNamespace(), set()),  # a C library without the call
        ("darwin", _macos({"hw.optional.arm.FEAT_DotProd": 1, "hw.optional.arm.FEAT_I8MM": 0}), {"ASIMDDP"}),
        ("darwin", _macos({"hw.optional.arm.FEAT_SME": 1}), {"SME"}),
    ],
)
def test_arm_instructions_are_those_that_the_system_reports(monkeypatch, platform, library, expected):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(processor.ctypes, "CDLL", lambda name: library)
    assert {name for name in processor._ARM if processor._arm_has(name)} == expected


def test_windows_reports_dot_products_alone(monkeypatch):
    kernel = SimpleNamespace(IsProcessorFeaturePresent=lambda number: int(number == 43))
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(processor.ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    assert {name for name in processor._ARM if processor._arm_has(name)} == {"ASIMDDP"}
