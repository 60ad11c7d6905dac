"""The log of a server on stderr, written by a thread: a parent that does not read its pipe does not stop the server."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from queue import Full, Queue
from threading import Thread
from typing import Any

_KEPT_LINES = 1000  # that wait for a slow reader; further ones are counted
_END_STEPS, _END_STEP_S = 200, 0.005  # waits for the lines that are left at the end


class StderrLog(logging.Handler):
    """A handler whose lines wait for the reader of `stream` in a thread. The number of lost lines is written too."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream
        self._lines: Queue[str] = Queue(_KEPT_LINES)
        self._lost = 0
        Thread(target=self._write, name="dearlite-log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Adds a line; never waits."""
        try:
            self._lines.put_nowait(self.format(record))
        except Full:
            self._lost += 1

    def flush(self) -> None:
        """Waits until the lines are written, for a second of its own at most: a machine may stand still meanwhile."""
        for _ in range(_END_STEPS):
            if not self._lines.unfinished_tasks:
                return
            time.sleep(_END_STEP_S)

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            self.acquire()
            lost, self._lost = self._lost, 0
            self.release()
            if lost:
                line += f"\ndearlite: {lost} further lines were lost: nobody read them"
            with suppress(OSError, ValueError):
                self._put(line + "\n")
            self._lines.task_done()

    def _put(self, text: str) -> None:
        """Writes a text without the lock of Python's stream: the end of the process would wait for it."""
        try:
            descriptor = self._stream.fileno()
        except (OSError, ValueError, AttributeError):
            self._stream.write(text)
            return
        data = text.encode(errors="backslashreplace")
        while data:
            data = data[os.write(descriptor, data) :]


def log_to_stderr(names: Iterable[str], *, form: str, level: int) -> None:
    """Writes what the loggers `names` say from `level` on to stderr, in lines like `form`."""
    handler = StderrLog(sys.stderr)
    handler.setFormatter(logging.Formatter(form, "%H:%M:%S"))
    for name in names:
        logger = logging.getLogger(name)
        for former in logger.handlers:
            former.close()
        logger.handlers[:], logger.propagate = [handler], False
        logger.setLevel(level)
