"""The physical cores that this process may use, and their kinds, as Linux, Windows and macOS report them."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from dearlite.errors import need
from dearlite.processor import sysctl

_CPUS = Path("/sys/devices/system/cpu")
_ATOMS = (Path("/sys/devices/cpu_atom/cpus"), Path("/sys/devices/cpu_lowpower/cpus"))  # Intel's E and LP-E cores
_E_CORE = 0.5  # the speed of a core that is known to be one of the slower kind, beside the fastest
_FAST = 0.6  # the least speed of a fast core beside the fastest


def physical_cores() -> list[float]:
    """The speed of each physical core within the affinity mask, beside the fastest: all 1 if they are alike.

    Speeds are the system's own on Arm under Linux, else 1 for a core of the fastest kind and 0.5 for the others.
    """
    if hasattr(os, "sched_getaffinity"):
        return _linux(os.sched_getaffinity(0))
    psutil: Any = need("psutil", extra=None)
    if sys.platform == "win32":
        with suppress(AttributeError, OSError, struct.error):
            if cores := _windows(psutil):
                return cores
    count: int = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):  # macOS has none
        count = min(count, len(process.cpu_affinity()))
    fast = sysctl("hw.perflevel0.physicalcpu") if sys.platform == "darwin" else 0
    return [1.0 if not fast or number < fast else _E_CORE for number in range(count)]


def fast_cores(cores: list[float]) -> int:
    """The number of cores that are about as fast as the fastest."""
    return sum(speed >= _FAST * max(cores) for speed in cores)


def _linux(cpus: set[int]) -> list[float]:
    slow = {cpu for file in _ATOMS for cpu in _listed(file)}
    speeds = {_siblings(cpu): _capacity(cpu) or (_E_CORE if cpu in slow else 1.0) for cpu in sorted(cpus)}
    return [speed / max(speeds.values()) for speed in speeds.values()]


def _siblings(cpu: int) -> str:
    """A text that is the same for all hyperthreads of one core."""
    try:
        return (_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _capacity(cpu: int) -> float | None:
    """The speed of a CPU in the kernel's own measure, 1024 for the fastest; None if it has none."""
    try:
        return float((_CPUS / f"cpu{cpu}" / "cpu_capacity").read_text()) or None
    except (OSError, ValueError):
        return None


def _listed(file: Path) -> Iterator[int]:
    """The numbers in a list of CPUs, "0-3,8"; none without the file."""
    with suppress(OSError, ValueError):
        for part in filter(None, file.read_text().strip().split(",")):
            first, _, last = part.partition("-")
            yield from range(int(first), int(last or first) + 1)


def _windows(psutil: Any) -> list[float]:
    """The cores from GetLogicalProcessorInformationEx; empty if it fails."""
    kernel: Any = getattr(ctypes, "windll").kernel32  # noqa: B009  # other systems' ctypes has none
    size = ctypes.c_ulong(0)
    kernel.GetLogicalProcessorInformationEx(0, None, ctypes.byref(size))  # 0: cores. The size is set
    buffer = ctypes.create_string_buffer(size.value)
    if not kernel.GetLogicalProcessorInformationEx(0, buffer, ctypes.byref(size)):
        return []
    cores = list(_parsed(buffer.raw[: size.value]))
    allowed = sum(1 << cpu for cpu in psutil.Process().cpu_affinity())
    if all(mask < 1 << 64 for _, mask in cores):  # one group of processors, to which the affinity belongs
        cores = [(kind, mask) for kind, mask in cores if mask & allowed]
    fastest = max((kind for kind, _ in cores), default=0)
    return [1.0 if kind == fastest else _E_CORE for kind, _ in cores]


def _parsed(data: bytes) -> Iterator[tuple[int, int]]:
    """(efficiency class, higher for faster cores; mask of its logical processors) of each core in Windows' records.

    SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX of winnt.h: relationship and size, PROCESSOR_RELATIONSHIP with the class at
    byte 9 and the number of groups at byte 30, then the first GROUP_AFFINITY. Groups have 64 processors.
    """
    at = 0
    while at + 8 <= len(data):
        relationship, size = struct.unpack_from("<LL", data, at)
        if relationship == 0:
            mask, group = struct.unpack_from("<QH", data, at + 32)
            yield data[at + 9], mask << 64 * group
        at += max(size, 8)
