"""The rates of ONNX Runtime on this machine's CPU: int8 products of three widths, and the rest of the embedded model.

Every thread works while a rate is measured, and processor seconds are counted: other work on the machine matters
little.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from dearlite.models.bundle import Bundle
from dearlite.models.registry import DEFAULT_MODEL, find_model, load_registry
from dearlite.pointwise.bench import operations
from dearlite.pointwise.engine import OnnxBackend
from dearlite.pointwise.kernels import open_product
from dearlite.pointwise.tokens import TokenRow
from dearlite.recommend.rates import OnnxRates

_WIDTHS = (256, 1024, 3072)
_ROWS = 128
_PRODUCT_S = 0.02  # least duration of a measured product
_LENGTHS = (64, 256)  # tokens of the embedded model's rows
_REPEATS = 3


def probe_onnx(threads: int) -> OnnxRates:
    """The rates with `threads` threads, from the shortest of some repetitions. Raises MissingExtra."""
    entry, bundle = load_registry()[DEFAULT_MODEL], Bundle(find_model(DEFAULT_MODEL))
    assert entry.layers is not None and entry.hidden is not None
    backend = OnnxBackend(bundle, device="cpu", threads=threads)
    jobs = {width: _products(width, threads) for width in _WIDTHS}
    rows = {tokens: _rows(backend, tokens) for tokens in _LENGTHS}
    product_s, row_s = dict.fromkeys(jobs, math.inf), dict.fromkeys(rows, math.inf)
    for _ in range(_REPEATS):  # in turn: a disturbance then reaches all of them
        for best, measures in ((product_s, jobs), (row_s, rows)):
            for key, measure in measures.items():
                best[key] = min(best[key], measure())
    backend.close()
    rates = OnnxRates({width: 1 / seconds for width, seconds in product_s.items()}, 0.0, 0.0)
    rests = []
    for tokens, seconds in row_s.items():
        count = operations(bundle.manifest, backend.build, tokens, 1)
        rest = seconds - count / rates.operations_per_s(entry.hidden)
        rests.append(rest / (tokens * entry.layers * entry.hidden))
    (short, long), (fast_s, slow_s) = _LENGTHS, rests
    pair_s = max(0.0, (slow_s - fast_s) / (long - short))
    return OnnxRates(rates.products, max(0.0, fast_s - short * pair_s), pair_s)


def _rows(backend: OnnxBackend, tokens: int) -> Callable[[], float]:
    """A measurement: processor seconds of a row of `tokens` tokens while every thread has one."""
    random = np.random.default_rng(0)
    ids = random.integers(1000, 20_000, (backend.threads, tokens), np.int64)  # whole words of the vocabulary
    rows = [TokenRow(row, np.zeros_like(row), tokens) for row in ids]

    def measure() -> float:
        start = time.process_time()
        list(backend.score(rows))
        return (time.process_time() - start) / len(rows)

    return measure


def _products(width: int, threads: int) -> Callable[[], float]:
    """A measurement: processor seconds of an addition or multiplication in products (_ROWS, width) x (width, width)."""
    session, values = _product(width)
    feeds = {"a": values}
    repetitions = max(1, round(_PRODUCT_S / max(_processor_s(session, feeds, 1, threads), 1e-5)))

    def measure() -> float:
        return _processor_s(session, feeds, repetitions, threads) / (2 * _ROWS * width * width * repetitions)

    return measure


def _processor_s(session: Any, feeds: dict[str, Any], repetitions: int, threads: int) -> float:
    """Processor seconds per thread for `repetitions` calls in each."""

    def repeat(_: int) -> None:
        for _ in range(repetitions):
            session.run(None, feeds)

    with ThreadPoolExecutor(threads) as pool:
        start = time.process_time()
        list(pool.map(repeat, range(threads)))
        return (time.process_time() - start) / threads


def _product(width: int) -> tuple[Any, Any]:
    """A session of one u8 x s8 product with a square matrix, and its first factor."""
    return open_product(np.full((width, width), 2, np.int8)), np.full((_ROWS, width), 3, np.uint8)
