"""Progress of a call: the callback that callers pass in, and a counter that calls it when the count moves."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

_LINE_S = 0.5

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


def line_progress(what: str = "pairs") -> Callable[[int, int], None]:
    """A progress callback that rewrites one line of stderr twice a second: it works in notebooks, too."""
    start, before, written = time.perf_counter(), -1, 0.0

    def update(done: int, total: int) -> None:
        nonlocal before, written
        before, now = done if before < 0 else before, time.perf_counter()
        if now - written < _LINE_S and done < total:
            return
        written = now
        rate = (done - before) / (now - start)
        left = f", {(total - done) / rate:,.0f} s left" if rate and done < total else ""
        end = "\n" if done >= total else ""
        sys.stderr.write(f"\r\x1b[K{done:,} of {total:,} {what}, {rate:,.{0 if rate >= 10 else 2}f}/s{left}{end}")
        sys.stderr.flush()

    return update
