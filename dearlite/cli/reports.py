"""Remarks of `rerank` on stderr: what was skipped, cut, dropped or not reached, and the speed of the call."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import click

from dearlite.errors import counted
from dearlite.ranking import Ranking

_SHOWN = 5  # messages of one kind


def note(message: str) -> None:
    """Writes one line to stderr."""
    click.echo(f"dearlite: {message}", err=True)


def note_waiting(path: str, content: str) -> None:
    """Says that a call reads `content` from the terminal, which it does in silence, if `path` is that."""
    with suppress(AttributeError, ValueError, OSError):  # there is no standard input, or it is closed
        if path == "-" and sys.stdin.isatty():
            end = "Ctrl-Z and Enter end" if os.name == "nt" else "Ctrl-D ends"
            note(f"reading {content} from the terminal; {end} it (give a file, or a pipe, for no typing)")


def report_dropped(ranking: Ranking, min_relevance: float) -> None:
    """Reports the documents below `min_relevance` and those without a relevance. An empty result is valid."""
    kept = len(ranking.above(min_relevance))
    unscored = sum(hit.relevance is None for hit in ranking)
    dropped = len(ranking) - kept - unscored
    message = f"{dropped} of {_documents(len(ranking))} {_have(dropped)} a relevance below {min_relevance:g}"
    message += f", and {unscored} {_were(unscored)} not scored" if unscored else ""
    note(message if kept else f"{message}: no document answers the query")


def report(ranking: Ranking, skipped: list[str], *, interrupted: bool = False) -> None:
    """Reports everything about `ranking` and its call that the result itself does not show."""
    for line in skipped[:_SHOWN]:
        note(f"skipped: {line}")
    if len(skipped) > _SHOWN:
        note(f"skipped {len(skipped)} records in all")
    for problem in ranking.problems[:_SHOWN]:
        note(f"the model's answer is not a complete order: {problem}")
    for stage in ranking.stages:
        if stage.error:
            note(f"stage {stage.model} did not run, the order is that of the other stages: {stage.error}")
    if not ranking.complete:
        reason = "interrupted" if interrupted else "the budget is exhausted"
        note(f"{reason}: {_work(ranking)} documents; the others are left in their earlier order")
    if ranking.agreement is not None:
        note(f"agreement of the passes: Kendall's tau {ranking.agreement:.2f}")
    if ranking.query_truncated:
        note("the query is longer than the model's input: only its beginning was read")
    truncated = sum(hit.truncated for hit in ranking)
    if truncated:
        verb = "is" if truncated == 1 else "are"
        note(
            f"{truncated} of the {_documents(len(ranking))} {verb} longer than the model's input and "
            f"{_were(truncated)} truncated"
        )
    if sys.stderr.isatty():
        _report_speed(ranking)


def _report_speed(ranking: Ranking) -> None:
    scored = ranking.total - ranking.unscored
    rate = scored / ranking.elapsed_s
    count = f"{scored} of {_documents(ranking.total)}" if ranking.unscored else _documents(ranking.total)
    click.echo(
        f"{ranking.model} on {ranking.device}: {count} in {ranking.elapsed_s:.2f} s "
        f"({rate:.{int(rate < 10)}f} documents/s)",
        err=True,
    )


def _work(ranking: Ranking) -> str:
    """The number of documents that each stage scored of those it was given."""
    if not ranking.stages:
        return f"{ranking.model} scored {ranking.total - ranking.unscored} of {ranking.total}"
    return ", ".join(f"{stage.model} scored {stage.scored} of {stage.depth}" for stage in ranking.stages)


def _documents(number: int) -> str:
    return counted(number, "document")


def _have(number: int) -> str:
    return "has" if number == 1 else "have"


def _were(number: int) -> str:
    return "was" if number == 1 else "were"
