"""Waits for states: what happens in its own time (the end of a thread, a notice) is awaited, not expected at once.

A busy machine may stand still for seconds between any two lines of a test, so no test asserts a time of its own.
"""

import asyncio
import time

WITHIN_S = 120  # far more than any of these takes on a slow machine: only a test that fails waits so long
_POLL_S = 0.01


def eventually(check, within_s=WITHIN_S, every_s=_POLL_S):
    """The first true value of `check()`, called `every_s`. Raises AssertionError if it has none `within_s`."""
    end = time.monotonic() + within_s
    while True:
        late = time.monotonic() > end  # before the check: the machine may stand still after it
        if value := check():
            return value
        assert not late, f"not reached within {within_s} s"
        time.sleep(every_s)


async def eventually_in_loop(check, within_s=WITHIN_S):
    """As `eventually`, while the event loop goes on."""
    end = time.monotonic() + within_s
    while True:
        late = time.monotonic() > end
        if value := check():
            return value
        assert not late, f"not reached within {within_s} s"
        await asyncio.sleep(_POLL_S)


def join(*threads):
    """Waits for the end of threads."""
    for thread in threads:
        thread.join(WITHIN_S)
        assert not thread.is_alive(), f"{thread.name} goes on"


class Clock:
    """A stand-in for the module `time` of a module under test: its time goes on only where a test says so."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
