"""A progress bar on stderr for work that takes long; short work never shows it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

_SHOW_AFTER_S = 1.0
_REFRESH_S = 0.1


class DocumentProgress:
    """Counts documents; draws rate and time left once the work has taken a second, on a terminal only."""

    def __init__(self, total: int, *, visible: bool, what: str = "documents") -> None:
        self.total, self.done = total, 0
        self._what = what
        self._before = 0  # what was there already when the first was told: no part of the rate
        self._visible = visible and sys.stderr.isatty()
        self._start = self._drawn = 0.0  # both count from the first document: loading a model is not reranking
        self._bar: Progress | None = None

    def __enter__(self) -> DocumentProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, done: int, total: int) -> None:
        """Takes the count; the signature of `rerank`'s progress callback."""
        self.done, now = done, time.perf_counter()
        if not self._start:
            self._start, self._before = now, max(0, done - 1)
        if not self._visible or now - self._start < _SHOW_AFTER_S or now - self._drawn < _REFRESH_S:
            return
        self._drawn = now
        if self._bar is None:
            self._bar = _bar(total)
        rate = (done - self._before) / (now - self._start)
        self._bar.update(
            self._bar.task_ids[0], completed=done, rate=f"{rate:,.{0 if rate >= 10 else 2}f} {self._what}/s"
        )

    def close(self) -> None:
        """Takes the bar off the screen."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _bar(total: int) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task("reranking", total=total, rate="")
    bar.start()
    return bar
