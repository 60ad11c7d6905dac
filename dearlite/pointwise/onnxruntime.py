"""ONNX Runtime on this machine: its providers, and the products that it computes exactly. Imported when first used."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

from dearlite.errors import DeviceUnavailable, UsageError, need
from dearlite.machine import DEVICES

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def onnxruntime() -> Any:
    """The onnxruntime module. Raises MissingExtra where neither of its packages is installed."""
    ort: Any = need("onnxruntime", extra="cpu")
    if not hasattr(ort, "InferenceSession"):  # both packages were installed and one was removed
        raise DeviceUnavailable(
            "onnxruntime is broken here: pip uninstall onnxruntime onnxruntime-gpu, then install one"
        )
    return ort


def candidate_devices(device: str) -> list[str]:
    """The devices to try for a `device` option, best first. Raises UsageError or DeviceUnavailable."""
    if device not in DEVICES:
        raise UsageError(f"no device {device!r}: it is one of {', '.join(DEVICES)}")
    has_cuda = PROVIDERS["cuda"] in onnxruntime().get_available_providers()
    if device == "cuda" and not has_cuda:
        raise DeviceUnavailable(
            "this onnxruntime was built without CUDA: pip uninstall onnxruntime, then pip install 'dearlite[cuda]'"
        )
    return {"auto": ["cuda", "cpu"] if has_cuda else ["cpu"], "cuda": ["cuda"], "cpu": ["cpu"]}[device]


@cache
def multiplies_u8s8_exactly() -> bool:
    """Whether a u8 x s8 product is exact here.

    x86 CPUs with AVX2 but no VNNI add two products in 16 bits (vpmaddubsw) and saturate: 255*127*2 gives 32767. Such a
    machine needs a graph with u8 x u8 products. Asked of ONNX Runtime itself, by one tiny product, not of a CPU list.
    """
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    probe = resources.files("dearlite").joinpath("data/u8s8_probe.onnx").read_bytes()
    session = ort.InferenceSession(probe, options, providers=[PROVIDERS["cpu"]])
    import numpy as np

    found = session.run(None, {"a": np.full((1, 64), 255, np.uint8)})[0]
    return bool((found == 255 * 127 * 64).all())


# What a bundle's build may ask of the machine.
CAPABILITIES: dict[str, Callable[[], bool]] = {"u8s8-exact": multiplies_u8s8_exactly}
