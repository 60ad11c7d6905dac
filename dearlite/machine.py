"""Facts about this machine: CPU cores and quota, GPU driver, memory of this process, versions of packages."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dearlite.checks import whole_number

DEVICES = ("auto", "cpu", "cuda")


def check_threads(threads: int | None) -> int:
    """The number of threads for a `threads` option, None for one per physical core. Raises UsageError."""
    if threads is None:
        return default_threads()
    return whole_number("threads", threads)


@cache
def default_threads() -> int:
    """Number of physical cores that this process may use, within its affinity mask and its cgroup's quota.

    Two hyperthreads of a core share its multipliers, so that int8 products gain nothing from the second.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_siblings(cpu) for cpu in allowed}
    return max(1, min(len(cores), _cgroup_quota() or len(cores)))


def _siblings(cpu: int) -> str:
    """A text that is the same for all hyperthreads of one core."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _cgroup_quota() -> int | None:
    """Number of full CPUs in the quota of a container (cgroup v2 cpu.max: "MICROSECONDS PERIOD" or "max PERIOD")."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return None


def nvidia_gpu_present() -> bool:
    """True if the kernel driver of an NVIDIA GPU is loaded (Linux). CUDA libraries may still be missing."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a process in MB of 2^20 bytes, None if not reported by the system. `file_mb`: mapped files and code."""

    peak_rss_mb: float | None
    anonymous_mb: float | None = None
    file_mb: float | None = None


def memory_now() -> Memory:
    """Memory of this process: from /proc on Linux, only the peak elsewhere, nothing on Windows."""
    try:
        lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    except OSError:
        try:
            import resource
        except ImportError:
            return Memory(None)
        return Memory(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)  # bytes on macOS
    megabytes = {line[0]: int(line[1]) / 1024 for line in lines if line[0] in ("VmHWM:", "RssAnon:", "RssFile:")}
    return Memory(megabytes["VmHWM:"], megabytes.get("RssAnon:"), megabytes.get("RssFile:"))


def versions_of(*names: str) -> dict[str, str]:
    """Package -> version, for the packages of `names` that are installed."""
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def peak_memory_mb(*, children: bool = False) -> float | None:
    """Peak resident memory in MB of 10^6 bytes of this process, or of its largest finished child; None on Windows."""
    try:
        resource: Any = import_module("resource")
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF).ru_maxrss
    megabytes: float = round(peak / (1e6 if sys.platform == "darwin" else 1e3))  # ru_maxrss: B on macOS, kB on Linux
    return megabytes
