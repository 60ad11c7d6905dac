"""Turns of the requests at one model: each computes for a slice of time, then the one that waits longest goes on.

A request pauses between two documents, in the thread that runs it. Its call of the library stays as it is, so that no
score depends on the requests beside it, and a small request does not wait for the end of a large one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock

from dearlite.errors import Cancelled

_SLICE_S = 0.05


class Turns:
    """The requests at one model: the one that runs, and those that wait, in order."""

    def __init__(self, slice_s: float = _SLICE_S) -> None:
        self.slice_s = slice_s
        self.lock = Lock()
        self.running: Turn | None = None
        self.waiting: deque[Turn] = deque()

    def next(self) -> None:
        """Gives the turn to the request that waits longest; call it with the lock held."""
        self.running = self.waiting.popleft() if self.waiting else None
        if self.running is not None:
            self.running.start()


class Turn:
    """The place of one request in the order. `cancel` is the event that ends its work."""

    def __init__(self, turns: Turns) -> None:
        self._turns, self._wake, self._started = turns, Event(), 0.0
        self.cancel = Event()

    def start(self) -> None:
        """Begins a slice of time; called by `Turns`, with its lock held."""
        self._started = time.perf_counter()
        self._wake.set()

    def stop(self) -> None:
        """Ends the work of the request, from any thread: a wait ends at once, a computation after its document."""
        self.cancel.set()
        self._wake.set()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Waits for the turn, and gives it back after the block. Raises Cancelled if the request was stopped."""
        self._wait()
        try:
            if self.cancel.is_set():
                raise Cancelled(0, 0)
            yield
        finally:
            self._leave()

    def pause(self) -> None:
        """Lets the others have a slice of time each if this request's is over. Called between two documents."""
        turns = self._turns
        if not turns.waiting or time.perf_counter() - self._started < turns.slice_s:
            return
        if not self.cancel.is_set():
            self._leave()
            self._wait()

    def _wait(self) -> None:
        """Returns when the request has the turn, or is stopped."""
        turns = self._turns
        with turns.lock:
            self._wake.clear()
            if self.cancel.is_set():
                return
            turns.waiting.append(self)
            if turns.running is None:
                turns.next()
        self._wake.wait()

    def _leave(self) -> None:
        turns = self._turns
        with turns.lock:
            if turns.running is self:
                turns.next()
            elif self in turns.waiting:
                turns.waiting.remove(self)
