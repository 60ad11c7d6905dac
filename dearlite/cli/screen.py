"""A ranking on a terminal: as many documents as fit, a pager for more, and the ranking so far after Ctrl-C."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from threading import Event
from typing import Any

from dearlite.ranking import Ranking

BEST = 10  # documents that a terminal shows unless the caller names a number
_LEAST = 3  # with fewer, the texts are shortened to a line each
_BESIDE = 2  # lines beside the table: the speed of the call, and the next prompt
_PAGER_OPTIONS = "FRX"  # of less, as git sets them: leave if all fits, pass colours, keep the text on the screen


def on_terminal(form: str, output: str | None) -> bool:
    """True if a result in the format `form` is a table on a terminal."""
    return form == "table" and output in (None, "-") and sys.stdout is not None and sys.stdout.isatty()


def show_rankings(rankings: Sequence[Ranking], *, every: bool, pager: bool, remarks: Sequence[str] = ()) -> None:
    """Prints `rankings` on the terminal: the best documents of each that fit, or `every` one.

    `remarks` are the lines that stderr has before. A text that is longer than the terminal goes to the `pager`.
    """
    from dearlite.render.table import ranking_text

    lines = shutil.get_terminal_size().lines
    if every or len(rankings) > 1:
        texts = [ranking_text(r, sys.stdout) if every else _best(r, min(_LEAST, len(r))) for r in rankings]
        text = "\n".join(texts)
    else:
        text = _fitting(rankings[0], lines - _beside(remarks))
    if not (pager and text.count("\n") >= lines and page(text)):
        _write(text)


def _beside(remarks: Sequence[str]) -> int:
    """Lines of the terminal beside the table: the prompt, and the `remarks` as the terminal breaks them."""
    if not sys.stderr.isatty():
        return _BESIDE
    columns = max(1, shutil.get_terminal_size().columns)
    return max(_BESIDE, 1 + sum(max(1, -(-len(remark) // columns)) for remark in remarks))


def _fitting(ranking: Ranking, lines: int) -> str:
    """The table of the best documents of which `lines` are enough, at most BEST; the shortest of three without any.

    Where three do not fit, the texts are a line each, and where that is not enough, there are fewer documents.
    """
    least, most = min(_LEAST, len(ranking)), min(BEST, len(ranking))
    sizes = [(count, short) for short in (False, True) for count in range(most, least - 1, -1)]
    sizes += [(count, True) for count in range(least - 1, 0, -1)]
    for count, short in sizes:
        text = _best(ranking, count, short=short)
        if text.count("\n") <= lines:
            return text
    return _best(ranking, least, short=True)


def _best(ranking: Ranking, count: int, *, short: bool = False) -> str:
    """The table of the first `count` hits, with the options that show more."""
    from dearlite.render.table import ranking_text

    left, more = len(ranking) - count, min(len(ranking), 2 * BEST)
    note = f"{left:,} more: -k {more}, or --all" if left > 0 else ""
    return ranking_text(ranking.top(max(1, count)), sys.stdout, note, short=short)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


class _Kept(io.StringIO):
    """Text for the terminal, kept until it is complete."""

    def isatty(self) -> bool:
        return True


@contextmanager
def paged() -> Iterator[None]:
    """The output of the block goes to the pager if stdout is a terminal with fewer lines."""
    if sys.stdout is None or not sys.stdout.isatty():
        yield
        return
    with redirect_stdout(_Kept()) as kept:
        yield
    text = kept.getvalue()
    if not (text.count("\n") >= shutil.get_terminal_size().lines and page(text)):
        _write(text)


def page(text: str) -> bool:
    """Shows `text` with the pager of the variable PAGER, else `less`. False if there is none, or if it fails at once.

    An empty PAGER and `cat` are none.
    """
    command = shlex.split(os.environ.get("PAGER", "less"), posix=os.name == "posix")
    program = shutil.which(command[0]) if command and command != ["cat"] else None
    if program is None or os.environ.get("TERM") == "dumb":
        return False
    sys.stdout.flush()
    environment = {"LESS": _PAGER_OPTIONS, "LESSCHARSET": "utf-8"} | os.environ
    try:
        pager = subprocess.Popen([program, *command[1:]], stdin=subprocess.PIPE, env=environment)
    except OSError:
        return False
    assert pager.stdin is not None
    with suppress(BrokenPipeError, KeyboardInterrupt):  # the reader has left before the end
        pager.stdin.write(text.encode("utf-8", "replace"))
    with suppress(BrokenPipeError, KeyboardInterrupt):
        pager.stdin.close()
    while True:
        try:
            return pager.wait() not in (126, 127)
        except KeyboardInterrupt:  # it is the pager's
            continue


@contextmanager
def interrupt_as_event(*, active: bool) -> Iterator[Event | None]:
    """An event that the first Ctrl-C sets; the second one interrupts as usual. None unless `active`."""
    if not active or threading.current_thread() is not threading.main_thread():
        yield None
        return
    stop = Event()

    def interrupt(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, before)
        stop.set()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
