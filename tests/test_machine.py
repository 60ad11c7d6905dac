"""Cores, quota, GPU driver and peak memory on Linux, and on Windows and macOS through stand-ins for what they lack."""

import os
import struct
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest

from dearlite import cores, machine
from dearlite.errors import MissingExtra


@pytest.fixture(autouse=True)
def _uncached():
    machine.default_threads.cache_clear()
    yield
    machine.default_threads.cache_clear()


class Psutil(SimpleNamespace):
    """psutil of a system with `cores` physical cores, `affinity` allowed processors (None: macOS), a peak in bytes."""

    def __init__(self, cores, affinity=None, peak=123_000_000):
        process = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=peak))
        if affinity is not None:
            process.cpu_affinity = lambda: affinity
        super().__init__(cpu_count=lambda logical: cores if not logical else 2 * cores, Process=lambda: process)


@pytest.fixture
def elsewhere(monkeypatch):
    """Takes away what only Linux has: the affinity call, and the folder of cgroups."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(machine, "_cgroup_quota", lambda: None)

    def install(psutil):
        monkeypatch.setitem(sys.modules, "psutil", psutil)

    return install


def test_windows_counts_physical_cores_and_not_hyperthreads(elsewhere):
    elsewhere(Psutil(cores=8, affinity=list(range(16))))
    assert machine.default_threads() == 8


def test_windows_counts_at_most_the_processors_of_the_affinity_mask(elsewhere):
    elsewhere(Psutil(cores=8, affinity=[0, 1]))
    assert machine.default_threads() == 2


def test_macos_has_no_affinity(elsewhere):
    elsewhere(Psutil(cores=6))
    assert machine.default_threads() == 6


def test_a_system_that_reports_no_physical_cores_counts_logical_ones(elsewhere, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    elsewhere(Psutil(cores=None))
    assert machine.default_threads() == 3


def test_a_missing_psutil_is_named(elsewhere):
    elsewhere(None)
    with pytest.raises(MissingExtra, match="psutil is needed here"):
        machine.default_threads()


def test_macos_counts_both_kinds_and_those_of_the_fast_one_where_threads_wait(elsewhere, monkeypatch):
    elsewhere(Psutil(cores=10))
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(cores, "sysctl", {"hw.perflevel0.physicalcpu": 4}.get)
    assert machine.default_threads() == 10
    assert machine.default_threads(in_step=True) == 4


def test_an_intel_mac_has_one_kind_of_cores(elsewhere, monkeypatch):
    elsewhere(Psutil(cores=6))
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(cores, "sysctl", lambda name: 0)
    assert machine.default_threads(in_step=True) == 6


def record(kind, mask, group=0, relationship=0):
    """A record of GetLogicalProcessorInformationEx: a core of an efficiency class and its logical processors."""
    flags = bin(mask).count("1") > 1
    return struct.pack("<LLBB20xHQH6x", relationship, 48, flags, kind, 1, mask, group)


class Kernel32:
    """GetLogicalProcessorInformationEx of a machine with these records."""

    def __init__(self, *records):
        self.data = b"".join(records)

    def GetLogicalProcessorInformationEx(self, relationship, buffer, size):  # noqa: N802
        assert relationship == 0
        size._obj.value = len(self.data)
        if buffer is not None:
            buffer.raw = self.data
        return int(buffer is not None)


P_AND_E = [*(record(1, 3 << 2 * n) for n in range(2)), *(record(0, 1 << n) for n in range(4, 12))]  # 2 P, 8 E


@pytest.mark.parametrize(
    ("records", "affinity", "all_cores", "fast"),
    [
        (P_AND_E, range(12), 10, 2),
        (P_AND_E, [0, 1, 4], 2, 1),  # one P core with both its threads, and an E core
        (P_AND_E, [6, 7], 2, 2),
        ([record(0, 3), record(0, 12)], range(4), 2, 2),
        ([record(0, 3), record(7, 1, relationship=3), record(0, 12)], range(4), 2, 2),
        ([record(0, 3), record(0, 12, group=1)], range(2), 2, 2),  # more than 64 processors
        ([], range(6), 3, 3),  # the call failed: psutil
    ],
)
def test_windows_counts_cores_by_their_class(elsewhere, monkeypatch, records, affinity, all_cores, fast):
    elsewhere(Psutil(cores=3, affinity=list(affinity)))
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(cores.ctypes, "windll", SimpleNamespace(kernel32=Kernel32(*records)), raising=False)
    assert (machine.default_threads(), machine.default_threads(in_step=True)) == (all_cores, fast)


@pytest.fixture
def linux(monkeypatch, tmp_path):
    """Linux with these files under /sys/devices, and these CPUs in the affinity mask."""

    def install(files, cpus):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        monkeypatch.setattr(cores, "_CPUS", tmp_path / "system" / "cpu")
        monkeypatch.setattr(cores, "_ATOMS", [tmp_path / path.relative_to("/sys/devices") for path in cores._ATOMS])
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(cpus), raising=False)
        monkeypatch.setattr(machine, "_cgroup_quota", lambda: None)

    return install


def cpu_files(name, values):
    return {f"system/cpu/cpu{cpu}/{name}": f"{value}\n" for cpu, value in enumerate(values)}


HYPERTHREADS = cpu_files("topology/thread_siblings_list", ["0-1", "0-1", "2-3", "2-3", *range(4, 12)])
INTEL = HYPERTHREADS | {"cpu_core/cpus": "0-3\n", "cpu_atom/cpus": "4-11\n"}
RK3588 = cpu_files("cpu_capacity", [530] * 4 + [1024] * 4)


@pytest.mark.parametrize(
    ("files", "cpus", "all_cores", "fast"),
    [
        (INTEL, range(12), 10, 2),
        (INTEL | {"cpu_lowpower/cpus": "10,11\n", "cpu_atom/cpus": "4-9\n"}, range(12), 10, 2),
        (INTEL, range(4, 12), 8, 8),  # bound to the E cores: they are alike
        (INTEL, [0, 1], 1, 1),
        (HYPERTHREADS, range(12), 10, 10),
        (RK3588, range(8), 8, 4),
        (cpu_files("cpu_capacity", [280] * 4 + [870] * 3 + [1024]), range(8), 8, 4),  # Snapdragon 888
        (cpu_files("cpu_capacity", [0, "damaged"]), range(2), 2, 2),
        ({"cpu_atom/cpus": "damaged"}, range(3), 3, 3),
        ({}, range(3), 3, 3),
    ],
)
def test_linux_counts_cores_by_their_kind(linux, files, cpus, all_cores, fast):
    linux(files, cpus)
    assert (machine.default_threads(), machine.default_threads(in_step=True)) == (all_cores, fast)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /sys")
def test_linux_counts_the_cores_of_the_affinity_mask():
    assert 1 <= machine.default_threads() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "150000 100000\n"}, 1),
        ({"cpu.max": "400000 100000\n"}, 4),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "300000\n"}, None),
        ({"cpu.max": "damaged"}, None),
        ({}, None),
    ],
)
def test_quota_of_a_container_of_both_versions_of_cgroups(tmp_path, files, cpus):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine._cgroup_quota(tmp_path) == cpus


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"memory.max": "1000\n", "memory.current": "700\n", "memory.stat": "anon 400\ninactive_file 250\n"}, 550),
        ({"memory.max": "1000\n", "memory.current": "1200\n"}, 0),
        ({"memory.max": "max\n", "memory.current": "700\n"}, None),
        (
            {
                "memory/memory.limit_in_bytes": "1000\n",
                "memory/memory.usage_in_bytes": "700\n",
                "memory/memory.stat": "total_inactive_file 100\n",
            },
            400,
        ),
        ({}, None),
    ],
)
def test_memory_that_is_left_of_the_limit_of_a_container(tmp_path, monkeypatch, files, left):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine._cgroup_memory(tmp_path) == left


def test_free_memory_is_at_most_the_limit_of_a_container(monkeypatch):
    for left in (0, 5_000_000):
        monkeypatch.setattr(machine, "_cgroup_memory", lambda left=left: left)
        assert machine.available_memory_mb() == left / 1e6
    monkeypatch.setattr(machine, "_cgroup_memory", lambda: None)
    assert machine.available_memory_mb() > 5


def test_windows_finds_the_nvidia_driver_in_system32(tmp_path, monkeypatch):
    monkeypatch.setenv("SYSTEMROOT", str(tmp_path))
    before = machine.nvidia_gpu_present()
    (tmp_path / "System32").mkdir()
    (tmp_path / "System32" / "nvcuda.dll").touch()
    assert machine.nvidia_gpu_present()
    assert not before or any(os.path.exists(path) for path in ("/dev/nvidiactl", "/usr/lib/wsl/lib/libcuda.so.1"))


def test_peak_memory_on_windows_is_that_of_psutil(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setitem(sys.modules, "psutil", Psutil(cores=1, peak=123_000_000))
    monkeypatch.setattr(machine, "import_module", _without_resource)
    assert machine.peak_memory_mb() == 123
    assert machine.peak_memory_mb(children=True) is None  # Windows keeps no such figure


def _without_resource(name):
    if name == "resource":
        raise ModuleNotFoundError(name="resource")
    return import_module(name)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_on_linux_is_that_of_proc():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    kib = int(status["VmHWM"].split()[0])
    assert machine.peak_memory_mb() == pytest.approx(kib * 1024 / 1e6, abs=2)
    assert machine.memory_now().peak_rss_mb == pytest.approx(kib / 1024, abs=2)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_not_that_of_a_large_parent():
    code = (
        "import subprocess, sys; held = b'x' * (300 << 20)\n"
        "subprocess.run([sys.executable, '-c', 'from dearlite.machine import *; print(peak_memory_mb())'], check=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 5 < float(done.stdout) < 200
