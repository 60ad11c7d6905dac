"""ONNX Runtime on this machine: its providers, and a test of its integer arithmetic. Imported when first used."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

from dearlite.errors import DeviceUnavailable, UsageError, need
from dearlite.foreign import engine_errors
from dearlite.installing import pip, pip_install
from dearlite.machine import DEVICES

LIBRARY = "ONNX Runtime"
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def onnxruntime() -> Any:
    """The onnxruntime module. Raises MissingExtra if neither of its packages is installed."""
    send_no_events()
    need("numpy", extra=None)  # where it does not run, ONNX Runtime's own import of it prints a traceback
    ort: Any = need("onnxruntime", extra="cpu")
    if not hasattr(ort, "InferenceSession"):  # both packages were installed, then one was removed
        raise DeviceUnavailable(
            f"the onnxruntime package is incomplete: {pip('uninstall onnxruntime onnxruntime-gpu')}, then install "
            "one of them"
        )
    return ort


def send_no_events() -> None:
    """Makes an ONNX Runtime that is imported later send no usage events, unless the user's environment decides it.

    Its official builds (1.31) record events of each session in ~/.cache/Microsoft and send them to the maker; a program
    that has imported it before decides for itself.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def candidate_devices(device: str) -> list[str]:
    """The devices to try for a `device` option, best first. Raises UsageError or DeviceUnavailable."""
    if device not in DEVICES:
        raise UsageError(f"no device {device!r}: it is one of {', '.join(DEVICES)}")
    has_cuda = PROVIDERS["cuda"] in onnxruntime().get_available_providers()
    if device == "cuda" and not has_cuda:
        raise DeviceUnavailable(
            f"this onnxruntime was built without CUDA: {pip('uninstall onnxruntime')}, then {pip_install('cuda')}"
        )
    return {"auto": ["cuda", "cpu"] if has_cuda else ["cpu"], "cuda": ["cuda"], "cpu": ["cpu"]}[device]


@cache
def multiplies_u8s8_exactly() -> bool:
    """True if ONNX Runtime computes u8 x s8 products of any weights exactly on this CPU.

    x86 CPUs with AVX2 but no VNNI add two products in 16 bits (vpmaddubsw) and saturate: 255*127*2 gives 32767. They
    run files that state `pair_limited` (models/pair_limit.py); older files have a graph with u8 x u8 products for them.
    The test is one small product in ONNX Runtime, not a list of CPUs.
    """
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    probe = resources.files("dearlite").joinpath("data/u8s8_probe.onnx").read_bytes()
    import numpy as np

    with engine_errors(LIBRARY):
        session = ort.InferenceSession(probe, options, providers=[PROVIDERS["cpu"]])
        product = session.run(None, {"a": np.full((1, 64), 255, np.uint8)})[0]
    return bool((product == 255 * 127 * 64).all())


# Requirements that a bundle's build can have, and the test of each on this machine.
EXACT_PRODUCTS = "u8s8-exact"
CAPABILITIES: dict[str, Callable[[], bool]] = {EXACT_PRODUCTS: multiplies_u8s8_exactly}
