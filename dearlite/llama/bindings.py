"""The llama.cpp library, loaded once: its log captured, its threads set not to spin.

ENGINES has one entry per Python package that brings the library; this module is their only importer.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from dearlite.errors import MissingExtra, UsageError, need
from dearlite.foreign import Foreign
from dearlite.installing import pip_install
from dearlite.llama.cffi_library import prebuilt_library

# OpenMP threads that spin while they wait take cores from threads that work: on a busy machine 247 tokens/s with
# spinning, 362 without. libgomp (GCC) and libomp (Clang) read these variables when they are loaded. Values that the
# user has set are kept.
_NO_SPINNING = {"GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
_LOG_LINES = 400
_log: deque[str] = deque(maxlen=_LOG_LINES)
_log_lock = threading.Lock()
_MICROARCHITECTURE = ("AVX512_VNNI", "AVX_VNNI", "AVX512", "AVX2", "NEON", "DOTPROD", "MATMUL_INT8", "SVE", "AMX_INT8")


# module -> distribution, the preferred one first: the one compiled on this machine uses all of its vector units
ENGINES = {"llama_cpp": "llama-cpp-python", "llama_cpp_py_sync": "llama-cpp-py-sync"}


@cache
def library() -> Any:
    """The C API of llama.cpp with the names of llama-cpp-python, its backends initialised; its calls raise EngineError.

    Raises MissingExtra if no package of ENGINES is installed, LibraryNotLoaded if it does not load on this machine.
    """
    engine = installed_engine()
    if "OMP_WAIT_POLICY" not in os.environ:
        for name, value in _NO_SPINNING.items():
            os.environ.setdefault(name, value)
    if engine == "llama_cpp":
        module: Any = need("llama_cpp.llama_cpp", extra="listwise", again=build_command())
    else:
        module = prebuilt_library(again=build_command())
    llama = Foreign("llama.cpp", module)
    callback = llama.llama_log_callback(_append_to_log)
    llama.llama_log_set(callback, None)
    library.log_callback = callback  # type: ignore[attr-defined]  # the library holds a bare pointer to it
    llama.llama_backend_init()
    return llama


def installed_engine() -> str:
    """The first module of ENGINES that is installed, or the one whose package DEARLITE_LLAMA names.

    Raises MissingExtra with the two ways to install one, UsageError for a name that is none of the packages.
    """
    chosen = os.environ.get("DEARLITE_LLAMA", "")
    if chosen and chosen not in ENGINES.values():
        raise UsageError(f"DEARLITE_LLAMA is {chosen!r}: it is one of {', '.join(ENGINES.values())}")
    for module, package in ENGINES.items():
        if chosen in ("", package) and find_spec(module) is not None:
            return module
    raise MissingExtra(
        f"llama.cpp is needed here and is not installed: {pip_install('listwise')} compiles it, and "
        f"{pip_install('listwise-prebuilt')} needs no compiler (Windows, macOS, and Linux with glibc 2.38 or later)"
    )


def build_command(cmake_args: str = "") -> str:
    """The command that compiles llama-cpp-python on this machine, for its shell: PowerShell on Windows, else sh."""
    pip = pip_install("listwise", options="--force-reinstall --no-cache-dir --no-binary llama-cpp-python")
    if not cmake_args:
        return pip
    return f'$env:CMAKE_ARGS="{cmake_args}"; {pip}' if sys.platform == "win32" else f"CMAKE_ARGS={cmake_args} {pip}"


def gpu_build_command() -> str:
    """The command that compiles llama-cpp-python for a GPU: Metal on macOS, CUDA elsewhere, with the flag of Vulkan."""
    if sys.platform == "darwin":
        return build_command("-DGGML_METAL=on")
    return f"{build_command('-DGGML_CUDA=on')} (Vulkan: -DGGML_VULKAN=on)"


def _append_to_log(level: int, text: bytes | None, _: Any) -> None:
    if text:
        _log.append(text.decode("utf-8", "replace"))


@contextmanager
def captured_log() -> Iterator[list[str]]:
    """Yields a list that holds the library's log lines of the block after the block ends. One block at a time."""
    lines: list[str] = []
    with _log_lock:
        _log.clear()
        try:
            yield lines
        finally:
            lines += "".join(_log).splitlines()


def first_error(lines: list[str], default: str) -> str:
    """The first error among the library's log `lines`, without the function's name; `default` if there is none."""
    for line in lines:
        if "error" in line.lower() or "failed" in line.lower():
            return re.sub(r"^\s*\w+:\s*", "", line).strip()
    return default


@dataclass(frozen=True, slots=True)
class LlamaBuild:
    """The installed build of llama.cpp: its package, CPU instruction sets, GPU backend."""

    package: str  # "llama-cpp-python 0.3.36"
    cpu_features: tuple[str, ...]
    gpu: str  # "CUDA", "Metal", "Vulkan" …; empty without a GPU backend

    @property
    def advice(self) -> str:
        """Advice to reinstall if the build does not use this CPU's vector units; otherwise empty."""
        if not any(name in self.cpu_features for name in ("AVX2", "NEON")):
            return f"it was built without this CPU's vector units, which costs most of the speed: {build_command()}"
        return ""


def installed_build() -> LlamaBuild:
    """The installed build. Raises MissingExtra if there is none."""
    llama = library()
    distribution = ENGINES[installed_engine()]
    info = llama.llama_print_system_info().decode("utf-8", "replace")
    enabled = set(re.findall(r"(\w+) = 1\b", info))
    backends = re.findall(r"(?:^|\| )\s*([A-Za-z]\w*) :", info)
    gpu = next((name for name in backends if name.upper() != "CPU"), "a GPU")
    return LlamaBuild(
        f"{distribution} {version(distribution)}",
        tuple(name for name in _MICROARCHITECTURE if name in enabled),
        gpu if llama.llama_supports_gpu_offload() else "",
    )


def c_array(kind: Any, values: Any) -> Any:
    """`values` as a C array of `kind`."""
    return (kind * len(values))(*values)


class LlamaObjects:
    """Pointers to the library's model, adapter and context, freed with this object, by the process that made them."""

    def __init__(self, llama: Any) -> None:
        self.model = self.adapter = self.context = None
        self._llama = llama
        self._all: dict[str, Any] = {}
        weakref.finalize(self, _free, llama, os.getpid(), self._all)

    def replace(self, name: str, pointer: Any) -> None:
        """Frees the object called `name` and stores `pointer` in its place."""
        _free(self._llama, os.getpid(), {name: self._all.get(name)})
        self._all[name] = pointer
        setattr(self, name, pointer)


def _free(llama: Any, pid: int, objects: dict[str, Any]) -> None:
    if os.getpid() != pid:  # in a forked child: the objects belong to its parent
        return
    if objects.get("context"):
        llama.llama_free(objects["context"])
    if objects.get("model"):
        llama.llama_model_free(objects["model"])  # frees its adapters too


def used_device(lines: Sequence[str]) -> str:
    """The GPU that the library's log names, and the layers on it. Example: "CUDA0, 33 of 33 layers"."""
    text = "\n".join(lines)
    used = re.search(r"using device (\w+)", text)
    layers = re.search(r"offloaded (\d+)/(\d+) layers", text)
    name = used[1] if used else "gpu"
    return f"{name}, {layers[1]} of {layers[2]} layers" if layers else name
