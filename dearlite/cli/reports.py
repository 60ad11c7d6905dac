"""Remarks of `rerank` on stderr: what was skipped, cut, dropped or not reached, and the speed of the call."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import click

from dearlite.errors import counted, printable
from dearlite.ranking import Ranking

_SHOWN = 5  # messages of one kind
_NAME = "dearlite: "  # before each message


def note(message: str) -> None:
    """Writes one line to stderr."""
    click.echo(f"{_NAME}{printable(message)}", err=True)


def note_waiting(path: str, content: str) -> None:
    """Says that a call reads `content` from the terminal, which it does in silence, if `path` is that."""
    with suppress(AttributeError, ValueError, OSError):  # there is no standard input, or it is closed
        if path == "-" and sys.stdin.isatty():
            end = "Ctrl-Z and Enter end" if os.name == "nt" else "Ctrl-D ends"
            note(f"reading {content} from the terminal; {end} it (give a file, or a pipe, for no typing)")


def report_dropped(rankings: Sequence[Ranking], min_relevance: float) -> str:
    """Reports the documents below `min_relevance` and those without one; gives the line. An empty result is valid."""
    hits = [hit for ranking in rankings for hit in ranking]
    kept = sum(len(ranking.above(min_relevance)) for ranking in rankings)
    unscored = sum(hit.relevance is None for hit in hits)
    dropped = len(hits) - kept - unscored
    message = f"{dropped} of {_documents(len(hits))} {_have(dropped)} a relevance below {min_relevance:g}"
    message += f", and {unscored} {_were(unscored)} not scored" if unscored else ""
    message = message if kept else f"{message}: no document answers the query"
    note(message)
    return f"{_NAME}{message}"


def report_no_words(rankings: Mapping[str, Ranking], *, named: bool) -> list[str]:
    """Reports queries that share no word with any document, whose order a stage by words leaves; gives the lines."""
    best = [
        (query_id, hit.stages[0])
        for query_id, ranking in rankings.items()
        for hit in ranking
        if hit.stages and hit.stages[0].rank == 1
    ]
    without = [(query_id, stage.model) for query_id, stage in best if not stage.score]
    if not without:
        return []
    query_id, model = without[0]
    message = f"no document has a word of the query: {model} leaves them in their order"
    if named:
        message = f"{counted(len(without), 'query has', 'queries have')} no word of any document ({query_id} first)"
    note(message)
    return [f"{_NAME}{message}"]


def report(rankings: Mapping[str, Ranking], skipped: list[str], *, interrupted: bool, named: bool) -> list[str]:
    """Reports everything about `rankings` and their calls that the result itself does not show; gives its lines.

    `named` is True where each remark needs the id of its query, a key of `rankings`.
    """
    lines = [f"skipped: {line}" for line in skipped[:_SHOWN]]
    if len(skipped) > _SHOWN:
        lines.append(f"skipped {len(skipped)} records in all")
    remarks = [
        f"query {query_id}: {remark}" if named else remark
        for query_id, ranking in rankings.items()
        for remark in _remarks(ranking, interrupted=interrupted)
    ]
    shown = 2 * _SHOWN if named else len(remarks)
    lines += remarks[:shown]
    if len(remarks) > shown:
        lines.append(f"{len(remarks) - shown} more remarks on other queries")
    for line in lines:
        note(line)
    lines = [f"{_NAME}{line}" for line in lines]
    if sys.stderr.isatty() and rankings:
        lines.append(_speed(list(rankings.values())))
        click.echo(lines[-1], err=True)
    return lines


def _remarks(ranking: Ranking, *, interrupted: bool) -> Iterator[str]:
    """One line for each thing that the call of `ranking` changed or left out."""
    for problem in ranking.problems[:_SHOWN]:
        yield f"the model's answer is not a complete order: {problem}"
    for stage in ranking.stages:
        if stage.error:
            yield f"stage {stage.model} did not run, the order is that of the other stages: {stage.error}"
    if not ranking.complete:
        reason = "interrupted" if interrupted else "the budget is exhausted"
        yield f"{reason}: {_work(ranking)} documents; the others are left in their earlier order"
    if ranking.agreement is not None:
        yield f"agreement of the passes: Kendall's tau {ranking.agreement:.2f}"
    if ranking.query_truncated:
        yield "the query is longer than the model's input: only its beginning was read"
    if truncated := sum(hit.truncated for hit in ranking):
        verb = "is" if truncated == 1 else "are"
        yield (
            f"{truncated} of the {_documents(len(ranking))} {verb} longer than the model's input and "
            f"{_were(truncated)} truncated"
        )


def _speed(rankings: Sequence[Ranking]) -> str:
    """The model, its device, and the documents per second."""
    first, total = rankings[0], sum(ranking.total for ranking in rankings)
    scored = total - sum(ranking.unscored for ranking in rankings)
    elapsed_s = sum(ranking.elapsed_s for ranking in rankings)
    rate = scored / elapsed_s
    count = f"{scored} of {_documents(total)}" if scored < total else _documents(total)
    queries = f"{len(rankings)} queries, " if len(rankings) > 1 else ""
    return (
        f"{first.model} on {first.device}: {queries}{count} in {elapsed_s:.2f} s "
        f"({rate:.{int(rate < 10)}f} documents/s)"
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
