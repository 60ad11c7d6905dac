"""Signals that end a command: it cleans up as after Ctrl-C, and then ends by the signal, as its parent expects."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dearlite.files.drafts import remove_own

# SIGHUP: the terminal is closed. Windows ends a process without asking it.
_SIGNALS = () if sys.platform == "win32" else (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ending_by_signal() -> Iterator[None]:
    """Within the block, SIGTERM and SIGHUP raise SystemExit, and end the process after it; a second one does at once.

    A signal that the caller ignores (nohup) or handles is left alone.
    """
    received: list[int] = []

    def end(number: int, _: Any) -> None:
        received.append(number)
        for other in taken:
            signal.signal(other, signal.SIG_DFL)
        raise SystemExit(128 + number)

    is_main = threading.current_thread() is threading.main_thread()
    taken = [number for number in _SIGNALS if is_main and signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
        if received:
            remove_own()
            os.kill(os.getpid(), received[0])
