"""One process per system: it loads the system once, then runs one round per request. Prints nothing.

Processes live on between rounds, so that rounds can be interleaved while each system has its own memory. Only one
process works at a time.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from measure import peak_rss_mb
from systems import PIP_NAMES, SYSTEMS, Score, Work


@dataclass(frozen=True, slots=True)
class Round:
    """One pass over the work: seconds, the scores in order, and the process's peak memory so far."""

    elapsed_s: float
    scores: list[float]
    peak_rss_mb: float


class SystemFailed(Exception):
    """The system could not be loaded or did not finish; the message has the reason."""


class Worker:
    """A system in a separate process."""

    def __init__(self, key: str, setting: Any, load: Callable[[Any], Score] | None = None) -> None:
        """Starts the process and waits until `load(setting)` has returned. `load` None: that of `SYSTEMS[key]`.

        Raises SystemFailed.
        """
        context = multiprocessing.get_context("spawn")
        self._connection, other_end = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(other_end, load or SYSTEMS[key].load, setting), daemon=True
        )
        self._process.start()
        other_end.close()
        try:
            self.load_s: float = self._answer()  # with imports, without the interpreter's start
        except SystemFailed:
            self.close()
            raise

    def run(self, work: Work) -> Round:
        """One pass over `work`. Raises SystemFailed."""
        with suppress(OSError):  # the process has ended: `_answer` raises the reason
            self._connection.send(work)
        answer: Round = self._answer()
        return answer

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process."""
        with suppress(OSError):  # the process has ended already
            self._connection.send(None)
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()

    def _answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError:
            self._process.join(10)
            raise SystemFailed(f"its process ended with exit code {self._process.exitcode}") from None
        if isinstance(answer, SystemFailed):
            raise answer
        return answer


def _serve(connection: Connection, load: Callable[[Any], Score], setting: Any) -> None:
    try:
        start = time.perf_counter()
        score = load(setting)
        connection.send(time.perf_counter() - start)
        while (work := connection.recv()) is not None:
            start = time.perf_counter()
            scores = score(work)
            connection.send(Round(time.perf_counter() - start, scores, peak_rss_mb()))
    except ModuleNotFoundError as err:
        module = (err.name or "").partition(".")[0]
        remedy = f"not installed: pip install {PIP_NAMES[module]}" if module in PIP_NAMES else f"broken: {err}"
        connection.send(SystemFailed(remedy))
    except Exception as err:  # any error of a system becomes its line below the table
        connection.send(SystemFailed(f"failed: {type(err).__name__}: {' '.join(str(err).split())}"))
