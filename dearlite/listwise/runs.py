"""The function that ranks the jobs of a call, by mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dearlite.listwise.judging import judge_jobs
from dearlite.listwise.ordering import order_jobs
from dearlite.listwise.sorting import sort_jobs
from dearlite.options import Listwise
from dearlite.ranking import Ranking


def run_of(options: Listwise) -> Callable[..., list[Ranking[Any]]]:
    """The function (runner, jobs, options, call, top_k) -> rankings. The runner has the encoder of the same mode."""
    if options.sorts:
        return sort_jobs
    return order_jobs if options.has_windows else judge_jobs
