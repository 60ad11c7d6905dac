"""Shared measurements: memory of this process, time of a command, description of this machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

_CPU_FLAGS = (
    "avx2",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "asimddp",
)  # instructions that determine the speed of int8 products

PACKAGES = (
    "dearlite", "onnxruntime", "tokenizers", "numpy", "sentence-transformers", "optimum-onnx", "transformers", "torch",
    "flashrank", "rerankers", "peft", "llama-cpp-python",
)  # fmt: skip


class CommandFailed(Exception):
    """A command ended with an error; the message is the last line of its output."""


def rss_mb() -> float:
    """Current resident memory of this process with mapped files; outside Linux, its peak so far."""
    return _status_mb("VmRSS")


def peak_rss_mb() -> float:
    """Peak resident memory of this process.

    On Linux this is VmHWM. getrusage's ru_maxrss would be wrong: in a child process it starts at the parent's value.
    """
    return _status_mb("VmHWM")


def _status_mb(name: str) -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith(f"{name}:"))


def time_command(
    command: Sequence[str], *, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> tuple[float, str]:
    """Seconds from start to exit of a whole process, and its stdout. Raises CommandFailed unless it exits with 0.

    `environment` has variables beside those of this process.
    """
    start = time.perf_counter()
    variables = os.environ | environment if environment else None
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)
    elapsed_s = time.perf_counter() - start
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise CommandFailed(f"exit {done.returncode}: {last}")
    return elapsed_s, done.stdout


def describe_machine() -> dict[str, Any]:
    """Date, processor, system, load average, and the versions of the installed packages of PACKAGES."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    model, flags = _cpu()
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": model,
        "cpus": len(allowed),
        "flags": flags,
        "load_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": versions,
    }


def _cpu() -> tuple[str, list[str]]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown", []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    words = (facts.get("flags") or facts.get("Features") or "").split()
    family = f" (family {facts['cpu family']}, model {facts['model']})" if "cpu family" in facts else ""
    return facts.get("model name", "unknown") + family, [flag for flag in _CPU_FLAGS if flag in words]
