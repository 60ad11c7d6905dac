"""How far a piece of work is, told only when it has moved."""

from __future__ import annotations

from dearlite.api import Progress


class Meter:
    """Counts documents up to `total`, and tells `progress` of each new count."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self._progress = 0, total, progress

    def reach(self, done: int) -> None:
        """`done` documents, those of before among them."""
        if done != self.done:
            self.done = done
            if self._progress is not None:
                self._progress(done, self.total)
