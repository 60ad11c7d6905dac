"""An ONNX Runtime session over a bundle's mapped weights, with nothing held twice (docs/engine.md has the figures).

ONNX Runtime packs matrices into memory of its own. What it packed from are pages of the file, which are let go again:
after loading, the matrices are in memory once, packed, and the embedding's rows are read from the file when used.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from dearlite.errors import DeviceUnavailable
from dearlite.models.bundle import WEIGHTS, Bundle
from dearlite.models.manifest import Build
from dearlite.pointwise.onnxruntime import PROVIDERS, onnxruntime

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The graph's optimiser reads the values of small tensors (scalars above all), and never of large ones unless it folds
# them: these are used where they lie.
_IN_PLACE_BYTES = 2**20
_LET_GO_EVERY_S = 0.05


def open_session(bundle: Bundle, build: Build, device: str) -> Any:
    """A session of the build's graph on `device`, one thread a call. Raises what ONNX Runtime raises."""
    tensors = bundle.tensors(build.tensors)
    graph = bundle.read(build.graph)
    with _pages_let_go(bundle):
        if device == "cpu":
            try:
                with TemporaryDirectory(prefix="dearlite-") as folder:
                    return _create(graph, tensors, device, in_place=folder)
            except Exception:  # a graph that folds its weights at load: it needs copies of them, as below
                bundle.release_pages()
        return _create(graph, tensors, device)


def _create(graph: bytes, tensors: dict[str, NDArray[Any]], device: str, *, in_place: str | None = None) -> Any:
    """The session; it copies all tensors first, or with `in_place` uses the large ones where they are mapped.

    ONNX Runtime still looks for the file that the graph names for a tensor that it uses in place, and never reads it:
    `in_place` is a folder where an empty one is put.
    """
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # One thread a call, and calls side by side: threads inside a call wait for each other at every operator.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # The graph is written as it should run; ORT's own fusions pick slower kernels for it (SkipLayerNormalization takes
    # eight times as long as Add and LayerNormalization, BiasGelu 1.4 times Add and Gelu).
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    values = {name: ort.OrtValue.ortvalue_from_numpy(tensor) for name, tensor in tensors.items()}
    large = {name for name, tensor in tensors.items() if in_place is not None and tensor.nbytes > _IN_PLACE_BYTES}
    if in_place is not None:
        Path(in_place, WEIGHTS).touch()
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", in_place)
        for name in large:
            options.add_initializer(name, values[name])
    copied = [name for name in values if name not in large]
    options.add_external_initializers(copied, [values[name] for name in copied])
    if device == "cuda" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    session = ort.InferenceSession(graph, options, providers=[PROVIDERS[device]])
    used = session.get_providers()[0]
    if used != PROVIDERS[device]:  # ORT falls back in silence when a provider cannot start
        raise DeviceUnavailable(f"ONNX Runtime could not start {PROVIDERS[device]} and offered {used}")
    # ONNX Runtime does not keep what it uses in place: without this it would read from memory that is gone.
    session.tensors_in_place = [values[name] for name in large]
    return session


@contextmanager
def _pages_let_go(bundle: Bundle) -> Iterator[None]:
    """Lets the file's pages go while they are read, and once more at the end: the peak is then one copy, not two."""
    done = threading.Event()

    def let_go() -> None:
        while not done.wait(_LET_GO_EVERY_S):
            bundle.release_pages()

    thread = threading.Thread(target=let_go, name="dearlite-load", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        bundle.release_pages()
