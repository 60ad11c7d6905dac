"""Listwise models on llama.cpp: one GGUF, its context, and decodings driven side by side.

The library ends the process where it is misused (two threads in one context, more tokens than were allotted, a fork):
every call goes through here, under one lock, from one thread, with every count checked first. It sees ids and logits,
no text and no order.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from math import isfinite
from threading import Event
from typing import Any, TypeVar

import numpy as np

from dearlite.errors import DearliteError, DeviceUnavailable, ModelFileError, OutOfMemory, ScoringError
from dearlite.listwise.decoding import Decoding, Step
from dearlite.listwise.llama_library import (
    GPU_BUILD,
    LlamaObjects,
    c_array,
    captured_log,
    first_error,
    library,
    used_device,
)
from dearlite.listwise.llama_vocabulary import LlamaVocabulary
from dearlite.models.gguf import HASH_ON_OPEN_BYTES, GgufFile

Result = TypeVar("Result")
# Tokens a call. Measured on two cores: the rate is the same from 256 to 512 and falls above and below.
BATCH_TOKENS = 512
_POLL_S = 0.05  # how often a long call looks whether it is still wanted
_CONTEXT_STEP = 256  # the library rounds a sequence's room up to this
_ALONE_TOKENS = 32  # a longer step is read alone: it fills a call by itself
_ABORTED = 2  # llama_decode's answer to its callback's "stop"


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
        """Loads `file`, whose header has been checked; its recorded hash is, where that costs less than loading.

        `gpu_layers` is how many layers go to the GPU, None for all that there are where there is one. Raises
        ModelFileError for a model that the library refuses, DeviceUnavailable for a GPU that is not there.
        """
        self._llama = llama = library()
        self.threads, self.notes = threads, list[str]()
        for part in (file, adapter):
            if part is not None:
                part.verify(largest_bytes=HASH_ON_OPEN_BYTES)
        _refuse_unsound(file)
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._stop = threading.Event()  # what the library's callback asks, from its own thread
        self._objects = LlamaObjects(llama)
        self.device = "cpu"
        self._objects.replace("model", self._load(file, device, gpu_layers))
        self.vocabulary = LlamaVocabulary(llama, self._objects, file.metadata)
        self.context_tokens: int = llama.llama_model_n_ctx_train(self._objects.model)
        if adapter is not None:
            self._objects.replace("adapter", self._load_adapter(adapter))
        self._caller = ThreadPoolExecutor(1, thread_name_prefix="dearlite-llama")
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
        """What each decoding returns; they are read side by side, each with `room` tokens for all that it reads.

        `on_tokens` hears how many tokens each call read. Raises Interrupted where `cancel` is set, ScoringError where a
        decoding wants more than its room, and what the decodings raise.
        """
        if os.getpid() != self._pid:
            raise DearliteError(
                "this model was loaded before the process forked, and its threads stayed behind: load it in the child "
                "process (or start children with multiprocessing's 'spawn')"
            )
        with self._lock:
            # In the library's own thread, after whatever an interrupted call left there.
            self._caller.submit(self._open, room, len(decodings)).result()
            try:
                return self._drive(decodings, cancel, on_tokens)
            finally:
                for decoding in decodings:
                    decoding.close()

    def _drive(
        self, decodings: Sequence[Decoding[Result]], cancel: Event | None, on_tokens: Callable[[int], None] | None
    ) -> list[Result]:
        results: dict[int, Result] = {}
        todo: dict[int, list[int]] = {}  # sequence -> tokens of its step that are not read yet

        def take(sequence: int, step: Step) -> None:
            if step.drop:
                self._positions[sequence] -= step.drop
                memory = self._llama.llama_get_memory(self._objects.context)
                self._llama.llama_memory_seq_rm(memory, sequence, self._positions[sequence], -1)
            todo[sequence] = list(step.tokens)

        def advance(sequence: int, logits: Any) -> None:
            try:
                take(sequence, decodings[sequence].send(logits))
            except StopIteration as done:
                results[sequence] = done.value
                todo.pop(sequence, None)

        for sequence in range(len(decodings)):
            advance(sequence, None)
        while todo:
            long = next((s for s, tokens in todo.items() if len(tokens) > _ALONE_TOKENS), None)
            # As many tokens of each sequence: the library reads its weights once for each length that it meets.
            share = BATCH_TOKENS if long is not None else min(map(len, todo.values()))
            batch = {s: todo[s][:share] for s in ([long] if long is not None else todo)}
            wanted = {s: len(tokens) == len(todo[s]) for s, tokens in batch.items()}
            self._decode(batch, wanted, cancel)
            if on_tokens is not None:
                on_tokens(sum(map(len, batch.values())))
            row = -1
            for sequence, tokens in batch.items():
                row += len(tokens)
                del todo[sequence][: len(tokens)]
                if wanted[sequence]:
                    advance(sequence, self._logits(row))
        return [results[sequence] for sequence in range(len(decodings))]

    def _logits(self, row: int) -> Any:
        pointer = self._llama.llama_get_logits_ith(self._objects.context, row)
        if not pointer:
            raise ScoringError("the model gave no logits: its file may be damaged, verify it")
        logits = np.ctypeslib.as_array(pointer, (self.vocabulary.size,))
        # An extreme of anything that holds a NaN is NaN.
        if not np.isfinite(logits.max()) or np.isnan(logits.min()):
            raise ScoringError("the model gave logits that are no numbers: its file may be damaged, verify it")
        return logits

    def _decode(self, batch: dict[int, list[int]], wanted: dict[int, bool], cancel: Event | None) -> None:
        """Reads the tokens of `batch` by sequence, with logits after the last one of those that are `wanted`."""
        count = sum(map(len, batch.values()))
        for sequence, tokens in batch.items():
            if not tokens or self._positions[sequence] + len(tokens) > self._room or count > BATCH_TOKENS:
                raise ScoringError(
                    f"a window wants {self._positions[sequence] + len(tokens)} tokens and has room for {self._room}: "
                    "take fewer --passage-tokens or a smaller --window"
                )
            if not all(0 <= token < self.vocabulary.size for token in tokens):
                raise ScoringError("a prompt holds a token that the model does not have: verify its file")
        arrays = self._arrays(batch, wanted)
        done = self._call(lambda: self._llama.llama_decode(self._objects.context, arrays), cancel)
        if done == _ABORTED:
            raise Interrupted
        if done != 0:
            raise ScoringError(f"llama.cpp could not read {count} tokens (code {done}): take a smaller --window")
        for sequence, tokens in batch.items():
            self._positions[sequence] += len(tokens)

    def _arrays(self, batch: dict[int, list[int]], wanted: dict[int, bool]) -> Any:
        """The library's own batch; it holds references to its arrays."""
        rows = [(s, token, self._positions[s] + n) for s, tokens in batch.items() for n, token in enumerate(tokens)]
        outputs = [n == len(tokens) - 1 and wanted[s] for s, tokens in batch.items() for n in range(len(tokens))]
        names = {s: (ctypes.c_int32 * 1)(s) for s in batch}
        return self._llama.llama_batch(
            n_tokens=len(rows),
            token=c_array(ctypes.c_int32, [token for _, token, _ in rows]),
            embd=None,
            pos=c_array(ctypes.c_int32, [position for _, _, position in rows]),
            n_seq_id=c_array(ctypes.c_int32, [1] * len(rows)),
            seq_id=c_array(ctypes.POINTER(ctypes.c_int32), [names[s] for s, _, _ in rows]),
            logits=c_array(ctypes.c_int8, outputs),
        )

    def _call(self, job: Callable[[], int], cancel: Event | None) -> int:
        """What `job` returns, in the one thread that calls the library; it stops within a moment when it is not wanted.

        A signal's exception would be lost in the library's callback, so this thread waits for it, and for `cancel`.
        """
        if cancel is not None and cancel.is_set():
            raise Interrupted
        self._stop.clear()
        running: Future[int] = self._caller.submit(job)
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
        """A context with `room` tokens for each of `sequences`, emptied: the one that is there where it is enough."""
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
                raise ModelFileError("llama.cpp does not take this adapter: make it for this model again")
        self._room, self._sequences = room, sequences

    def _load(self, file: GgufFile, device: str, gpu_layers: int | None) -> Any:
        llama = self._llama
        offloads = llama.llama_supports_gpu_offload() and device != "cpu" and gpu_layers != 0
        if not offloads and (device not in ("auto", "cpu") or gpu_layers):
            raise DeviceUnavailable(
                f"this llama-cpp-python was built without a GPU: {GPU_BUILD}"
                if device != "cpu"
                else "device 'cpu' has no place for --gpu-layers"
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
            loaded = self._llama.llama_adapter_lora_init(self._objects.model, os.fsencode(adapter.path))
        if not loaded:  # the library would go on without it, in silence
            reason = first_error(lines, "no reason given")
            raise ModelFileError(f"llama.cpp cannot put the adapter {adapter.path} on this model ({reason})")
        return loaded


def _refuse_unsound(file: GgufFile) -> None:
    """Raises ModelFileError for hyperparameters at which the library ends the process instead of refusing the file."""
    family = str(file.metadata.get("general.architecture"))
    own = {key: value for key, value in file.metadata.items() if key.startswith(f"{family}.")}
    wrong = [
        f"{key} is {value}"
        for key, value in own.items()
        if isinstance(value, float) and (not isfinite(value) or (key.endswith("epsilon") and value <= 0))
    ]
    numbers = [int(name.split(".")[1]) for name in file.tensors if re.match(r"blk\.\d+\.", name)]
    there, stated = max(numbers, default=-1) + 1, own.get(f"{family}.block_count")
    if not isinstance(stated, int) or not 1 <= stated <= there:
        wrong.append(f"{family}.block_count is {stated}, and there are {there} blocks")
    if wrong:
        raise ModelFileError(f"{file.path} is no whole language model ({'; '.join(wrong)}): fetch or export it again")


class Interrupted(Exception):  # not for users: whoever started the work says how far it came
    """The work was stopped because `cancel` was set."""
