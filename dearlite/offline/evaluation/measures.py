"""Measures of a run, computed by ir-measures over trec_eval. This module computes no measure itself."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dearlite.errors import InvalidInput, UsageError, first_line, need
from dearlite.files.trec import Qrels, Run
from dearlite.offline.evaluation.names import parse_measures
from dearlite.offline.evaluation.supported import check_measure, largest_grade

TIES = ("rank", "trec_eval")
DEFAULT_MEASURES = ("nDCG@1", "nDCG@5", "nDCG@10", "RR@10", "AP", "R@10", "R@100")
# One query per grade and one with negative grades alone: a measure that fails here fails on any data.
_SAMPLE_QRELS = {"1": {"a": 1, "b": 0, "c": -1}, "2": {"a": -1}}
_SAMPLE_RUN = {"1": {"c": 3.0, "a": 2.0, "x": 1.0}, "2": {"a": 1.0}}


def check_measures(measures: object = None) -> list[str]:
    """The names of `measures` in ir-measures' spelling; None gives the default ones.

    Each is computed once on two small queries. Raises UsageError or MissingExtra for one that cannot be computed.
    """
    parsed = parse_measures(DEFAULT_MEASURES if measures is None else measures)
    for measure in parsed:
        check_measure(measure)
    _compute(parsed, _SAMPLE_QRELS, _SAMPLE_RUN)
    return [str(measure) for measure in parsed]


def check_grades(measures: object, qrels: Qrels) -> None:
    """Raises InvalidInput for a grade that the provider of a measure refuses, or that takes it hours."""
    for measure in parse_measures(measures):
        limit = largest_grade(measure)
        for query_id, grades in qrels.items():
            if grades and max(grades.values()) > limit:
                document_id, grade = max(grades.items(), key=lambda pair: pair[1])
                raise InvalidInput(
                    f"document {document_id!r} of query {query_id!r} has the grade {grade}, and {measure} takes grades "
                    f"up to {limit}: give smaller grades, or another measure"
                )


def measure_run(run: Run, qrels: Qrels, measures: object, *, ties: str = "rank") -> dict[str, dict[str, float]]:
    """Measure -> query id -> value, for every query of `qrels`. A query that `run` lacks has 0 (trec_eval -c).

    `ties` orders documents of equal score: "rank" keeps the run's own order (its rank column); "trec_eval" sorts by
    descending document id, as trec_eval does and ignores the rank column. Negative grades reach trec_eval unchanged.
    Raises UsageError for a measure that cannot be computed, InvalidInput for a grade that is too large for it.
    """
    parsed = parse_measures(measures)
    for measure in parsed:
        check_measure(measure)
    check_grades(parsed, qrels)
    scores = {query_id: without_ties(run[query_id], ties) for query_id in qrels if run.get(query_id)}
    return _compute(parsed, qrels, scores)


def without_ties(scores: Mapping[str, float], ties: str) -> dict[str, float]:
    """`scores` replaced by numbers that fall by 1 or 2, so that all measures order equal scores in the same way.

    (ir-measures' RR@10 breaks ties differently from trec_eval.) trec_eval compares scores as float32. A score keeps
    its sign: Compat takes documents that were not retrieved to have the score 0.
    """
    if ties == "rank":
        order = sorted(scores, key=lambda document_id: -scores[document_id])
    else:
        order = sorted(
            scores,
            key=lambda document_id: (
                array("f", [scores[document_id]])[0],
                document_id.encode("utf-8", "surrogatepass"),
            ),
            reverse=True,
        )
    positive = sum(score > 0 for score in scores.values())
    return {
        document_id: float(positive - position - (scores[document_id] < 0))
        for position, document_id in enumerate(order)
    }


def mean(values: Mapping[str, float]) -> float:
    """The mean over queries; 0 without queries."""
    return sum(values.values()) / len(values) if values else 0.0


def aggregate(measure: str, values: Mapping[str, float]) -> float:
    """The value of `measure` over all queries: the sum for the measures that count (NumRet, …), otherwise the mean."""
    return math.fsum(values.values()) if is_count(measure) else mean(values)


def is_count(measure: str) -> bool:
    """True for a measure whose value over all queries is a sum (NumRet, …)."""
    ir_measures = need("ir_measures", extra="eval")
    return isinstance(parse_measures(measure)[0].aggregator(), ir_measures.SumAgg)


def _compute(parsed: Sequence[Any], qrels: Qrels, scores: Run) -> dict[str, dict[str, float]]:
    """The values of checked measures.

    The providers see numbers as ids: trec_eval's C strings end at a NUL, lone surrogates end the process, and gdeval
    splits lines at spaces and cuts query ids at hyphens. Without ties no measure depends on the ids.
    """
    values = {str(measure): dict.fromkeys(qrels, 0.0) for measure in parsed}
    queries = list(qrels)
    numbered_qrels: dict[str, dict[str, int]] = {}
    numbered_run: dict[str, dict[str, float]] = {}
    for number, query_id in enumerate(queries):
        documents: dict[str, str] = {}
        grades = {documents.setdefault(name, str(len(documents))): grade for name, grade in qrels[query_id].items()}
        # trec_eval reads outside its arrays at a query without a grade from 0. A further document of grade 0, which
        # no run retrieves, avoids it and changes no measure: the query still has no relevant document.
        numbered_qrels[str(number)] = grades if max(grades.values(), default=0) >= 0 else grades | {"-": 0}
        if query_id in scores:
            numbered_run[str(number)] = {
                documents.setdefault(name, str(len(documents))): score for name, score in scores[query_id].items()
            }
    if not numbered_run:
        return values
    for measures in _groups(parsed):
        for name, query_number, value in _call(measures, numbered_qrels, numbered_run):
            # iprec_at_recall divides by zero if judged_only leaves no document
            values[name][queries[int(query_number)]] = value if math.isfinite(value) else 0.0
    return values


def _groups(parsed: Iterable[Any]) -> list[list[Any]]:
    """`parsed` in groups that ir-measures may compute together.

    In one call nDCG@10 beside nDCG(gains=…)@10 may get the gains, and NumRet beside P(judged_only=True)@5 may count
    judged documents alone, depending on the order of a set.
    """
    groups: dict[tuple[object, ...], list[Any]] = {}
    for measure in parsed:
        key = tuple(repr(measure.params.get(name)) for name in ("rel", "judged_only", "gains", "dcg"))
        groups.setdefault(key, []).append(measure)
    return list(groups.values())


def _call(measures: Sequence[Any], qrels: Qrels, run: Run) -> list[tuple[str, str, float]]:
    """(measure, query id, value) of measures with the same parameters. Raises UsageError if a provider fails.

    trec_eval reads beyond its array of grades where `rel` is above them all. So relevant documents get the grade 1 and
    other judged ones 0, which is all that a measure with `rel` distinguishes; unjudged ones (negative) stay.
    """
    ir_measures = need("ir_measures", extra="eval")
    names = {measure: str(measure) for measure in measures}
    rel = measures[0].params.get("rel", 1)
    if rel != 1:
        names = {measure(rel=1): str(measure) for measure in measures}
        qrels = {
            query_id: {name: int(grade >= rel) if grade >= 0 else grade for name, grade in grades.items()}
            for query_id, grades in qrels.items()
        }
    try:
        metrics = ir_measures.iter_calc(list(names), qrels, run)
        return [(names[metric.measure], metric.query_id, float(metric.value)) for metric in metrics]
    except MemoryError:
        raise
    except Exception as err:  # any error of any provider: each of them has its own
        reason = " ".join(str(err).split()) or first_line(err)
        raise UsageError(f"{', '.join(names.values())}: ir-measures fails ({reason}): leave this measure out") from err
