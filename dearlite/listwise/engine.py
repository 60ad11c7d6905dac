"""The llama.cpp engine of listwise models: loads a GGUF and runs several decodings side by side in one context.

The library ends the process when it is misused (two threads in one context, more tokens than were allotted, a fork).
Every call therefore goes through this module, under one lock, from one thread, with every count checked first. The
module sees ids and logits, neither text nor orders.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from threading import Event
from typing import Any, TypeVar

import numpy as np

from dearlite.errors import DearliteError, DeviceUnavailable, ModelFileError, OutOfMemory, ScoringError
from dearlite.foreign import engine_errors
from dearlite.listwise.decoding import Decoding, Step
from dearlite.listwise.hyperparameters import check_hyperparameters
from dearlite.listwise.llama_library import (
    LlamaObjects,
    c_array,
    captured_log,
    first_error,
    gpu_build_command,
    library,
    used_device,
)
from dearlite.listwise.llama_vocabulary import LlamaVocabulary
from dearlite.models.gguf import HASH_ON_OPEN_BYTES, GgufFile

Result = TypeVar("Result")
# Tokens per call. Measured on two cores: the rate is the same from 256 to 512 and falls above and below.
BATCH_TOKENS = 512
_POLL_S = 0.05  # interval at which a running call checks `cancel`
_CONTEXT_STEP = 256  # the library rounds a sequence's room up to a multiple of this
_ALONE_TOKENS = 32  # a longer step is read without the other sequences: it fills a call by itself
_ABORTED = 2  # status of llama_decode after its abort callback returned true


class LlamaBackend:
    """A loaded GGUF. Calls from several threads take turns."""

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
        with engine_errors("llama.cpp"):  # a library that does not load on this machine raises OSError
            self._llama = llama = library()
        self.threads, self.notes = threads, list[str]()
        for part in (file, adapter):
            if part is not None:
                part.verify(largest_bytes=HASH_ON_OPEN_BYTES)
        check_hyperparameters(file)
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._stop = threading.Event()  # read by the library's abort callback, in the library's thread
        self._objects = LlamaObjects(llama)
        self.device = "cpu"
        self._caller = ThreadPoolExecutor(1, thread_name_prefix="dearlite-llama")
        self._objects.replace("model", self._call(lambda: self._load(file, device, gpu_layers)))
        self.vocabulary = LlamaVocabulary(llama, self._objects, file.metadata)
        self.context_tokens: int = llama.llama_model_n_ctx_train(self._objects.model)
        if adapter is not None:
            self._objects.replace("adapter", self._call(lambda: self._load_adapter(adapter)))
        self._room = self._sequences = 0
        self._positions: list[int] = []
        stop = self._stop
        self._abort = llama.ggml_abort_callback(lambda _: stop.is_set())

    def run(
        self,
        decodings: Sequence[Decoding[Result]],
        room: int,
        *,
        cancel: Event | None = None,
        on_tokens: Callable[[int], None] | None = None,
    ) -> list[Result]:
        """The results of the decodings, which run side by side, each in a sequence with room for `room` tokens.

        `on_tokens` is called with the number of tokens that each call read. Raises Interrupted when `cancel` is set,
        ScoringError if a decoding needs more than its room. Errors of the decodings pass through.
        """
        if os.getpid() != self._pid:
            raise DearliteError(
                "this model was loaded before the process forked, and its threads are missing in the child: load it in "
                "the child process (or start children with multiprocessing's 'spawn')"
            )
        with self._lock:
            # Submitted to the library's thread, so that it runs after a call that was interrupted.
            self._caller.submit(self._open, room, len(decodings)).result()
            try:
                return self._drive(decodings, cancel, on_tokens)
            finally:
                for decoding in decodings:
                    decoding.close()

    def _drive(
        self, decodings: Sequence[Decoding[Result]], cancel: Event | None, on_tokens: Callable[[int], None] | None
    ) -> list[Result]:
        """The results of the decodings: reads the tokens of their steps and sends them the logits, until all end."""
        results: dict[int, Result] = {}
        unread: dict[int, list[int]] = {}  # sequence -> tokens of its step that are not read yet

        def take(sequence: int, step: Step) -> None:
            if step.drop:
                self._positions[sequence] -= step.drop
                memory = self._llama.llama_get_memory(self._objects.context)
                self._llama.llama_memory_seq_rm(memory, sequence, self._positions[sequence], -1)
            unread[sequence] = list(step.tokens)

        def advance(sequence: int, logits: Any) -> None:
            try:
                take(sequence, decodings[sequence].send(logits))
            except StopIteration as end:
                results[sequence] = end.value
                unread.pop(sequence, None)

        for sequence in range(len(decodings)):
            advance(sequence, None)
        while unread:
            long = next((s for s, tokens in unread.items() if len(tokens) > _ALONE_TOKENS), None)
            # Equal numbers of tokens per sequence: the library reads its weights once for each distinct number.
            share = BATCH_TOKENS if long is not None else min(map(len, unread.values()))
            batch = {s: unread[s][:share] for s in ([long] if long is not None else unread)}
            complete = {s for s, tokens in batch.items() if len(tokens) == len(unread[s])}
            self._decode(batch, complete, cancel)
            if on_tokens is not None:
                on_tokens(sum(map(len, batch.values())))
            row = -1
            for sequence, tokens in batch.items():
                row += len(tokens)
                del unread[sequence][: len(tokens)]
                if sequence in complete:
                    advance(sequence, self._logits(row))
        return [results[sequence] for sequence in range(len(decodings))]

    def _logits(self, row: int) -> Any:
        """The logits of the batch's token `row`, (vocabulary,) float32, in the library's memory."""
        pointer = self._llama.llama_get_logits_ith(self._objects.context, row)
        if not pointer:
            raise ScoringError("the model returned no logits: its file may be damaged, verify it")
        logits = np.ctypeslib.as_array(pointer, (self.vocabulary.size,))
        # The maximum and minimum of values with a NaN are NaN.
        if not np.isfinite(logits.max()) or np.isnan(logits.min()):
            raise ScoringError("the model returned logits that are NaN or infinite: its file may be damaged, verify it")
        return logits

    def _decode(self, batch: dict[int, list[int]], complete: set[int], cancel: Event | None) -> None:
        """Reads the tokens of `batch` (by sequence), with logits after the last token of `complete` sequences."""
        count = sum(map(len, batch.values()))
        for sequence, tokens in batch.items():
            if not tokens or self._positions[sequence] + len(tokens) > self._room or count > BATCH_TOKENS:
                raise ScoringError(
                    f"a window needs {self._positions[sequence] + len(tokens)} tokens and has room for {self._room}: "
                    "take fewer --passage-tokens or a smaller --window"
                )
            if not all(0 <= token < self.vocabulary.size for token in tokens):
                raise ScoringError("a prompt contains a token that the model does not have: verify its file")
        arrays = self._arrays(batch, complete)
        status = self._call(lambda: self._llama.llama_decode(self._objects.context, arrays), cancel)
        if status == _ABORTED:
            raise Interrupted
        if status != 0:
            raise ScoringError(f"llama.cpp could not read {count} tokens (code {status}): take a smaller --window")
        for sequence, tokens in batch.items():
            self._positions[sequence] += len(tokens)

    def _arrays(self, batch: dict[int, list[int]], complete: set[int]) -> Any:
        """The library's batch structure, which keeps references to its arrays."""
        rows = [(s, token, self._positions[s] + n) for s, tokens in batch.items() for n, token in enumerate(tokens)]
        outputs = [n == len(tokens) - 1 and s in complete for s, tokens in batch.items() for n in range(len(tokens))]
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

    def _open(self, room: int, sequences: int) -> None:
        """Provides an empty context with `room` tokens for each of `sequences`; reuses the present one if it fits."""
        room = -(-room // _CONTEXT_STEP) * _CONTEXT_STEP
        self._positions = [0] * sequences
        if sequences == self._sequences and room <= self._room <= 4 * room:
            self._llama.llama_memory_clear(self._llama.llama_get_memory(self._objects.context), False)
            return
        self._objects.replace("context", None)
        self._room = self._sequences = 0
        params = self._llama.llama_context_default_params()
        params.n_ctx, params.n_seq_max = room * sequences, sequences
        params.n_batch = params.n_ubatch = BATCH_TOKENS
        params.n_threads = params.n_threads_batch = self.threads
        params.flash_attn_type = self._llama.LLAMA_FLASH_ATTN_TYPE_AUTO
        params.kv_unified = False
        params.no_perf = True
        params.abort_callback = self._abort
        with captured_log() as lines:
            context = self._llama.llama_init_from_model(self._objects.model, params)
        if not context:
            raise OutOfMemory(
                f"no room for {sequences} windows of {room} tokens ({first_error(lines, 'no reason given')}): take a "
                "smaller --window, fewer --passage-tokens, or close other programs"
            )
        self._objects.replace("context", context)
        if self._objects.adapter:
            kind = self._llama.llama_adapter_lora_p_ctypes
            if self._llama.llama_set_adapters_lora(
                context, (kind * 1)(self._objects.adapter), 1, (ctypes.c_float * 1)(1.0)
            ):
                raise ModelFileError("llama.cpp rejects this adapter: export it for this model again")
        self._room, self._sequences = room, sequences

    def _load(self, file: GgufFile, device: str, gpu_layers: int | None) -> Any:
        """A pointer to the loaded model; sets `self.device`. Device "auto" falls back from GPU to CPU, with a note."""
        llama = self._llama
        offloads = llama.llama_supports_gpu_offload() and device != "cpu" and gpu_layers != 0
        if not offloads and (device not in ("auto", "cpu") or gpu_layers):
            raise DeviceUnavailable(
                f"this llama.cpp was built without a GPU: {gpu_build_command()}"
                if device != "cpu"
                else "device 'cpu' takes no --gpu-layers: leave one of them out"
            )
        attempts = [gpu_layers if gpu_layers is not None else 10_000, 0] if offloads else [0]
        for layers in attempts:
            params = llama.llama_model_default_params()
            params.n_gpu_layers = layers
            with captured_log() as lines:
                model = llama.llama_model_load_from_file(os.fsencode(file.path), params)
            if model:
                self.device = used_device(lines) if layers else "cpu"
                return model
            reason = first_error(lines, "no reason given")
            if layers and (device != "auto" or gpu_layers is not None):
                raise DeviceUnavailable(f"{file.path.name} does not load on the GPU ({reason}): fewer --gpu-layers")
            self.notes.append(f"running on cpu, since {file.path.name} does not load on the GPU ({reason})")
        raise ModelFileError(f"llama.cpp cannot load {file.path} ({reason}): fetch or export it again")

    def _load_adapter(self, adapter: GgufFile) -> Any:
        with captured_log() as lines:
            pointer = self._llama.llama_adapter_lora_init(self._objects.model, os.fsencode(adapter.path))
        if not pointer:  # the library would continue without the adapter and without an error
            reason = first_error(lines, "no reason given")
            raise ModelFileError(
                f"llama.cpp cannot put the adapter {adapter.path} on this model ({reason}): give the adapter's own base"
            )
        return pointer


class Interrupted(Exception):  # internal: the caller turns it into Cancelled, with the number of documents done
    """The work was stopped because `cancel` was set."""
