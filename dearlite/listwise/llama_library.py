"""llama.cpp's library, loaded once, quietly, and as a busy machine needs it. Nothing else imports llama_cpp."""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from dearlite.errors import need

# Threads of OpenMP that wait by spinning take the cores from those that work: on a busy machine 362 tokens/s without it
# against 247. Read by libgomp (GCC) and libomp (Clang) when they are loaded; what the user has set stays.
_WAITING = {"GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
_LOG_LINES = 400
_log: deque[str] = deque(maxlen=_LOG_LINES)
_log_lock = threading.Lock()
_MICROARCHITECTURE = ("AVX512_VNNI", "AVX_VNNI", "AVX512", "AVX2", "NEON", "DOTPROD", "MATMUL_INT8", "SVE", "AMX_INT8")


_BUILD = "pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python 'dearlite[listwise]'"
GPU_BUILD = f"CMAKE_ARGS=-DGGML_CUDA=on (Metal: -DGGML_METAL=on, Vulkan: -DGGML_VULKAN=on) {_BUILD}"


@cache
def library() -> Any:
    """The llama_cpp module, its backends started. Raises MissingExtra where llama-cpp-python is not installed."""
    if "OMP_WAIT_POLICY" not in os.environ:
        for name, value in _WAITING.items():
            os.environ.setdefault(name, value)
    llama: Any = need("llama_cpp.llama_cpp", extra="listwise")
    callback = llama.llama_log_callback(_keep)
    llama.llama_log_set(callback, None)
    library.log_callback = callback  # type: ignore[attr-defined]  # the library holds a bare pointer to it
    llama.llama_backend_init()
    return llama


def _keep(level: int, text: bytes | None, _: Any) -> None:
    if text:
        _log.append(text.decode("utf-8", "replace"))


@contextmanager
def captured_log() -> Iterator[list[str]]:
    """What the library says during the block, as lines, filled in when the block ends. One block at a time."""
    lines: list[str] = []
    with _log_lock:
        _log.clear()
        try:
            yield lines
        finally:
            lines += "".join(_log).splitlines()


def first_error(lines: list[str], otherwise: str) -> str:
    """The library's first error among `lines`, without the name of its function."""
    for line in lines:
        if "error" in line.lower() or "failed" in line.lower():
            return re.sub(r"^\s*\w+:\s*", "", line).strip()
    return otherwise


@dataclass(frozen=True, slots=True)
class LlamaBuild:
    """How llama-cpp-python was built here: its version, what the CPU code uses, whether layers can go to a GPU."""

    version: str
    cpu_features: tuple[str, ...]
    gpu: str  # "CUDA", "Metal", "Vulkan" …, empty where there is none

    @property
    def advice(self) -> str:
        """What to install instead where the build leaves speed lying, otherwise nothing."""
        if not any(name in self.cpu_features for name in ("AVX2", "NEON")):
            return f"it was built without this CPU's vector units, which costs most of the speed: {_BUILD}"
        return ""


def installed_build() -> LlamaBuild:
    """The build that is installed. Raises MissingExtra where there is none."""
    from importlib.metadata import version

    llama = library()
    parts = llama.llama_print_system_info().decode("utf-8", "replace")
    on = set(re.findall(r"(\w+) = 1\b", parts))
    backends = re.findall(r"(?:^|\| )\s*([A-Za-z]\w*) :", parts)
    gpu = next((name for name in backends if name.upper() != "CPU"), "a GPU")
    return LlamaBuild(
        version("llama-cpp-python"),
        tuple(name for name in _MICROARCHITECTURE if name in on),
        gpu if llama.llama_supports_gpu_offload() else "",
    )


def c_array(kind: Any, values: Any) -> Any:
    """`values` as a C array of `kind`."""
    return (kind * len(values))(*values)


class LlamaObjects:
    """The library's objects. They are freed when nothing here refers to them, by the process that made them."""

    def __init__(self, llama: Any) -> None:
        self.model = self.adapter = self.context = None
        self._llama = llama
        self._all: dict[str, Any] = {}
        weakref.finalize(self, _free, llama, os.getpid(), self._all)

    def replace(self, name: str, pointer: Any) -> None:
        """`pointer` in place of what was kept under `name`."""
        _free(self._llama, os.getpid(), {name: self._all.get(name)})
        self._all[name] = pointer
        setattr(self, name, pointer)


def _free(llama: Any, pid: int, held: dict[str, Any]) -> None:
    if os.getpid() != pid:  # a forked child: these are its parent's
        return
    if held.get("context"):
        llama.llama_free(held["context"])
    if held.get("model"):
        llama.llama_model_free(held["model"])  # its adapters go with it


def used_device(lines: Sequence[str]) -> str:
    """What the library says it did. Example: "CUDA0, 33 of 33 layers"."""
    text = "\n".join(lines)
    used = re.search(r"using device (\w+)", text)
    layers = re.search(r"offloaded (\d+)/(\d+) layers", text)
    name = used[1] if used else "gpu"
    return f"{name}, {layers[1]} of {layers[2]} layers" if layers else name
