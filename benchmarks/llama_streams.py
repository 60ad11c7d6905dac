"""Decode rate of bare llama.cpp, without dearlite's engine: by tokens per call, and of eight sequences.

    python benchmarks/llama_streams.py MODEL.gguf [--threads 2]

These rates bound the gain of decoding several queries together. Tokens per second, medians of five. GOMP_SPINCOUNT sets
how long threads spin; dearlite sets it to 0.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from dearlite.llama.bindings import c_array, library

_PREFIX, _STEPS, _TOGETHER, _ROUNDS = 256, 32, 8, 5
Row = tuple[int, int, int, bool]  # token, sequence, position, True if its logits are computed


def main() -> None:
    """Prints one line per row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a .gguf file")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    llama = library()
    params = llama.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama.llama_model_load_from_file(os.fsencode(args.model), params)
    if not model:
        raise SystemExit(f"llama.cpp cannot load {args.model}")
    auto, off = llama.LLAMA_FLASH_ATTN_TYPE_AUTO, llama.LLAMA_FLASH_ATTN_TYPE_DISABLED

    def decode(sequences: int, unified: bool, flash: int) -> float:
        context = _context(llama, model, args.threads, sequences, unified, flash)
        for sequence in range(sequences):
            _read(llama, context, [(17 + n, sequence, n, n == _PREFIX - 1) for n in range(_PREFIX)])
        start = time.perf_counter()
        for step in range(_STEPS):
            _read(llama, context, [(17 + step, sequence, _PREFIX + step, True) for sequence in range(sequences)])
        seconds = time.perf_counter() - start
        llama.llama_free(context)
        return sequences * _STEPS / seconds

    def call(tokens: int) -> float:
        context = _context(llama, model, args.threads, 1, False, auto)
        rows = [(17 + n, 0, n, n == tokens - 1) for n in range(tokens)]
        _read(llama, context, rows)  # the first call is the warm-up
        llama.llama_memory_clear(llama.llama_get_memory(context), False)
        start = time.perf_counter()
        _read(llama, context, rows)
        seconds = time.perf_counter() - start
        llama.llama_free(context)
        return tokens / seconds

    for tokens in (1, 4, 8, 16, 32, 128, 512):
        _print(f"a call of {tokens}, one with logits", lambda tokens=tokens: call(tokens))
    _print("1 sequence", lambda: decode(1, False, auto))
    _print("8 sequences, one stream each", lambda: decode(_TOGETHER, False, auto))
    _print("8 sequences, one stream", lambda: decode(_TOGETHER, True, auto))
    _print("8 sequences, one stream each, no flash attention", lambda: decode(_TOGETHER, False, off))


def _print(name: str, measure: Callable[[], float]) -> None:
    print(f"{name:<48} {statistics.median(measure() for _ in range(_ROUNDS)):8.1f} tokens/s", flush=True)


def _context(llama: Any, model: Any, threads: int, sequences: int, unified: bool, flash: int) -> Any:
    params = llama.llama_context_default_params()
    params.n_ctx, params.n_seq_max, params.kv_unified = 1024 * sequences, sequences, unified
    params.n_batch = params.n_ubatch = 512
    params.n_threads = params.n_threads_batch = threads
    params.flash_attn_type, params.no_perf = flash, True
    return llama.llama_init_from_model(model, params)


def _read(llama: Any, context: Any, rows: Sequence[Row]) -> None:
    numbers = {sequence: (ctypes.c_int32 * 1)(sequence) for _, sequence, _, _ in rows}
    batch = llama.llama_batch(
        n_tokens=len(rows),
        token=c_array(ctypes.c_int32, [row[0] for row in rows]),
        embd=None,
        pos=c_array(ctypes.c_int32, [row[2] for row in rows]),
        n_seq_id=c_array(ctypes.c_int32, [1] * len(rows)),
        seq_id=c_array(ctypes.POINTER(ctypes.c_int32), [numbers[row[1]] for row in rows]),
        logits=c_array(ctypes.c_int8, [row[3] for row in rows]),
    )
    if llama.llama_decode(context, batch):
        raise SystemExit("llama_decode failed")
    llama.llama_get_logits_ith(context, len(rows) - 1)


if __name__ == "__main__":
    main()
