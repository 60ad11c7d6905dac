"""The CPU's instructions for products of 8-bit integers, read from the system. Nothing is run."""

from __future__ import annotations

import ctypes
import platform
import sys
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any

# Names of an architecture on several systems; the extensions for which libraries have kernels of their own, best first.
_ARCHITECTURES = {"amd64": "x86_64", "aarch64": "arm64"}
_EXTENSIONS = ("AVX512VNNI", "AVX512F", "AVX2", "AVX", "SME", "SVE", "ASIMDDP")

# Arm's instructions -> number and bit in the vector that Linux gives a process; macOS' name; Windows' number, if known.
_ARM = {
    "ASIMDDP": (16, 20, "FEAT_DotProd", 43),
    "I8MM": (26, 13, "FEAT_I8MM", None),
    "SME": (26, 23, "FEAT_SME", None),
}


def architecture() -> str:
    """The architecture of the CPU, by one name on all systems: "x86_64", "arm64"."""
    machine = platform.machine().lower()
    return _ARCHITECTURES.get(machine, machine)


@cache
def cpu_features() -> frozenset[str]:
    """The CPU's extensions that NumPy knows, by its names, and Arm's "ASIMDDP" (dot products), "I8MM" and "SME"."""
    features: dict[str, bool] = {}
    for core in ("numpy._core", "numpy.core"):  # NumPy 2, NumPy 1
        with suppress(ImportError, AttributeError):
            features = features or import_module(f"{core}._multiarray_umath").__cpu_features__
    names = {name for name, present in features.items() if present}
    if architecture() == "arm64":
        names |= {name for name in _ARM if _arm_has(name)}
    return frozenset(names)


@cache
def processor_class() -> str:
    """The architecture of the CPU and its best extension, as "x86_64 AVX2": CPUs of one class run the same kernels.

    Kernels of other classes add in another order, so that scores differ in the last digits of fp32, and by about 0.1
    where an activation then rounds to the neighbouring int8 step.
    """
    extension = next((name for name in _EXTENSIONS if name in cpu_features()), "")
    return f"{architecture()} {extension}".strip()


def _arm_has(name: str) -> bool:
    """True if the system reports an instruction of `_ARM`. False where it cannot be asked."""
    auxiliary, bit, on_macos, on_windows = _ARM[name]
    with suppress(AttributeError, OSError):  # a C library without the call
        if sys.platform == "darwin":
            return bool(sysctl(f"hw.optional.arm.{on_macos}"))
        if sys.platform == "win32":
            return on_windows is not None and _windows_has(on_windows)
        return bool(_auxiliary(auxiliary) >> bit & 1)
    return False


def _auxiliary(number: int) -> int:
    """An entry of the vector that Linux gives a process: 16 and 26 are the CPU's features."""
    library: Any = ctypes.CDLL(None)
    library.getauxval.restype, library.getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return int(library.getauxval(number))


def sysctl(name: str) -> int:
    """The number that macOS has under `name`; 0 if it has none."""
    value, size = ctypes.c_int(0), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
    with suppress(AttributeError, OSError):  # another system
        library: Any = ctypes.CDLL(None)
        library.sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0))
    return value.value


def _windows_has(number: int) -> bool:
    kernel: Any = getattr(ctypes, "windll").kernel32  # noqa: B009  # other systems' ctypes has none
    return bool(kernel.IsProcessorFeaturePresent(number))
