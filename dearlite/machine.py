"""What this machine has, and what it can do. ONNX Runtime is imported only inside the functions that ask it."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from dearlite.errors import DeviceUnavailable, UsageError, need

DEVICES = ("auto", "cpu", "cuda")
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


def check_threads(threads: int | None) -> int:
    """The number of workers for a `threads` option; None means one for each core."""
    if threads is None:
        return default_threads()
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise UsageError(f"threads is {threads!r}: it must be a whole number from 1")
    return threads


@cache
def default_threads() -> int:
    """Physical cores that this process may use: within its affinity mask and its cgroup's quota.

    Two hyperthreads of one core share its multipliers, and the int8 products gain nothing from the second.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_siblings(cpu) for cpu in allowed}
    return max(1, min(len(cores), _cgroup_quota() or len(cores)))


def _siblings(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _cgroup_quota() -> int | None:
    """Whole CPUs that a container's quota allows (cgroup v2 cpu.max, "MICROSECONDS PERIOD" or "max PERIOD")."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return None


def nvidia_gpu_present() -> bool:
    """Whether the kernel driver of an NVIDIA card is loaded (Linux); says nothing about CUDA libraries."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()


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
