"""Progress of a call: the callback that callers pass in, and a counter that calls it when the count moves."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]  # (done, total)


class Meter:
    """Counts documents up to `total` and tells `progress` of each new count."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self._progress = 0, total, progress

    def reach(self, done: int) -> None:
        """Sets the count to `done`."""
        if done != self.done:
            self.done = done
            if self._progress is not None:
                self._progress(done, self.total)
