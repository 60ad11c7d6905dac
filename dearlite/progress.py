"""Progress of a call: the type of the callback, a counter that calls it, and callbacks that show it on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

from dearlite.errors import UsageError

_LINE_S = 0.5  # minimum time between two lines

Progress = Callable[[int, int], None]  # (done, total)


@contextmanager
def shown(progress: Progress | bool | None, unit: str = "documents") -> Iterator[Progress | None]:
    """The callback for a `progress` argument, within the call that it shows; None for none.

    True is a bar on stderr if that is a terminal, after one second, and a line elsewhere, in a notebook too. `unit` is
    the plural noun of the counted things.
    """
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise UsageError(f"progress is {progress!r}: it must be True, or a function that is called with (done, total)")
    if progress is not True:
        yield progress or None
    elif sys.stderr is not None and sys.stderr.isatty():
        with import_module("dearlite.render.bar").DocumentProgress(0, visible=True, unit=unit) as bar:
            yield bar.update
    else:
        yield line_progress(unit)


class Meter:
    """A count of documents up to `total` that calls `progress` whenever it changes."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self._progress = 0, total, progress

    def reach(self, done: int) -> None:
        """Sets the count to `done`."""
        if done != self.done:
            self.done = done
            if self._progress is not None:
                self._progress(done, self.total)


def line_progress(what: str = "pairs") -> Callable[[int, int], None]:
    """A progress callback that rewrites a line on stderr at most twice a second, in notebooks too.

    `what` is the plural noun of the counted things. The count of the first call was done before and is not part of the
    rate.
    """
    start, before, written = time.perf_counter(), -1, 0.0

    def update(done: int, total: int) -> None:
        nonlocal before, written
        before, now = done if before < 0 else before, time.perf_counter()
        if sys.stderr is None or (now - written < _LINE_S and done < total):  # None: a service, pythonw
            return
        written = now
        rate = (done - before) / (now - start)
        left = f", {(total - done) / rate:,.0f} s left" if rate and done < total else ""
        end = "\n" if done >= total else ""
        sys.stderr.write(f"\r\x1b[K{done:,} of {total:,} {what}, {rate:,.{0 if rate >= 10 else 2}f}/s{left}{end}")
        sys.stderr.flush()

    return update


def part_of(progress: Progress | None, number: int, of: int) -> Progress | None:
    """A progress callback for part `number` of `of` equal parts; it calls `progress` with the counts of all parts."""
    if progress is None or of == 1:
        return progress
    return lambda done, total: progress(number * total + done, of * total)
