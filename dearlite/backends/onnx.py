"""Pointwise models on ONNX Runtime: a bundle's graph, its mapped weights, and how token rows are fed to it.

A score depends on its own row alone: never on its neighbours, their order, or the number of threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from dearlite import devices
from dearlite.bundle import Bundle
from dearlite.errors import BundleError, DeviceUnavailable
from dearlite.manifest import Build
from dearlite.tokens import TokenRow

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Rows that wait for a worker: enough to keep all of them busy while the next chunk is tokenised.
_LOOK_AHEAD_ROWS = 32
_PADDED_SORT_ROWS = 1024
_PADDED_BATCH_TOKENS = 32_768


class OnnxBackend:
    """A bundle in an ONNX Runtime session."""

    def __init__(self, bundle: Bundle, *, device: str, threads: int) -> None:
        """Loads the first build that runs here. Raises DeviceUnavailable when `device` is named and cannot be had."""
        self.threads = threads
        self.notes: list[str] = []
        failures = []
        for candidate in devices.candidate_devices(device):
            build = _pick_build(bundle, candidate)
            if build is None:
                failures.append(f"{candidate}: {bundle.path.name} has no graph for it")
                continue
            try:
                self._open(bundle, build, candidate)
            except Exception as err:  # ONNX Runtime's errors have no common base of their own
                failures.append(f"{candidate}: {str(err).splitlines()[0]}")
                continue
            break
        else:
            raise DeviceUnavailable(f"{bundle.path.name} cannot be loaded ({'; '.join(failures)})")
        if failures:
            self.notes.append(f"running on {self.device}, since {'; '.join(failures)}")
        elif self.device == "cpu" and device == "auto" and devices.nvidia_gpu_present():
            self.notes.append(
                "running on cpu: there is an NVIDIA GPU, but this onnxruntime has no CUDA "
                "(pip uninstall onnxruntime, then pip install 'dearlite[cuda]')"
            )

    def _open(self, bundle: Bundle, build: Build, device: str) -> None:
        """Loads `build` on `device`, and scores one short row: a graph that loads may still not run."""
        self.device, self.build = device, build
        self._session = _open_session(bundle, build, device)
        self._layout = LAYOUTS[build.layout]
        ids = np.array([0, 1], np.int64)
        list(self.score([TokenRow(ids, np.zeros_like(ids), len(ids))]))

    def score(self, rows: Iterable[TokenRow]) -> Generator[float, None, None]:
        """A raw logit for each row, in order; see PointwiseBackend."""
        return self._layout(self._session, rows, self.threads)


Scores = Generator[float, None, None]


def _one_document(session: Any, rows: Iterable[TokenRow], threads: int) -> Scores:
    """One row a call, `threads` calls at a time: no padding, no thread waits for another, no score sees a neighbour.

    Two workers of one thread score 1.2 times the documents of one session with two threads (docs/speed.md).
    """
    takes_types = any(node.name == "types" for node in session.get_inputs())

    def score(row: TokenRow) -> float:
        feeds = {"ids": row.ids, "types": row.types} if takes_types else {"ids": row.ids}
        return float(session.run(["score"], feeds)[0][0, 0])

    yield from _side_by_side((partial(score, row) for row in rows), threads)


def _shared_prefix(session: Any, rows: Iterable[TokenRow], threads: int) -> Scores:
    """One document a call, after its query's part, whose keys and values are computed once for all its documents."""
    spec = next(node for node in session.get_inputs() if node.name == "past")
    sides = [side if isinstance(side, int) else 0 for side in spec.shape]  # (layers, 2, 1, heads, prefix, dim)
    names = [node.name for node in session.get_outputs() if node.name != "score"]  # keys and values, layer by layer

    def prefix_state(ids: NDArray[np.int64]) -> NDArray[np.float32]:
        empty = np.zeros(sides, np.float32)
        if not len(ids):
            return empty
        state = session.run(names, {"ids": ids, "past": empty})
        return np.stack(state).reshape(*sides[:4], len(ids), sides[5])

    def score(ids: NDArray[np.int64], past: NDArray[np.float32]) -> float:
        return float(session.run(["score"], {"ids": ids, "past": past})[0][0, 0])

    def jobs() -> Iterator[Callable[[], float]]:
        known, past = None, np.zeros(sides, np.float32)
        for row in rows:
            length = min(row.prefix, len(row.ids) - 1)  # the last token's state is the score: it is never only past
            head = row.ids[:length].tobytes()
            if head != known:
                known, past = head, prefix_state(row.ids[:length])
            yield partial(score, row.ids[length:], past)

    yield from _side_by_side(jobs(), threads)


def _side_by_side(jobs: Iterable[Callable[[], float]], threads: int) -> Scores:
    """The jobs' results in order, `threads` of them at work; jobs are asked for a little ahead."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="dearlite")
    waiting: deque[Future[float]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            while len(waiting) > _LOOK_AHEAD_ROWS * threads or (waiting and waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _padded(session: Any, rows: Iterable[TokenRow], threads: int) -> Scores:
    """Rectangles of rows of like length, for a GPU: ids, types and mask are (rows, longest)."""
    rows = iter(rows)
    while chunk := list(islice(rows, _PADDED_SORT_ROWS)):
        scores = np.zeros(len(chunk), np.float32)
        order = sorted(range(len(chunk)), key=lambda i: -chunk[i].tokens_used)
        while order:
            longest = chunk[order[0]].tokens_used
            count = max(1, _PADDED_BATCH_TOKENS // longest)
            batch, order = order[:count], order[count:]
            ids = np.zeros((len(batch), longest), np.int64)
            types, mask = np.zeros_like(ids), np.zeros_like(ids)
            for line, i in enumerate(batch):
                used = chunk[i].tokens_used
                ids[line, :used], types[line, :used], mask[line, :used] = chunk[i].ids, chunk[i].types, 1
            scores[batch] = session.run(["score"], {"ids": ids, "types": types, "mask": mask})[0][:, 0]
        yield from map(float, scores)


# How rows become calls; a build names its entry.
LAYOUTS: dict[str, Callable[[Any, Iterable[TokenRow], int], Scores]] = {
    "one-document": _one_document,
    "shared-prefix": _shared_prefix,
    "padded": _padded,
}


def _pick_build(bundle: Bundle, device: str) -> Build | None:
    for build in bundle.manifest.builds:
        unknown = [name for name in build.requires if name not in devices.CAPABILITIES]
        if unknown or build.layout not in LAYOUTS:
            what = unknown[0] if unknown else build.layout
            raise BundleError(f"{bundle.path.name} needs {what!r}, which this dearlite does not know: update dearlite")
        if build.device == device and all(devices.CAPABILITIES[name]() for name in build.requires):
            return build
    return None


def _open_session(bundle: Bundle, build: Build, device: str) -> Any:
    ort = devices.onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # One thread a call, and calls side by side: threads inside a call wait for each other at every operator.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # The graph is written as it should run; ORT's own fusions pick slower kernels for it (SkipLayerNormalization takes
    # eight times as long as Add and LayerNormalization, BiasGelu 1.4 times Add and Gelu).
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    values = {name: ort.OrtValue.ortvalue_from_numpy(tensor) for name, tensor in bundle.tensors(build.tensors).items()}
    options.add_external_initializers(list(values), list(values.values()))
    if device == "cuda" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    session = ort.InferenceSession(bundle.read(build.graph), options, providers=[devices.PROVIDERS[device]])
    used = session.get_providers()[0]
    if used != devices.PROVIDERS[device]:  # ORT falls back in silence when a provider cannot start
        raise DeviceUnavailable(f"ONNX Runtime could not start {devices.PROVIDERS[device]} and offered {used}")
    return session
