"""What to do when memory runs out: less at once, said once, until not even one document fits."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable
from typing import TypeVar

from dearlite.errors import OutOfMemory

_BATCH_TOKENS = 32_768
# What ONNX Runtime's arenas, CUDA's libraries and C++ say. They come as several exceptions without a common base.
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
    """Whether `err`, of whatever library, says that memory could not be had."""
    return isinstance(err, MemoryError) or any(sign in str(err).lower() for sign in _SIGNS)


class MemoryLimits:
    """How much of the work fits in memory at once, as found out so far. Shared by all threads that score."""

    def __init__(self) -> None:
        self.batch_tokens = _BATCH_TOKENS  # of a rectangle, padding included
        self._calls: float = math.inf  # how many may run at once
        self._running = 0
        self._said = False
        self._change = threading.Condition()

    def call(self, job: Callable[[], Result]) -> Result:
        """What `job` returns. Out of memory, it is called again with half as many others beside it.

        Raises OutOfMemory when it fails alone.
        """
        while True:
            with self._change:
                self._change.wait_for(lambda: self._running < self._calls)
                self._running += 1
                alone = self._calls == 1  # those that were let in before may have failed side by side
            try:
                return job()
            except Exception as err:
                if not ran_out_of_memory(err):
                    raise
                if alone:
                    raise OutOfMemory(_message("one document at a time")) from err
                with self._change:
                    others = self._running > 1
                    self._calls = max(1, min(self._calls, self._running) // 2)
                if others:
                    self._say(f"{self._calls:.0f} at a time")
            finally:
                with self._change:
                    self._running -= 1
                    self._change.notify_all()

    def shrink_batch(self, err: Exception, rows: int, tokens: int) -> None:
        """Halves the rectangle that did not fit: `rows` rows of `tokens` each. Raises OutOfMemory for a single row."""
        if rows == 1:
            raise OutOfMemory(_message(f"one document of {tokens} tokens")) from err
        self.batch_tokens = max(1, min(self.batch_tokens, rows * tokens) // 2)
        self._say(f"{self.batch_tokens} tokens at a time")

    def _say(self, how_many: str) -> None:
        if not self._said:
            self._said = True
            warnings.warn(f"memory ran out: going on with {how_many}, or fewer", stacklevel=2)


def _message(what: str) -> str:
    return f"memory ran out with {what}: close other programs, or take a smaller model (`dearlite models` lists them)"
