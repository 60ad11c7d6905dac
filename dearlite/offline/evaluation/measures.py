"""Measures of a run, by ir-measures over trec_eval: nothing is measured by code of our own."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from dearlite.errors import MissingExtra, UsageError, first_line, need
from dearlite.files.trec import Qrels, Run

TIES = ("rank", "trec_eval")
DEFAULT_MEASURES = ("nDCG@1", "nDCG@5", "nDCG@10", "RR@10", "AP", "R@10", "R@100")
_SEPARATOR = re.compile(r"[\s,]+(?![^()]*\))")  # a comma within RR(rel=2, judged_only=True)@10 parts nothing


def parse_measures(names: str | Iterable[str]) -> list[Any]:
    """ir-measures' measures for `names`, a string of them or several. Raises UsageError naming one that is none."""
    ir_measures = need("ir_measures", extra="eval")
    texts = [names] if isinstance(names, str) else list(names)
    found = []
    for name in (name for text in texts for name in _SEPARATOR.split(text.strip()) if name):
        try:
            found.append(ir_measures.parse_measure(name))
        except Exception as err:  # its parser raises NameError, ValueError, and what Python's own does
            known = sorted(ir_measures.measures.registry)
            near = get_close_matches(re.split(r"[@(]", name)[0], known, n=3, cutoff=0.4)
            raise UsageError(
                f"no measure {name!r} (nearest: {', '.join(near) or 'none'}): they are ir-measures' names, nDCG@10 say"
            ) from err
    if not found:
        raise UsageError("no measure is named: nDCG@10 is the usual one")
    return list(dict.fromkeys(found))


def measure_run(run: Run, qrels: Qrels, measures: Sequence[str], *, ties: str = "rank") -> dict[str, dict[str, float]]:
    """Measure -> query id -> value, for every query of `qrels`; one that `run` lacks counts as zero (trec_eval -c).

    `ties` says how documents of equal score stand: "rank" in the run's own order (its rank column), "trec_eval" by
    falling document id, as trec_eval does whatever the rank column says. A grade below zero is no relevance; it is
    given as 0, since a query with such grades alone ends the process inside pytrec_eval.
    """
    ir_measures = need("ir_measures", extra="eval")
    parsed = parse_measures(measures)
    grades = {query_id: {one: max(0, grade) for one, grade in found.items()} for query_id, found in qrels.items()}
    scores = {query_id: in_order(found, ties) for query_id, found in run.items() if query_id in grades and found}
    values = {str(measure): dict.fromkeys(grades, 0.0) for measure in parsed}
    if not scores:
        return values
    try:
        for metric in ir_measures.iter_calc(parsed, grades, scores):
            values[str(metric.measure)][metric.query_id] = float(metric.value)
    except (ValueError, ImportError, RuntimeError) as err:
        reason = first_line(err)
        raise MissingExtra(
            f"{', '.join(values)}: {reason}: pip install 'dearlite[eval]', or ir-measures' package for that measure"
        ) from err
    return values


def in_order(scores: Mapping[str, float], ties: str) -> dict[str, float]:
    """The order of `scores` as falling whole numbers: without equal ones every measure sees the same order.

    (Of equal scores ir-measures' RR@10 takes another first than trec_eval does.) trec_eval holds scores as float32.
    """
    if ties == "rank":
        order = sorted(scores, key=lambda one: -scores[one])
    else:
        order = sorted(scores, key=lambda one: (array("f", [scores[one]])[0], one.encode()), reverse=True)
    return {one: float(-place) for place, one in enumerate(order)}


def mean(values: Mapping[str, float]) -> float:
    """The mean over queries, 0 where there are none."""
    return sum(values.values()) / len(values) if values else 0.0
