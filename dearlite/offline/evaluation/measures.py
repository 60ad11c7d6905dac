"""Measures of a run, computed by ir-measures over trec_eval. This module computes no measure itself."""

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
_SEPARATOR = re.compile(r"[\s,]+(?![^()]*\))")  # a comma within RR(rel=2, judged_only=True)@10 separates nothing


def parse_measures(names: str | Iterable[str]) -> list[Any]:
    """The ir-measures objects for `names`, one string or several. Raises UsageError naming an unknown measure."""
    ir_measures = need("ir_measures", extra="eval")
    texts = [names] if isinstance(names, str) else list(names)
    measures = []
    for name in (name for text in texts for name in _SEPARATOR.split(text.strip()) if name):
        try:
            measures.append(ir_measures.parse_measure(name))
        except Exception as err:  # NameError, ValueError, and any error of Python's own parser
            known = sorted(ir_measures.measures.registry)
            near = get_close_matches(re.split(r"[@(]", name)[0], known, n=3, cutoff=0.4)
            raise UsageError(
                f"no measure {name!r} (nearest: {', '.join(near) or 'none'}): use names of ir-measures, such as nDCG@10"
            ) from err
    if not measures:
        raise UsageError("no measure is named: nDCG@10 is the usual one")
    return list(dict.fromkeys(measures))


def measure_run(run: Run, qrels: Qrels, measures: Sequence[str], *, ties: str = "rank") -> dict[str, dict[str, float]]:
    """Measure -> query id -> value, for every query of `qrels`. A query that `run` lacks has 0 (trec_eval -c).

    `ties` orders documents of equal score: "rank" keeps the run's own order (its rank column); "trec_eval" sorts by
    descending document id, as trec_eval does and ignores the rank column. A negative grade means not relevant and is
    passed on as 0: pytrec_eval ends the process for a query whose grades are all negative.
    """
    ir_measures = need("ir_measures", extra="eval")
    parsed = parse_measures(measures)
    grades = {
        query_id: {document_id: max(0, grade) for document_id, grade in judgements.items()}
        for query_id, judgements in qrels.items()
    }
    scores = {
        query_id: without_ties(of_query, ties) for query_id, of_query in run.items() if query_id in grades and of_query
    }
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


def without_ties(scores: Mapping[str, float], ties: str) -> dict[str, float]:
    """`scores` replaced by 0, -1, -2, … in their order, so that all measures order equal scores in the same way.

    (ir-measures' RR@10 breaks ties differently from trec_eval.) trec_eval compares scores as float32.
    """
    if ties == "rank":
        order = sorted(scores, key=lambda document_id: -scores[document_id])
    else:
        order = sorted(
            scores,
            key=lambda document_id: (array("f", [scores[document_id]])[0], document_id.encode()),
            reverse=True,
        )
    return {document_id: float(-position) for position, document_id in enumerate(order)}


def mean(values: Mapping[str, float]) -> float:
    """The mean over queries; 0 without queries."""
    return sum(values.values()) / len(values) if values else 0.0
