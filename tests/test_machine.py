"""Cores, quota, GPU driver and peak memory on Linux, and on Windows and macOS through stand-ins for what they lack."""

import os
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest

from dearlite import machine
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
