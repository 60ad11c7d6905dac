"""The remark on a call that takes long: its time at the model's own rate, and a command that scores fewer documents."""

from __future__ import annotations

import time

import click

from dearlite.cli.options.model import ModelOptions
from dearlite.cli.reports import note
from dearlite.progress import Progress

_LONG_S = 10.0
_MEASURED_S = 1.0  # of scoring, before the rate is trusted
_BEST = 200  # documents that the offered command scores


class Estimate:
    """A progress callback that passes its counts to `progress`, and may write one line to stderr."""

    def __init__(self, progress: Progress, model: ModelOptions) -> None:
        self._progress = progress
        # A chain with a first stage by words scores few documents already; a listwise model reads the list as a whole
        self._active = model.chain.stages[0].kind == "pointwise"
        self._start, self._before = 0.0, 0

    def __call__(self, done: int, total: int) -> None:
        self._progress(done, total)
        if not self._active:
            return
        now = time.perf_counter()
        if not self._start:
            self._start, self._before = now, done
        elif now - self._start >= _MEASURED_S:
            self._active = False
            rate = (done - self._before) / (now - self._start)
            if total > 2 * _BEST and rate and total / rate > _LONG_S:
                note(_remark(total, rate))


def _remark(total: int, rate: float) -> str:
    line = f"{click.get_current_context().find_root().obj or 'dearlite rerank'} --first bm25:{_BEST}"
    return (
        f"{total:,} documents take about {_time(total / rate)} at {rate:,.3g} documents/s; only the best {_BEST} by "
        f"their words, about {_time(_BEST / rate)}: {line}"
    )


def _time(seconds: float) -> str:
    """Seconds, minutes or hours. Example: 95 -> "2 min"."""
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
