"""`dearlite doctor`: a report on the installation, from versions and a probe run of a real model."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from dearlite.errors import DearliteError, MissingExtra
from dearlite.installing import pip_install
from dearlite.llama.bindings import gpu_build_command, installed_build
from dearlite.machine import default_threads, nvidia_gpu_present, versions_of
from dearlite.models.registry import DEFAULT_MODEL, home, load_registry, model_file
from dearlite.pointwise.kernels import kernels_in_words, product_rates
from dearlite.pointwise.onnxruntime import onnxruntime
from dearlite.processor import processor_class
from dearlite.render.facts import print_facts
from dearlite.version import __version__

# package -> the extra that installs it
_OPTIONAL = {
    "onnxruntime": "cpu",
    "onnxruntime-gpu": "cuda",
    "llama-cpp-python": "listwise",
    "llama-cpp-py-sync": "listwise-prebuilt",
    "pyarrow": "parquet",
    "pandas": "pandas",
    "uvicorn": "serve",
    "mcp": "mcp",
    "langchain-core": "langchain",
    "llama-index-core": "llama-index",
    "haystack-ai": "haystack",
    "lancedb": "lancedb",
    "rerankers": "rerankers",
    "onnx": "export",
    "torch": "train",
}

# system -> command that installs a C++ compiler
_COMPILERS = {
    "Linux": "none: apt install g++ (Debian, Ubuntu), dnf install gcc-c++ (Fedora), pacman -S gcc (Arch)",
    "Darwin": "none: xcode-select --install",
    "Windows": "none: winget install Microsoft.VisualStudio.2022.BuildTools --override "
    '"--wait --passive --add Microsoft.VisualStudio.Workload.VCTools --includeRecommended"',
}


@click.command()
def command() -> None:
    """Report the installation: versions, devices, a probe run, threads, model files, their folder and free disk space.

    The probe run scores two documents with the embedded model and reports the device that ran it. Exits with 1 if the
    pointwise engine fails, or if no engine is installed.
    """
    print_facts(
        {
            "dearlite": f"{__version__} in {Path(__file__).parents[1]}",
            "python": f"{platform.python_version()} in {sys.prefix}",
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        }
    )
    print_facts({name: _version(name, extra) for name, extra in _OPTIONAL.items()}, title="packages")
    failure = None
    try:
        print_facts(_engine(), title="pointwise engine (ONNX Runtime)")
    except DearliteError as err:
        failure = err
        print_facts({"failed": err}, title="pointwise engine (ONNX Runtime)")
    listwise = _listwise_engine()
    print_facts(listwise, title="listwise engine (llama.cpp)")
    print_facts(_files(), title="files")
    if failure is not None and not (isinstance(failure, MissingExtra) and "threads" in listwise):
        raise failure


def _version(name: str, extra: str) -> str:
    """The version of a package, or the command that installs it."""
    return versions_of(name).get(name, f"not installed: {pip_install(extra)}")


def _engine() -> dict[str, Any]:
    """Facts about ONNX Runtime, and the device, quantisation and time of a probe run with the embedded model.

    Raises DearliteError for a probe run with a wrong order.
    """
    from dearlite.reranker import Reranker

    ort = onnxruntime()
    facts: dict[str, Any] = {
        "providers offered": ", ".join(ort.get_available_providers()),
        "NVIDIA driver": "yes" if nvidia_gpu_present() else "no",
        "processor": processor_class(),
        "int8 kernels": kernels_in_words(),
        "small products": product_rates(),
        "threads": default_threads(),
    }
    reranker = Reranker.load()
    ranking = reranker.rerank("who invented the light bulb?", ["Coffee is good for diet", "Edison's light bulb, 1879"])
    if ranking[0].index != 1:
        raise DearliteError("the probe run ranked two documents wrongly: the installation is damaged, install it again")
    facts["probe run"] = (
        f"{DEFAULT_MODEL} on {ranking.device}, {reranker.quantisation}, in {ranking.elapsed_s * 1e3:.0f} ms"
    )
    return facts


def _listwise_engine() -> dict[str, Any]:
    """Facts about the installed build of llama.cpp, whose speed depends on its compile flags; else the remedy."""
    try:
        build = installed_build()
    except MissingExtra as err:
        return {"not installed": err, "compiler": _compiler()}
    except (DearliteError, OSError, RuntimeError) as err:
        return {"failed": err}
    facts: dict[str, Any] = {
        "package": build.package,
        "CPU features used": ", ".join(build.cpu_features) or "none of the relevant ones",
        "GPU": build.gpu or f"none: {gpu_build_command()}",
        "threads": default_threads(in_step=True),
    }
    return facts | ({"advice": build.advice} if build.advice else {})


def _compiler() -> str:
    """The C++ compiler that would build llama-cpp-python, or the command that installs one.

    macOS has a c++ that only asks for the command line tools where they are missing; on Windows CMake finds Visual
    Studio without a compiler on the PATH.
    """
    system = platform.system()
    if system == "Darwin" and not _succeeds(["xcode-select", "-p"]):
        return _COMPILERS[system]
    if system == "Windows" and (studio := _visual_studio()):
        return studio
    if compiler := next(filter(None, map(shutil.which, ("c++", "g++", "clang++", "cl"))), None):
        return compiler
    return _COMPILERS.get(system, _COMPILERS["Linux"])


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _visual_studio() -> str:
    """The folder of the newest Visual Studio with a C++ compiler, by its own finder; empty if there is none."""
    programs = os.environ.get("ProgramFiles(x86)", r"C:\Program Files (x86)")  # noqa: SIM112  # its name on Windows
    finder = Path(programs) / "Microsoft Visual Studio" / "Installer" / "vswhere.exe"
    component = "Microsoft.VisualStudio.Component.VC.Tools.x86.x64"
    command = [str(finder), "-latest", "-products", "*", "-requires", component, "-property", "installationPath"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def _files() -> dict[str, Any]:
    """The folder of models and caches, the free space on its disk, and the path of each model file that exists."""
    folder = home()
    existing = next(parent for parent in (folder, *folder.parents) if os.path.exists(parent))
    facts: dict[str, Any] = {
        "DEARLITE_HOME": f"{folder}{'' if os.path.exists(folder) else ' (does not exist yet)'}",
        "free disk": f"{shutil.disk_usage(existing).free / 1e9:.1f} GB",
    }
    for entry in load_registry().values():
        file = model_file(entry)
        if os.path.isfile(file):
            facts[entry.name] = f"{file} ({file.stat().st_size / 1e6:.1f} MB)"
    return facts
