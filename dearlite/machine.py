"""Facts about this machine: CPU cores and quota, GPU driver, memory of this process, versions of packages."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dearlite.checks import whole_number
from dearlite.cores import fast_cores, physical_cores
from dearlite.errors import need

DEVICES = ("auto", "cpu", "cuda")


def check_threads(threads: int | None, *, in_step: bool = False) -> int:
    """The number of threads for a `threads` option, None for `default_threads`. Raises UsageError."""
    if threads is None:
        return default_threads(in_step=in_step)
    return whole_number("threads", threads)


@cache
def default_threads(*, in_step: bool = False) -> int:
    """Number of physical cores that this process may use, within its affinity mask and its container's CPU quota.

    Two hyperthreads of a core share its multipliers, so that int8 products gain nothing from the second. All kinds of
    cores count (P and E cores), since a document is scored by one of them alone. With `in_step` threads wait for each
    other at every operator, as llama.cpp's do: only cores count that are about as fast as the fastest.
    """
    cores = physical_cores()
    return max(1, min(fast_cores(cores) if in_step else len(cores), _cgroup_quota() or sys.maxsize))


def _cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Number of full CPUs in the quota of a container, at least 1; None without a quota.

    cgroup v2 has cpu.max, "MICROSECONDS PERIOD" or "max PERIOD"; v1 has one file for each, -1 for no quota.
    """
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return None
    try:
        return max(1, int(quota) // int(period)) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max"
        return None


@cache
def gpu_name() -> str:
    """The name of the first NVIDIA GPU, as its driver gives it; "GPU" if there is no nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "GPU"
    return done.stdout.partition("\n")[0].strip() or "GPU"


def nvidia_gpu_present() -> bool:
    """True if the driver of an NVIDIA GPU is installed, on Linux, WSL2 or Windows. CUDA libraries may still be missing.

    Under WSL2 the driver is that of Windows: its libcuda lies in a folder that WSL mounts.
    """
    windows = Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32" / "nvcuda.dll"
    signs = (
        Path("/proc/driver/nvidia/version"),
        Path("/dev/nvidiactl"),
        Path("/usr/lib/wsl/lib/libcuda.so.1"),
        windows,
    )
    return any(path.exists() for path in signs)


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a process in MB of 2^20 bytes, None if not reported by the system. `file_mb`: mapped files and code."""

    peak_rss_mb: float | None
    anonymous_mb: float | None = None
    file_mb: float | None = None


def memory_now() -> Memory:
    """Memory of this process: from /proc on Linux, only the peak elsewhere."""
    if not (kib := _memory_of_status()):
        peak = _peak_bytes()
        return Memory(None if peak is None else peak / 2**20)
    anonymous, file = (kib.get(name) for name in ("RssAnon:", "RssFile:"))
    return Memory(
        kib["VmHWM:"] / 1024, None if anonymous is None else anonymous / 1024, None if file is None else file / 1024
    )


def _memory_of_status() -> dict[str, int]:
    """Figures of this process in /proc by name, in KiB; none elsewhere than on Linux."""
    try:
        lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if line[0] in ("VmHWM:", "RssAnon:", "RssFile:")}


def available_memory_mb() -> float:
    """Memory in MB of 10^6 bytes that a new process can take without swapping, within a container's limit.

    From /proc and the cgroup on Linux, from psutil elsewhere.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        free = int(need("psutil", extra=None).virtual_memory().available)
    left = _cgroup_memory()
    return (free if left is None else min(free, left)) / 1e6


# Files of a container's limit, use and statistics of memory, and the statistic of cached files, for cgroup v2 and v1.
_CGROUP_MEMORY = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        *(f"memory/memory.{name}" for name in ("limit_in_bytes", "usage_in_bytes", "stat")),
        "total_inactive_file",
    ),
)


def _cgroup_memory(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that are left of a container's limit, cached files not counted as used; None without a limit."""
    for limit, used, statistics, cached in _CGROUP_MEMORY:
        try:
            left = int((root / limit).read_text()) - int((root / used).read_text())
        except (OSError, ValueError):  # "max"
            continue
        with suppress(OSError, ValueError, KeyError):
            lines = dict(line.split() for line in (root / statistics).read_text().splitlines())
            left += int(lines[cached])
        return max(0, left)
    return None


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
    """Peak resident memory in MB of 10^6 bytes of this process, or of its largest finished child.

    None for children on Windows, which keeps no such figure.
    """
    peak = _peak_bytes(children=children)
    return None if peak is None else float(round(peak / 1e6))


def _peak_bytes(*, children: bool = False) -> int | None:
    """Peak resident memory in bytes of this process, or of its largest finished child; None if it is not recorded."""
    try:
        resource: Any = import_module("resource")
    except ModuleNotFoundError:  # Windows
        return None if children else int(need("psutil", extra=None).Process().memory_info().peak_wset)
    if not children and (kib := _memory_of_status()):  # ru_maxrss begins at the peak of the parent
        return kib["VmHWM:"] * 1024
    peak: int = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)  # ru_maxrss: bytes on macOS, KiB on Linux
