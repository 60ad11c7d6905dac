"""The ONNX Runtime engine of pointwise models: runs a bundle's graph over token rows.

A score depends on its row alone: never on other rows, their order, or the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from dearlite.errors import DeviceUnavailable, EngineError, ModelFileError, UsageError, first_line
from dearlite.installing import pip, pip_install
from dearlite.machine import gpu_name, nvidia_gpu_present
from dearlite.models.bundle import Bundle
from dearlite.models.manifest import Build
from dearlite.models.pair_limit import multiplies_int8
from dearlite.pointwise.memory import MemoryLimits, ran_out_of_memory
from dearlite.pointwise.onnxruntime import CAPABILITIES, EXACT_PRODUCTS, candidate_devices, onnxruntime
from dearlite.pointwise.session import open_session
from dearlite.pointwise.tokens import TokenRow
from dearlite.pointwise.workers import side_by_side
from dearlite.processor import processor_class

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PADDED_SORT_ROWS = 1024  # rows sorted by length before they are cut into padded batches


class OnnxBackend:
    """A bundle loaded in an ONNX Runtime session. `notes` are remarks on the choice of device, for a warning."""

    def __init__(self, bundle: Bundle, *, device: str, threads: int) -> None:
        """Loads the first build that runs on `device`, or on any device for "auto". Raises DeviceUnavailable."""
        self.threads = threads
        self.notes: list[str] = []
        self._limits = MemoryLimits()
        failures = []
        for candidate in candidate_devices(device):
            build = pick_build(bundle, candidate)
            if build is None:
                failures.append(
                    f"{candidate}: {bundle.path.name} has no graph for it; `dearlite export … --for both` writes one"
                )
                continue
            try:
                self._open(bundle, build, candidate)
            except Exception as err:
                failures.append(f"{candidate}: {_reason(err)}")
                continue
            break
        else:
            raise DeviceUnavailable(f"{bundle.path.name} cannot be loaded ({'; '.join(failures)})")
        if failures:
            self.notes.append(f"running on {self.device}, since {'; '.join(failures)}")
        elif self.device == "cpu" and device == "auto" and nvidia_gpu_present():
            self.notes.append(
                "running on cpu: there is an NVIDIA GPU, but this onnxruntime has no CUDA "
                f"({pip('uninstall onnxruntime')}, then {pip_install('cuda')})"
            )

    def _open(self, bundle: Bundle, build: Build, device: str) -> None:
        """Loads `build` on `device` and scores one short row, because a graph that loads may still fail to run."""
        self.device, self.build = device, build
        self._session = open_session(bundle, build, device)
        self._layout = LAYOUTS[build.layout]
        ids = np.array([0, 1], np.int64)
        list(self.score([TokenRow(ids, np.zeros_like(ids), len(ids))]))

    def arithmetic(self) -> dict[str, str]:
        """The graph, ONNX Runtime's version and the class of processor, with which int8 scores move by about 0.1."""
        return {
            "graph": self.build.graph,
            "onnxruntime": onnxruntime().__version__,
            "processor": gpu_name() if self.device == "cuda" else processor_class(),
        }

    def score(self, rows: Iterable[TokenRow]) -> Generator[float, None, None]:
        """The raw logit of each row, in order. Rows are taken as needed.

        Raises EngineError if ONNX Runtime fails, after the scores of the rows before; its `position`, if it has one, is
        that of the row.
        """
        if self._session is None:
            raise UsageError("this model was closed: load it again")
        return self._layout(self._session, rows, self.threads, self._limits)

    def close(self) -> None:
        """Drops the session, and with it the arrays that it uses in place."""
        self._session = None


Scores = Generator[float, None, None]


def _one_document(session: Any, rows: Iterable[TokenRow], threads: int, limits: MemoryLimits) -> Scores:
    """Scores of single-row calls, `threads` of them at a time: no padding, and no thread waits for another.

    Two single-threaded workers score 1.2 times as many documents as one session with two threads (docs/speed.md).
    """
    takes_types = any(node.name == "types" for node in session.get_inputs())

    def score(row: TokenRow) -> float:
        feeds = {"ids": row.ids, "types": row.types} if takes_types else {"ids": row.ids}
        return float(session.run(["score"], feeds)[0][0, 0])

    yield from side_by_side(((len(row.ids), partial(score, row)) for row in rows), threads, limits)


def _shared_prefix(session: Any, rows: Iterable[TokenRow], threads: int, limits: MemoryLimits) -> Scores:
    """Scores of single-document calls. The keys and values of the query's part are computed once for all documents.

    A graph with an input `length` pads its rows to that length, by default to `max_tokens`. The query's part is run
    with its own length, hence without padding, and has at least one token.
    """
    pads = any(node.name == "length" for node in session.get_overridable_initializers())
    spec = next(node for node in session.get_inputs() if node.name == "past")
    sides = [side if isinstance(side, int) else 0 for side in spec.shape]  # (layers, 2, 1, heads, prefix, dim)
    names = [node.name for node in session.get_outputs() if node.name != "score"]  # keys and values, layer by layer

    def prefix_state(ids: NDArray[np.int64]) -> NDArray[np.float32]:
        empty = np.zeros(sides, np.float32)
        if not len(ids):
            return empty
        feeds = {"ids": ids, "past": empty} | ({"length": np.array([len(ids)], np.int64)} if pads else {})
        state = session.run(names, feeds)
        return np.stack(state).reshape(*sides[:4], len(ids), sides[5])

    def score(ids: NDArray[np.int64], past: NDArray[np.float32]) -> float:
        return float(session.run(["score"], {"ids": ids, "past": past})[0][0, 0])

    def jobs() -> Iterator[tuple[float, Callable[[], float]]]:
        prefix, past = None, np.zeros(sides, np.float32)
        for row in rows:
            # The score is read at the last token, which must be computed with the document and not with the prefix,
            # unless a padding token follows it.
            length = max(1, min(row.prefix, len(row.ids) - 1)) if pads else min(row.prefix, len(row.ids) - 1)
            head = row.ids[:length].tobytes()
            if head != prefix:
                prefix, past = head, limits.call(partial(prefix_state, row.ids[:length]))
            yield len(row.ids) - length, partial(score, row.ids[length:], past)

    yield from side_by_side(jobs(), threads, limits)


def _padded(session: Any, rows: Iterable[TokenRow], threads: int, limits: MemoryLimits) -> Scores:
    """Scores of padded batches of rows of similar length, for a GPU.

    The feeds are those of `ids`, `types` and `mask` that the graph has as inputs, each (rows, longest) int64.
    """
    inputs = {node.name for node in session.get_inputs()}

    def score(batch: Sequence[TokenRow]) -> NDArray[np.float32]:
        longest = max(row.tokens_used for row in batch)
        ids = np.zeros((len(batch), longest), np.int64)
        types, mask = np.zeros_like(ids), np.zeros_like(ids)
        for index, row in enumerate(batch):
            used = row.tokens_used
            ids[index, :used], types[index, :used], mask[index, :used] = row.ids, row.types, 1
        feeds = {"ids": ids, "types": types, "mask": mask}
        logits: NDArray[np.float32] = session.run(["score"], {name: feeds[name] for name in feeds if name in inputs})[0]
        return logits[:, 0]

    rows, before, alone = iter(rows), 0, False
    while chunk := list(islice(rows, _PADDED_SORT_ROWS)):
        scores = np.zeros(len(chunk), np.float32)
        order = sorted(range(len(chunk)), key=lambda i: -chunk[i].tokens_used)
        while order:
            longest = chunk[order[0]].tokens_used
            batch = order[: 1 if alone else max(1, limits.batch_tokens // longest)]
            try:
                scores[batch] = score([chunk[i] for i in batch])
            except Exception as err:
                if ran_out_of_memory(err):
                    limits.shrink_batch(err, len(batch), longest)
                elif isinstance(err, EngineError) and not alone:
                    alone = True  # from here on one by one: the error is that of its row
                else:
                    if isinstance(err, EngineError):
                        err.position = before + batch[0]
                    raise
            else:
                order = order[len(batch) :]
        before += len(chunk)
        yield from map(float, scores)


# The layout of rows in the session's calls; a build names its entry.
LAYOUTS: dict[str, Callable[[Any, Iterable[TokenRow], int, MemoryLimits], Scores]] = {
    "one-document": _one_document,
    "shared-prefix": _shared_prefix,
    "padded": _padded,
}


def pick_build(bundle: Bundle, device: str, layouts: Collection[str] = LAYOUTS.keys()) -> Build | None:
    """The first build for `device` that this machine can run. Raises ModelFileError for unknown requirements.

    `layouts` are those that the caller can feed. A graph of a file that does not state `pair_limited` runs on a CPU
    only if its int8 products are exact there.
    """
    inexact = False
    for build in bundle.manifest.builds:
        unknown = [name for name in build.requires if name not in CAPABILITIES]
        if unknown or build.layout not in layouts:
            feature = unknown[0] if unknown else build.layout
            raise ModelFileError(
                f"{bundle.path.name} needs {feature!r}, which this dearlite does not support: update dearlite"
            )
        if build.device != device:
            continue
        if all(CAPABILITIES[name]() for name in build.requires) and _is_exact(bundle, build):
            return build
        inexact = True
    if inexact:
        raise ModelFileError(
            f"{bundle.path.name} has no graph for this CPU, where products of int8 weights beyond the limit of pairs "
            "are wrong: export the model again"
        )
    return None


def _is_exact(bundle: Bundle, build: Build) -> bool:
    """True if the build's int8 products are exact on this machine, which files of any weights depend on."""
    if build.device != "cpu" or bundle.manifest.pair_limited or CAPABILITIES[EXACT_PRODUCTS]():
        return True
    return not multiplies_int8(bundle, build.graph)


def _reason(err: Exception) -> str:
    if ran_out_of_memory(err):
        return "memory ran out while it was loaded: close other programs, or take a smaller model"
    return first_line(err.__cause__ if isinstance(err, EngineError) and err.__cause__ is not None else err)
