"""One process for each system: it loads, then runs a round whenever it is asked. Prints nothing.

Processes stay up between rounds, so that rounds can be interleaved while each system has memory of its own; all but
one are always waiting.
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
    """One pass over the work: seconds, the scores in order, and the most memory the process has had so far."""

    elapsed_s: float
    scores: list[float]
    peak_rss_mb: float


class SystemFailed(Exception):
    """A system that could not be loaded or did not finish; the message says why."""


class Worker:
    """A system in a process of its own."""

    def __init__(self, key: str, setting: Any, load: Callable[[Any], Score] | None = None) -> None:
        """Starts the process and waits until `load(setting)`, of `SYSTEMS[key]` without it, is done.

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
            self.load_s: float = self._answer()  # imports included, the interpreter's own start not
        except SystemFailed:
            self.close()
            raise

    def run(self, work: Work) -> Round:
        """One pass over `work`. Raises SystemFailed."""
        with suppress(OSError):  # it has ended: `_answer` says how
            self._connection.send(work)
        answer: Round = self._answer()
        return answer

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process."""
        with suppress(OSError):  # it has ended already
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
    except Exception as err:  # whatever a rival raises becomes its line in the table
        connection.send(SystemFailed(f"failed: {type(err).__name__}: {' '.join(str(err).split())}"))
