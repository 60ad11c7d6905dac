"""An ONNX Runtime session over a bundle's mapped weights, each in memory once (docs/engine.md has the figures).

ONNX Runtime packs matrices into its own memory. The file's pages that it packs from are released again: after loading,
the matrices are in memory once, packed, and the embedding's rows are read from the file when they are used.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dearlite.errors import DeviceUnavailable
from dearlite.foreign import Foreign
from dearlite.models.bundle import WEIGHTS, Bundle
from dearlite.models.manifest import Build
from dearlite.pointwise.onnxruntime import LIBRARY, PROVIDERS, onnxruntime
from dearlite.pointwise.unsigned import unsigned, without_casts

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The graph optimiser reads the values of small tensors (mostly scalars), which are therefore copied. It reads a larger
# tensor only to fold it: larger tensors are used in place, in the mapped file.
_IN_PLACE_BYTES = 2**20
_RELEASE_INTERVAL_S = 0.05
_DATA = Path(__file__).parents[1] / "data"


def open_session(bundle: Bundle, build: Build, device: str, *, threads: int = 1) -> Any:
    """A session of the build's graph on `device`, with `threads` that share a call. Its calls raise EngineError."""
    tensors = bundle.tensors(build.tensors)
    graph = bundle.read(build.graph)
    with _releasing_pages(bundle):
        if device == "cpu":
            if not bundle.manifest.pair_limited:  # an older file, whose graph may make its weights unsigned
                graph, names = without_casts(graph)
                tensors |= {name: unsigned(tensors[name]) for name in names}
            try:
                return _Watched(_create(graph, tensors, device, threads, in_place=True), bundle)
            except Exception:  # a graph that computes with its weights at load needs copies of them, as below
                bundle.release_pages()
        return _Watched(_create(graph, tensors, device, threads), bundle)


class _Watched(Foreign):
    """A session over a mapped file. A run between whose start and end the file was written to raises ModelFileError."""

    def __init__(self, session: Any, bundle: Bundle) -> None:
        super().__init__(LIBRARY, session)
        self._bundle = bundle

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        if name not in ("run", "run_with_ort_values"):
            return value

        def run(*arguments: Any, **options: Any) -> Any:
            self._bundle.check_unchanged()
            result = value(*arguments, **options)
            self._bundle.check_unchanged()
            return result

        return run


def _create(
    graph: bytes, tensors: dict[str, NDArray[Any]], device: str, threads: int, *, in_place: bool = False
) -> Any:
    """The session. It copies all tensors, or with `in_place` uses the large mapped ones where they are.

    For a tensor in place, ONNX Runtime checks that the file named by the graph exists, and never reads it: an empty
    one of that name comes with the package. (A temporary one would be left by a kill, and needs a disk with room.)
    """
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # One thread per call, and several calls at a time: threads inside a call wait for each other at every operator.
    # Only a prompt that is read in one call, as of a whole list, has several.
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # The exporter writes the graph as it should run. ORT's fusions pick slower kernels for it (SkipLayerNormalization
    # takes eight times as long as Add and LayerNormalization, BiasGelu 1.4 times as long as Add and Gelu).
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    values = {name: ort.OrtValue.ortvalue_from_numpy(tensor) for name, tensor in tensors.items()}
    large = {
        name
        for name, tensor in tensors.items()
        # A tensor with memory of its own (unsigned.py) is copied, so that both copies can go after it is packed.
        if in_place and tensor.nbytes > _IN_PLACE_BYTES and not tensor.flags.owndata
    }
    if in_place:
        folder = str((_DATA / WEIGHTS).resolve().parent)  # an installer may have made a link of it
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        for name in large:
            options.add_initializer(name, values[name])
    copied = [name for name in values if name not in large]
    options.add_external_initializers(copied, [values[name] for name in copied])
    if device == "cuda" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    # Its Python part prints a message to standard output before it tries the CPU; on the CPU there is nothing to try.
    again = {"enable_fallback": int(device != "cpu")}
    session = ort.InferenceSession(graph, options, providers=[PROVIDERS[device]], **again)
    used = session.get_providers()[0]
    if used != PROVIDERS[device]:  # ORT falls back without an error when a provider cannot start
        raise DeviceUnavailable(f"ONNX Runtime could not start {PROVIDERS[device]} and fell back to {used}")
    # ONNX Runtime holds no reference to a tensor in place: without this one it would read memory after its release.
    session.tensors_in_place = [values[name] for name in large]
    return session


@contextmanager
def _releasing_pages(bundle: Bundle) -> Iterator[None]:
    """Releases the file's pages while the block reads them, and once at its end: peak memory is one copy, not two."""
    done = threading.Event()

    def release() -> None:
        while not done.wait(_RELEASE_INTERVAL_S):
            bundle.release_pages()

    thread = threading.Thread(target=release, name="dearlite-load", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        bundle.release_pages()
