"""The worker that runs llama.cpp: `python -m dearlite.export.gguf.worker TASK`, which `call_llama` starts."""

from __future__ import annotations

import ctypes
import os
import re
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dearlite.errors import DearliteError
from dearlite.export.gguf.quants import GGUF_QUANTS
from dearlite.export.quality.worker import call_worker, run_job
from dearlite.llama.bindings import captured_log, first_error, library
from dearlite.machine import peak_memory_mb

_BUFFER_BYTES = 64 * 2**20  # rows quantised at once; the result does not depend on it
_MICRO_BATCH = 64  # tokens at once: the logits of a large vocabulary take half a megabyte per token
_PAGE_DROP_S = 0.1
_DONTNEED = 4  # MADV_DONTNEED of Linux's mman.h


def call_llama(task: str, job: dict[str, Any]) -> Any:
    """The result of an entry of TASKS in a worker. Raises DearliteError if it fails or is killed for its memory."""
    return call_worker("dearlite.export.gguf.worker", task, job, name="llama.cpp")


def tokenise(job: dict[str, Any]) -> dict[str, Any]:
    """{"path", "texts"} -> {"rows"}: the token ids of each text, with the special tokens that the model adds."""
    llama = library()
    model = _load(job["path"], vocab_only=True)
    try:
        vocabulary = llama.llama_model_get_vocab(model)
        return {"rows": [token_ids(vocabulary, text) for text in job["texts"]]}
    finally:
        llama.llama_model_free(model)


def token_ids(vocabulary: Any, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
    """The token ids of `text` in llama.cpp."""
    llama, data = library(), text.encode()
    size = len(data) + 2
    ids = (ctypes.c_int32 * size)()
    count = llama.llama_tokenize(vocabulary, data, len(data), ids, size, add_special, parse_special)
    if count < 0:
        raise DearliteError(f"llama.cpp needs {-count} tokens for a text of {len(data)} bytes: report this")
    return list(ids[:count])


def compare_logits(job: dict[str, Any]) -> dict[str, Any]:
    """{"path", "rows", "positions", "logits"} -> errors and agreement of the file's logits with the reference's.

    Errors are of logits minus their mean, since softmax ignores a constant. `kl` is the divergence of the file's
    distribution from the reference's, in nats per position.
    """
    started = time.perf_counter()
    _drop_pages(job["path"])
    llama, reference = library(), np.load(job["logits"], mmap_mode="r")
    model = _load(job["path"])
    loaded = time.perf_counter()
    context = _context(model, max(map(len, job["rows"])))
    size = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    errors, worst, same, divergence, count = 0.0, 0.0, 0, 0.0, 0
    for row, positions in zip(job["rows"], job["positions"], strict=True):
        if not positions:
            continue
        for logits in _logits(context, row, positions, size):
            expected = np.asarray(reference[count])
            difference = np.abs((logits - logits.mean()) - (expected - expected.mean()))
            errors += float(difference.mean())
            worst = max(worst, float(difference.max()))
            same += int(logits.argmax() == expected.argmax())
            divergence += _kl(expected, logits)
            count += 1
    return {
        "tokens": sum(map(len, job["rows"])),
        "positions": count,
        "mean_error": round(errors / count, 5),
        "max_error": round(worst, 4),
        "argmax_agreement": round(same / count, 4),
        "kl": round(divergence / count, 6),
        "load_s": round(loaded - started, 2),
        "run_s": round(time.perf_counter() - loaded, 2),
        "peak_rss_mb": peak_memory_mb(),
        "cpus": _threads(),
    }


def probe(job: dict[str, Any]) -> dict[str, Any]:
    """{"path", "texts", "row"} -> {"fault"}: a text with an id beyond the model, or a row without finite logits."""
    llama = library()
    model = _load(job["path"])
    vocabulary, row = llama.llama_model_get_vocab(model), job["row"]
    size = llama.llama_vocab_n_tokens(vocabulary)
    for text in job["texts"]:
        if any(number >= size for number in token_ids(vocabulary, text)):
            return {"fault": f"{text[:60]!r} has an id beyond {size} tokens"}
    try:
        finite = all(
            np.isfinite(logits).all() for logits in _logits(_context(model, len(row)), row, [len(row) - 1], size)
        )
    except DearliteError as err:
        return {"fault": str(err)}
    return {"fault": "" if finite else "its logits are not finite"}


def _context(model: Any, tokens: int) -> Any:
    """A context for rows of at most `tokens` tokens."""
    llama = library()
    params = llama.llama_context_default_params()
    params.n_ctx = params.n_batch = max(_MICRO_BATCH, tokens)
    params.n_ubatch = _MICRO_BATCH
    params.n_threads = params.n_threads_batch = _threads()
    with captured_log() as lines:
        context = llama.llama_init_from_model(model, params)
    if not context:
        raise DearliteError(first_error(lines, "llama.cpp cannot make a context: too little memory?"))
    return context


def _logits(context: Any, row: Sequence[int], positions: Sequence[int], size: int) -> Any:
    """The logits of each position, (size,) float32; `row` is alone in the context."""
    llama = library()
    llama.llama_memory_clear(llama.llama_get_memory(context), True)
    batch = llama.llama_batch_init(len(row), 0, 1)
    of_interest = set(positions)
    for n, token in enumerate(row):
        batch.token[n], batch.pos[n], batch.n_seq_id[n], batch.seq_id[n][0] = token, n, 1, 0
        batch.logits[n] = n in of_interest
    batch.n_tokens = len(row)
    try:
        with captured_log() as lines:
            status = llama.llama_decode(context, batch)
        if status:
            raise DearliteError(first_error(lines, f"llama_decode returned {status}"))
        for n in positions:
            yield np.ctypeslib.as_array(llama.llama_get_logits_ith(context, n), (size,))
    finally:
        llama.llama_batch_free(batch)


def _kl(reference: Any, logits: Any) -> float:
    """Kullback-Leibler divergence of softmax(logits) from softmax(reference), in nats."""
    p, q = (x.astype(np.float64) - float(x.max()) for x in (reference, logits))
    p, q = (x - np.log(np.exp(x).sum()) for x in (p, q))
    return float((np.exp(p) * (p - q)).sum())


def quantise(job: dict[str, Any]) -> dict[str, Any]:
    """{"path", "output", "quant", "buffer_bytes" (optional)} -> {"peak_rss_mb"}: writes `output` in type `quant`.

    Both files lie in one folder, which becomes the worker's working directory: on Windows llama.cpp opens the output by
    a name in the code page, in which the folder's name may have no letters.
    """
    llama = library()
    folder, names = Path(job["output"]).parent, [Path(job[name]).name for name in ("path", "output")]
    assert Path(job["path"]).parent == folder, "the folder is left out of both names"
    params = llama.llama_model_quantize_default_params()
    params.ftype, params.nthread = GGUF_QUANTS[job["quant"]].file_type, _threads()
    # llama-cpp-python before 0.3.3x lacks this field: it holds a whole tensor instead.
    if any(name == "max_buf_size" for name, _ in params._fields_):
        params.max_buf_size = job.get("buffer_bytes", _BUFFER_BYTES)
    _drop_pages(os.path.realpath(job["path"]))
    os.chdir(folder)
    with captured_log() as lines:
        status = llama.llama_model_quantize(*(name.encode() for name in names), ctypes.byref(params))
    if status:
        raise DearliteError(first_error(lines, f"llama_model_quantize returned {status}"))
    return {"peak_rss_mb": peak_memory_mb()}


def _drop_pages(path: str) -> None:
    """Starts a thread that releases the pages of `path` that the library has read, ten times a second (Linux).

    The pages stay in the system's cache. Otherwise the whole file counts as memory of the process.
    """
    if sys.platform.startswith("linux"):
        threading.Thread(target=_drop_pages_forever, args=(path,), daemon=True).start()


def _drop_pages_forever(path: str) -> None:
    libc, real = ctypes.CDLL(None, use_errno=True), os.path.realpath(path)
    mapping = re.compile(rf"([0-9a-f]+)-([0-9a-f]+) r\S* .*{re.escape(real)}$")
    while True:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
            for match in filter(None, (mapping.match(line.rstrip("\n")) for line in lines)):
                start, stop = int(match[1], 16), int(match[2], 16)
                libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), _DONTNEED)
        time.sleep(_PAGE_DROP_S)


def _load(path: str, *, vocab_only: bool = False) -> Any:
    llama = library()
    params = llama.llama_model_default_params()
    params.vocab_only, params.n_gpu_layers = vocab_only, 0
    if hasattr(params, "use_extra_bufts"):
        params.use_extra_bufts = False  # weights rearranged for speed would be a second copy
    with captured_log() as lines:
        model = llama.llama_model_load_from_file(path.encode(), params)
    if not model:
        raise DearliteError(first_error(lines, f"llama.cpp cannot load {path}"))
    return model


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


TASKS = {"tokenise": tokenise, "compare": compare_logits, "probe": probe, "quantise": quantise}

if __name__ == "__main__":
    run_job(TASKS[sys.argv[1]])
