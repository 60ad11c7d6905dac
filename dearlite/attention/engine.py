"""The ONNX Runtime engine of attention rerankers: token ids of a list -> the attention that each position gets.

The prompt is read in steps of `STEP_TOKENS`, with the keys and values of the steps before: memory follows the step, and
a call can end between two steps. The documents are read once, for both queries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from dearlite.errors import DeviceUnavailable, OutOfMemory, UsageError
from dearlite.foreign import engine_errors
from dearlite.pointwise.engine import pick_build
from dearlite.pointwise.memory import ran_out_of_memory
from dearlite.pointwise.onnxruntime import LIBRARY, candidate_devices, onnxruntime
from dearlite.pointwise.session import open_session
from dearlite.processor import processor_class

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dearlite.models.bundle import Bundle

LAYOUT = "attention"
# The weights of a step are (heads, step, positions) float32 in a layer: 0.5 GB for 32 heads at 8,192 positions.
STEP_TOKENS = 512

Past = dict[str, Any]  # name of an input of keys or values -> OrtValue


class Stopped(Exception):
    """The caller's event was set between two steps."""


class AttentionBackend:
    """A bundle loaded in an ONNX Runtime session whose threads share each step. Calls take turns."""

    device = "cpu"

    def __init__(self, bundle: Bundle, *, device: str, threads: int) -> None:
        """Raises DeviceUnavailable for another device than the CPU, and if the graph does not run."""
        if "cpu" not in candidate_devices(device):
            raise DeviceUnavailable(f"{bundle.path.name} is an attention reranker, which runs on a CPU: --device cpu")
        build = pick_build(bundle, "cpu", (LAYOUT,))
        if build is None:
            raise DeviceUnavailable(f"{bundle.path.name} has no graph for a CPU: export the model again")
        self.build, self.threads = build, threads
        self._turn = Lock()
        try:
            self._session = open_session(bundle, build, "cpu", threads=threads)
            self._empty = {
                node.name: np.zeros([side if isinstance(side, int) else 0 for side in node.shape], np.float32)
                for node in self._session.get_inputs()
                if node.name.startswith("past_")
            }
            self._state = [name.removeprefix("past_") for name in self._empty]
            self.attention(np.array([0, 1], np.int64), [(np.array([0], np.int64), 1)])
        except Exception as err:
            raise DeviceUnavailable(f"{bundle.path.name} cannot be loaded (cpu: {err})") from err

    @property
    def layers(self) -> list[int]:
        """The layers that are computed; of the last one q and k only."""
        return [int(name.rpartition("_")[2]) for name in self._state if name.startswith("keys_")]

    def prefill(self, ids: NDArray[np.int64]) -> None:
        """Reads `ids` without a look at the attention; for measurements."""
        with self._turn:
            self._read(ids, self._no_past(), None, None)

    def _no_past(self) -> Past:
        return {name: self._value(array) for name, array in self._empty.items()}

    def arithmetic(self) -> dict[str, str]:
        """The graph, ONNX Runtime's version and the class of processor, as of a pointwise model."""
        return {
            "graph": self.build.graph,
            "onnxruntime": onnxruntime().__version__,
            "processor": processor_class(),
        }

    def attention(
        self,
        prefix: NDArray[np.int64],
        tails: Sequence[tuple[NDArray[np.int64], int]],
        *,
        cancel: Event | None = None,
        on_tokens: Callable[[int], None] | None = None,
    ) -> list[NDArray[np.float32]]:
        """For each tail, the mean attention that its last tokens pay to each position of `prefix`, (prefix,) float32.

        A tail is (ids, number of those last tokens); its weights are summed over the chosen heads. `on_tokens` is
        called with the number of tokens of each step. Raises Stopped when `cancel` is set, OutOfMemory, and EngineError
        if ONNX Runtime fails.
        """
        with self._turn:
            if self._session is None:
                raise UsageError("this model was closed: load it again")
            try:
                past = self._read(prefix, self._no_past(), cancel, on_tokens)
                return [self._mean(tail, rows, len(prefix), past, cancel, on_tokens) for tail, rows in tails]
            except Exception as err:
                if ran_out_of_memory(err) and not isinstance(err, OutOfMemory):
                    raise OutOfMemory(
                        f"memory ran out with a list of {len(prefix)} tokens: close other programs, or give fewer "
                        "documents"
                    ) from err
                raise

    def _read(
        self, ids: NDArray[np.int64], past: Past, cancel: Event | None, on_tokens: Callable[[int], None] | None
    ) -> Past:
        """The keys and values after `ids`, which follow `past`."""
        for start in range(0, len(ids), STEP_TOKENS):
            step = ids[start : start + STEP_TOKENS]
            outputs = self._run(self._state, step, 1, past, cancel, on_tokens)
            past = {f"past_{name}": value for name, value in zip(self._state, outputs, strict=True)}
        return past

    def _mean(
        self,
        tail: NDArray[np.int64],
        rows: int,
        positions: int,
        past: Past,
        cancel: Event | None,
        on_tokens: Callable[[int], None] | None,
    ) -> NDArray[np.float32]:
        """The mean attention of the last `rows` tokens of `tail` to the first `positions`."""
        total = np.zeros(positions, np.float64)
        before = len(tail) - rows
        if before:
            past = self._read(tail[:before], past, cancel, on_tokens)
        for start in range(before, len(tail), STEP_TOKENS):
            step = tail[start : start + STEP_TOKENS]
            last = start + STEP_TOKENS >= len(tail)
            names = ["score"] if last else ["score", *self._state]
            sums, *outputs = self._run(names, step, len(step), past, cancel, on_tokens)
            total += sums.numpy()[:positions, 0]
            past = {f"past_{name}": value for name, value in zip(self._state, outputs, strict=False)}
        return (total / rows).astype(np.float32)

    def _run(
        self,
        names: list[str],
        ids: NDArray[np.int64],
        rows: int,
        past: Past,
        cancel: Event | None,
        on_tokens: Callable[[int], None] | None,
    ) -> list[Any]:
        """The outputs `names` of one step, as OrtValues."""
        if cancel is not None and cancel.is_set():
            raise Stopped
        feeds = {"ids": self._value(ids), "rows": self._value(np.array([rows], np.int64)), **past}
        outputs: list[Any] = self._session.run_with_ort_values(names, feeds)
        if on_tokens is not None:
            on_tokens(len(ids))
        return outputs

    @staticmethod
    def _value(array: NDArray[Any]) -> Any:
        with engine_errors(LIBRARY):
            return onnxruntime().OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))

    def close(self) -> None:
        """Drops the session, and with it the arrays that it uses in place."""
        with self._turn:
            self._session = None
