"""Retries after out-of-memory with half the concurrency or batch; warns once.

Raises OutOfMemory when a single document does not fit.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import TypeVar

from dearlite.errors import EngineError, OutOfMemory, warn

_BATCH_TOKENS = 32_768
# Messages of ONNX Runtime's arenas, CUDA's libraries and C++. The exceptions have no common base class.
_SIGNS = (
    "bad_alloc",
    "bad allocation",
    "failed to allocate",
    "out of memory",
    "alloc_failed",
    "smaller than requested bytes",
)
Result = TypeVar("Result")


def ran_out_of_memory(err: BaseException) -> bool:
    """True if `err`, raised by any of the libraries, reports a failed allocation."""
    cause = err.__cause__ if isinstance(err, EngineError) and err.__cause__ is not None else err
    return isinstance(cause, MemoryError) or any(sign in str(cause).lower() for sign in _SIGNS)


class MemoryLimits:
    """Concurrency and batch size that fit in memory, lowered on failure. Shared by all threads that score."""

    def __init__(self) -> None:
        self.batch_tokens = _BATCH_TOKENS  # of one padded batch, padding included
        self._most_calls: float = math.inf
        self._running = 0
        self._warned = False
        self._change = threading.Condition()

    def call(self, job: Callable[[], Result]) -> Result:
        """The result of `job`. When memory runs out, the limit on concurrent calls is halved and the job is repeated.

        Raises OutOfMemory when the job fails alone.
        """
        while True:
            with self._change:
                self._change.wait_for(lambda: self._running < self._most_calls)
                self._running += 1
                # Read here and not after the failure: jobs started before the limit fell failed side by side.
                alone = self._most_calls == 1
            try:
                return job()
            except Exception as err:
                if not ran_out_of_memory(err):
                    raise
                if alone:
                    raise OutOfMemory(_message("one document at a time")) from err
                with self._change:
                    concurrent = self._running > 1
                    self._most_calls = max(1, min(self._most_calls, self._running) // 2)
                if concurrent:
                    self._warn(f"{self._most_calls:.0f} at a time")
            finally:
                with self._change:
                    self._running -= 1
                    self._change.notify_all()

    def shrink_batch(self, err: Exception, rows: int, tokens: int) -> None:
        """Halves the batch size after a batch of `rows` rows of `tokens` tokens failed.

        Raises OutOfMemory for a single row.
        """
        if rows == 1:
            raise OutOfMemory(_message(f"one document of {tokens} tokens")) from err
        self.batch_tokens = max(1, min(self.batch_tokens, rows * tokens) // 2)
        self._warn(f"{self.batch_tokens} tokens at a time")

    def _warn(self, limit: str) -> None:
        """Warns once, at the first failure; later limits are lower."""
        if not self._warned:
            self._warned = True
            warn(f"memory ran out: continuing with {limit}, or fewer")


def _message(work: str) -> str:
    return f"memory ran out with {work}: close other programs, or take a smaller model (`dearlite models` lists them)"
