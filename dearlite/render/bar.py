"""A progress bar on stderr, shown only for work of more than a second."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

_SHOW_AFTER_S = 1.0
_REFRESH_S = 0.1


class DocumentProgress:
    """A progress bar with rate and time left, a context manager. It is drawn on a terminal only, after one second."""

    def __init__(self, total: int, *, visible: bool, unit: str = "documents") -> None:
        self.total, self.done = total, 0
        self._unit = unit
        self._before = 0  # documents done before the first update; they do not count for the rate
        self._visible = visible and sys.stderr is not None and sys.stderr.isatty()
        self._start = self._drawn = 0.0  # from the first document: the time to load a model does not count
        self._bar: Progress | None = None

    def __enter__(self) -> DocumentProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, done: int, total: int) -> None:
        """Sets the count and redraws the bar; the signature is that of `rerank`'s progress callback."""
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
            self._bar.task_ids[0], completed=done, rate=f"{rate:,.{0 if rate >= 10 else 2}f} {self._unit}/s"
        )

    def close(self) -> None:
        """Removes the bar from the screen."""
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
