"""The time limit of a call, and the caller's event. Work checks them between batches and decode steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from dearlite.errors import UsageError


class TimedEvent(Event):
    """An event that is set when a deadline passes; `left_s()` gives the seconds until then."""

    def __init__(self, left_s: Callable[[], float]) -> None:
        super().__init__()
        self.left_s = left_s


class Deadline:
    """The end of an anytime call: `budget_s` seconds from now, or earlier, when `cancel` is set."""

    def __init__(self, budget_s: float, cancel: Event | None = None) -> None:
        """Starts the clock. Raises UsageError for a wrong `budget_s`."""
        self.budget_s = check_budget(budget_s)
        self._end = time.perf_counter() + self.budget_s
        self._cancel = cancel

    @property
    def left_s(self) -> float:
        """Seconds left, 0 when the deadline has passed."""
        if self._cancel is not None and self._cancel.is_set():
            return 0.0
        return max(0.0, self._end - time.perf_counter())

    @property
    def over(self) -> bool:
        """True if work must stop."""
        return self.left_s <= 0.0

    @property
    def timed_out(self) -> bool:
        """True if the time itself is over; the event does not count."""
        return time.perf_counter() >= self._end

    @contextmanager
    def as_event(self) -> Iterator[TimedEvent]:
        """An event that is set when the deadline passes, for work that checks an event."""
        stop, done = TimedEvent(lambda: self.left_s), Event()

        def watch() -> None:
            while not done.is_set():
                if self.over:
                    stop.set()
                    return
                wait_s = min(self.left_s, 0.02) if self._cancel is not None else self.left_s
                done.wait(min(wait_s, 3600.0))

        watcher = Thread(target=watch, name="dearlite-deadline", daemon=True)
        watcher.start()
        try:
            yield stop
        finally:
            done.set()
            watcher.join()


def check_budget(budget_s: float) -> float:
    """`budget_s` as a float, infinity for no limit. Raises UsageError unless it is a number of seconds above 0."""
    number = isinstance(budget_s, (int, float)) and not isinstance(budget_s, bool)
    if not number or math.isnan(budget_s) or budget_s <= 0:
        raise UsageError(f"the budget is {budget_s!r}: it must be a number of seconds above 0")
    return float(budget_s)
