"""A GGUF loaded in llama.cpp, and the calls of the library that an engine makes.

The library ends the process when it is misused (two threads in one context, more tokens than were allotted, a fork).
Every call therefore goes through this module, under one lock, from one thread, with every count checked first. The
module sees ids, logits and hidden states, neither texts nor orders.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from dearlite.errors import DearliteError, ScoringError
from dearlite.foreign import engine_errors
from dearlite.llama.bindings import (
    LlamaObjects,
    c_array,
    library,
)
from dearlite.llama.context import Plan, new_context
from dearlite.llama.hyperparameters import check_hyperparameters
from dearlite.llama.loading import load_adapter, load_model
from dearlite.llama.vocabulary import LlamaVocabulary
from dearlite.models.gguf import HASH_ON_OPEN_BYTES, GgufFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

Result = TypeVar("Result")
_POLL_S = 0.05  # interval at which a running call checks `cancel`
_CONTEXT_STEP = 256  # the library rounds a sequence's room up to a multiple of this
_ABORTED = 2  # status of llama_decode after its abort callback returned true


class LlamaModel:
    """A loaded GGUF and its context of sequences. Calls from several threads take turns."""

    def __init__(
        self,
        file: GgufFile,
        *,
        device: str = "auto",
        gpu_layers: int | None = None,
        threads: int = 1,
        adapter: GgufFile | None = None,
    ) -> None:
        """Loads `file`, whose header has been checked. Its recorded hash is checked if that costs less than loading.

        `gpu_layers` is the number of layers on the GPU; None: all layers if there is a GPU. Raises ModelFileError if
        the library rejects the model, DeviceUnavailable if the requested GPU cannot be used.
        """
        with engine_errors("llama.cpp"):
            self._llama = llama = library()
        self.threads = threads
        self._held = [held for part in (file, adapter) if part is not None and (held := part.hold()) is not None]
        for part in (file, adapter):
            if part is not None:
                part.verify(largest_bytes=HASH_ON_OPEN_BYTES)
        check_hyperparameters(file)
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._stop = threading.Event()  # read by the library's abort callback, in the library's thread
        self._objects = LlamaObjects(llama)
        self._caller = ThreadPoolExecutor(1, thread_name_prefix="dearlite-llama")
        model, self.device, note = self._call(lambda: load_model(llama, file, device, gpu_layers))
        self._objects.replace("model", model)
        self.notes = [note] if note else []
        self.vocabulary = LlamaVocabulary(llama, self._objects, file.metadata)
        self.context_tokens: int = llama.llama_model_n_ctx_train(self._objects.model)
        if adapter is not None:
            self._objects.replace("adapter", self._call(lambda: load_adapter(llama, model, adapter)))
        for held in self._held:
            held.check_path()
        self._plan: Plan | None = None
        self._positions: list[int] = []  # number of tokens of each sequence
        self._common = 0  # number of tokens at the beginning of all sequences that share their cells
        stop = self._stop
        self._abort = llama.ggml_abort_callback(lambda _: stop.is_set())

    @contextmanager
    def turn(self, cancel: Event | None = None) -> Iterator[None]:
        """A block in which no other thread uses the model. Raises Interrupted when `cancel` is set before its turn.

        Raises DearliteError in a process forked since loading.
        """
        if os.getpid() != self._pid:
            raise DearliteError(
                "this model was loaded before the process forked, and its threads are missing in the child: load it in "
                "the child process (or start children with multiprocessing's 'spawn')"
            )
        while not self._lock.acquire(timeout=-1 if cancel is None else _POLL_S):
            if cancel is not None and cancel.is_set():
                raise Interrupted
        try:
            if not self._objects.model:
                raise DearliteError("this model was closed: load it again")
            yield
        finally:
            self._lock.release()

    def close(self) -> None:
        """Frees the model, and with it the file, which Windows neither replaces nor deletes while it is loaded."""
        with self._lock:
            self._plan = None
            for name in ("context", "adapter", "model"):
                self._objects.replace(name, None)
            for held in self._held:
                held.close()
            self._held = []

    def open(self, plan: Plan) -> bool:
        """Provides an empty context for `plan`; True if it is a new one. Raises OutOfMemory."""
        # Submitted to the library's thread, so that it runs after a call that was interrupted.
        return self._caller.submit(self._open, plan).result()

    def has(self, plan: Plan) -> bool:
        """True if the context that is open serves `plan`."""
        return self._plan is not None and self._plan.holds(plan)

    def clear(self, sequence: int) -> None:
        """Removes all tokens of a sequence; those that it shares stay with the others."""
        self._positions[sequence] = 0
        self._llama.llama_memory_seq_rm(self._memory(), sequence, -1, -1)

    def drop(self, sequence: int, tokens: int) -> None:
        """Removes the last `tokens` of a sequence."""
        self._positions[sequence] -= tokens
        self._llama.llama_memory_seq_rm(self._memory(), sequence, self._positions[sequence], -1)

    def share(self, sequences: Sequence[int]) -> None:
        """Puts the tokens of sequence 0 at the beginning of the other, empty `sequences`, in the same cells."""
        for sequence in sequences:
            self._llama.llama_memory_seq_cp(self._memory(), 0, sequence, -1, -1)
            self._positions[sequence] = self._positions[0]
        self._common = self._positions[0]

    def read(
        self,
        batch: Mapping[int, Sequence[int]],
        complete: Collection[int],
        cancel: Event | None,
        *,
        hidden: bool = False,
        every: bool = False,
    ) -> None:
        """Reads the tokens of `batch` (by sequence), with an output after the last token of `complete` sequences.

        With `every` there is an output after each of their tokens, in the order of the batch.
        The outputs are logits; with `hidden` the last hidden states, and then of every token of the batch. Raises
        Interrupted when `cancel` is set, ScoringError for more tokens than the context has room for.
        """
        assert self._plan is not None, "no context is open"
        count = sum(map(len, batch.values()))
        for sequence, tokens in batch.items():
            if not tokens or self._cells(sequence) + len(tokens) > self._plan.room or count > self._plan.batch:
                raise ScoringError(
                    f"a prompt needs {self._cells(sequence) + len(tokens)} tokens and has room for {self._plan.room}: "
                    "take fewer --passage-tokens or a smaller --window"
                )
            if not all(0 <= token < self.vocabulary.size for token in tokens):
                raise ScoringError("a prompt contains a token that the model does not have: verify its file")
        arrays, ranks = self._arrays(batch, complete, every), self._plan.ranks

        def decode() -> int:
            if not ranks:
                self._llama.llama_set_embeddings(self._objects.context, hidden)
            status: int = self._llama.llama_decode(self._objects.context, arrays)
            return status

        self._check_unchanged()
        status = self._call(decode, cancel)
        self._check_unchanged()
        if status == _ABORTED:
            raise Interrupted
        if status != 0:
            raise ScoringError(f"llama.cpp could not read {count} tokens (code {status}): take a smaller --window")
        for sequence, tokens in batch.items():
            self._positions[sequence] += len(tokens)

    def _check_unchanged(self) -> None:
        """Raises ModelFileError if a mapped file was written to."""
        for held in self._held:
            held.check()

    def logits(self, row: int) -> NDArray[np.float32]:
        """The logits of the batch's token `row`, (vocabulary,) float32, in the library's memory."""
        return self._values(
            self._llama.llama_get_logits_ith(self._objects.context, row), self.vocabulary.size, "logits"
        )

    def hidden(self, row: int) -> NDArray[np.float32]:
        """The last hidden state of the batch's token `row`, after the final norm, (hidden,) float32."""
        width = self._llama.llama_model_n_embd(self._objects.model)
        return self._values(self._llama.llama_get_embeddings_ith(self._objects.context, row), width, "hidden states")

    def rank_score(self, sequence: int) -> float:
        """The rank score of a sequence of the last batch, in a context that `ranks`."""
        pointer = self._llama.llama_get_embeddings_seq(self._objects.context, sequence)
        return float(self._values(pointer, 1, "scores")[0])

    def _values(self, pointer: Any, size: int, name: str) -> NDArray[np.float32]:
        if not pointer:
            raise ScoringError(f"the model returned no {name}: its file may be damaged, verify it")
        values: NDArray[np.float32] = np.ctypeslib.as_array(pointer, (size,))
        # The maximum and minimum of values with a NaN are NaN.
        if not np.isfinite(values.max()) or np.isnan(values.min()):
            raise ScoringError(
                f"the model returned {name} that are NaN or infinite: its file may be damaged, verify it"
            )
        return values

    def _cells(self, sequence: int) -> int:
        """The number of occupied cells that count towards the room of a sequence."""
        assert self._plan is not None
        if not self._plan.shared:
            return self._positions[sequence]
        return self._common + sum(max(0, position - self._common) for position in self._positions)

    def _memory(self) -> Any:
        return self._llama.llama_get_memory(self._objects.context)

    def _arrays(self, batch: Mapping[int, Sequence[int]], complete: Collection[int], every: bool) -> Any:
        """The library's batch structure, which keeps references to its arrays."""
        rows = [(s, token, self._positions[s] + n) for s, tokens in batch.items() for n, token in enumerate(tokens)]
        outputs = [
            s in complete and (every or n == len(tokens) - 1) for s, tokens in batch.items() for n in range(len(tokens))
        ]
        sequence_ids = {s: (ctypes.c_int32 * 1)(s) for s in batch}
        return self._llama.llama_batch(
            n_tokens=len(rows),
            token=c_array(ctypes.c_int32, [token for _, token, _ in rows]),
            embd=None,
            pos=c_array(ctypes.c_int32, [position for _, _, position in rows]),
            n_seq_id=c_array(ctypes.c_int32, [1] * len(rows)),
            seq_id=c_array(ctypes.POINTER(ctypes.c_int32), [sequence_ids[s] for s, _, _ in rows]),
            logits=c_array(ctypes.c_int8, outputs),
        )

    def _call(self, job: Callable[[], Result], cancel: Event | None = None) -> Result:
        """The result of `job`, run in the thread that calls the library. Aborts it on `cancel` or a signal.

        A signal's exception would be lost in the library's callbacks, which log and abort, so the caller waits here and
        polls `cancel`.
        """
        if cancel is not None and cancel.is_set():
            raise Interrupted
        self._stop.clear()
        running = self._caller.submit(job)
        try:
            while True:
                try:
                    return running.result(_POLL_S)
                except FutureTimeout:
                    if cancel is not None and cancel.is_set():
                        self._stop.set()
        except BaseException:
            self._stop.set()
            running.exception()
            raise

    def _open(self, plan: Plan) -> bool:
        room = -(-plan.room // _CONTEXT_STEP) * _CONTEXT_STEP
        plan = replace(plan, room=room)
        self._positions, self._common = [0] * plan.sequences, 0
        if self._plan is not None and self._plan.holds(plan):
            self._llama.llama_memory_clear(self._memory(), False)
            return False
        self._objects.replace("context", None)
        self._plan = None
        self._objects.replace("context", new_context(self._llama, self._objects, plan, self.threads, self._abort))
        self._plan = plan
        return True


class Interrupted(Exception):  # internal: the caller turns it into Cancelled, with the number of documents done
    """The work was stopped because `cancel` was set."""
