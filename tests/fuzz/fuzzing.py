"""One input of one target, made from the target's name and a number, read, and judged.

An input must end in a result or in a DearliteError of one line. Everything else is a fault: another exception, a
warning of another library, more time or memory than the limits, and the end of the process.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from mutations import changed_json, json_bytes, mutated

from dearlite.errors import DearliteError, DearliteWarning

SECONDS = 15.0  # of the processor, for one input
_HANGS_S = 120.0  # on the clock, where the processor does nothing
_GROWTH_MB = 600.0  # of the resident memory's peak, by one input
Read = Callable[[bytes, Path], object]
Make = Callable[[Random, Sequence[bytes]], bytes]


class Fault(AssertionError):
    """A wrong answer that a target itself recognises."""


class TooLong(BaseException):
    """The time of an input is over. No handler of errors takes it for one."""


def by_bytes(random, seeds, tokens=()):
    """A seed with changed bytes."""
    return mutated(random, random.choice(seeds), seeds, tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A reader: `read` gets the bytes of an input, and a folder for files.

    - `seeds`: makes good inputs, in a folder that lasts as long as the process.
    - `make`: makes an input of a Random and the seeds.
    - `needs`: packages without which it cannot run.
    - `short`: number of inputs in the tests.
    - `share`: its part of a long run; an expensive reader has a small one.
    """

    name: str
    read: Read
    seeds: Callable[[Path], Sequence[bytes]]
    make: Make = by_bytes
    needs: tuple[str, ...] = ()
    short: int = 100
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one input: `kind` is "result", "error" or "fault", `text` the error's or the fault's words."""

    kind: str
    text: str
    seconds: float


def with_tokens(*tokens):
    """A maker of inputs with the words of a format."""
    return lambda random, seeds: by_bytes(random, seeds, tokens)


def by_json(random, seeds, tokens=()):
    """A seed, JSON, with a changed value, or with changed bytes."""
    seed = random.choice(seeds)
    try:
        value = json.loads(seed)
    except (ValueError, RecursionError):  # an empty line, or one that was changed before
        value = ...
    if value is ... or random.randrange(4) == 0:
        return mutated(random, seed, seeds, tokens)
    data = json_bytes(random, changed_json(random, value))
    return mutated(random, data, seeds, tokens) if random.randrange(8) == 0 else data


def by_json_lines(random, seeds, tokens=()):
    """A seed, JSON Lines, with changed values in a line or two, or with changed bytes."""
    seed = random.choice(seeds)
    if random.randrange(3) == 0:
        return mutated(random, seed, seeds, tokens)
    lines = seed.splitlines()
    for _ in range(random.choice((1, 1, 3))):
        at = random.randrange(len(lines))
        lines[at] = by_json(random, [lines[at]])
    return b"\n".join(lines) + b"\n" * random.randrange(2)


def random_of(target: Target, number: int) -> Random:
    """The source of all choices of an input."""
    return Random(f"{target.name}:{number}")


def input_of(target: Target, seeds: Sequence[bytes], number: int) -> bytes:
    """The input of this number. The first ones are the seeds, which must be read without an error."""
    return seeds[number] if number < len(seeds) else target.make(random_of(target, number), seeds)


def outcome_of(target: Target, data: bytes, folder: Path, *, must_read: bool = False) -> Outcome:
    """Reads one input. With `must_read` an error is a fault too."""
    peak, start = _peak_mb(), time.process_time()
    leaks: list[str] = []
    kind, text = "result", ""
    before, sys.unraisablehook = sys.unraisablehook, lambda info: leaks.append(repr(info.exc_value))
    try:
        with warnings.catch_warnings(record=True) as caught, _limited():
            warnings.simplefilter("always")
            target.read(data, folder)
    except DearliteError as err:
        kind, text = "error", f"{type(err).__name__}: {err}"
        if must_read or "\n" in text or not str(err).strip():
            kind = "fault"
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as err:  # a panic of Rust, SystemExit and TooLong are none of Exception
        kind, text = "fault", f"{type(err).__name__}: {err} ({_where(err)})"
    finally:
        sys.unraisablehook = before
    seconds = time.process_time() - start
    foreign = [str(each.message) for each in caught if not issubclass(each.category, DearliteWarning)]
    if foreign or leaks:
        kind, text = "fault", f"a warning of another library: {(*foreign, *leaks)[0]}"
    if seconds > SECONDS:
        kind, text = "fault", f"{seconds:.1f} s of the processor; {text}"
    if (growth := _peak_mb() - peak) > _GROWTH_MB:
        kind, text = "fault", f"{growth:.0f} MB of memory; {text}"
    return Outcome(kind, text, seconds)


def _where(err: BaseException) -> str:
    """The last lines of code in dearlite that an exception passed."""
    trace, places = err.__traceback__, []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{Path(code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " < ".join(reversed(places[-4:]))


def _peak_mb() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@contextmanager
def _limited():
    """Within the block TooLong is raised at the limits of time, in the main thread and where signals are."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        raise TooLong("the limit of time")

    timers = {signal.ITIMER_PROF: (signal.SIGPROF, 2 * SECONDS), signal.ITIMER_REAL: (signal.SIGALRM, _HANGS_S)}
    before = {number: signal.signal(number, stop) for number, _ in timers.values()}
    try:
        for timer, (_, seconds) in timers.items():
            signal.setitimer(timer, seconds)
        yield
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
