"""The comparison in a quality card: the scores of a model file beside those of its fp32 reference, on named pairs.

This module sees scores and grades, never a model.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

_CUT = 10  # rank of the cut-off of nDCG and of the overlap


@dataclass(frozen=True, slots=True)
class Pairs:
    """A first stage's documents for some queries, with grades: (query id, document id, query, document record)."""

    name: str
    rows: tuple[tuple[str, str, str, dict[str, Any]], ...]
    grades: dict[str, dict[str, int]]  # query id -> document id -> grade

    def by_query(self) -> dict[str, list[int]]:
        """Query id -> positions of its rows."""
        groups: dict[str, list[int]] = {}
        for position, (query_id, *_) in enumerate(self.rows):
            groups.setdefault(query_id, []).append(position)
        return groups


def load_pairs(folder: Path, run: str) -> Pairs:
    """The pairs of the TREC run `run` in its order; `folder` holds queries.jsonl, corpus.jsonl.gz and qrels.tsv."""
    with open(folder / "queries.jsonl", encoding="utf-8") as lines:
        queries = {row["_id"]: row["text"] for row in map(json.loads, lines)}
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        corpus = {row["_id"]: row for row in map(json.loads, lines)}
    with open(folder / run, encoding="utf-8") as lines:
        columns = [line.split()[:3] for line in lines]
    grades: dict[str, dict[str, int]] = {}
    with open(folder / "qrels.tsv", encoding="utf-8") as lines:
        for query_id, _, document_id, grade in map(str.split, lines):
            grades.setdefault(query_id, {})[document_id] = int(grade)
    rows = tuple((q, d, queries[q], corpus[d]) for q, _, d in columns)
    return Pairs(f"{folder.name}/{run}", rows, grades)


def compare_scores(pairs: Pairs, reference: Sequence[float], candidate: Sequence[float]) -> dict[str, Any]:
    """The card's figures: errors of `candidate` in score units, agreement of the orders, and nDCG@10 of both."""
    errors = [abs(a - b) for a, b in zip(reference, candidate, strict=True)]
    groups = pairs.by_query()
    taus, overlaps = list[float](), list[float]()
    reference_ndcg, candidate_ndcg = list[float](), list[float]()
    for query_id, positions in groups.items():
        ours, theirs = [candidate[i] for i in positions], [reference[i] for i in positions]
        taus.append(kendall_tau(ours, theirs))
        best = [set(_order(scores)[:_CUT]) for scores in (ours, theirs)]
        overlaps.append(len(best[0] & best[1]) / len(best[0]))
        judged = pairs.grades.get(query_id, {})
        grades = [judged.get(pairs.rows[i][1], 0) for i in positions]
        ideal = sorted(judged.values(), reverse=True)
        for scores, ndcg in ((theirs, reference_ndcg), (ours, candidate_ndcg)):
            ndcg.append(ndcg_at([grades[i] for i in _order(scores)], ideal, _CUT))
    return {
        "pairs": pairs.name,
        "documents": len(errors),
        "queries": len(groups),
        "mean_error": round(fmean(errors), 3),
        "max_error": round(max(errors), 3),
        "spread_of_scores": round(pstdev(reference), 3),
        "kendall_tau": round(fmean(taus), 4),
        "top10_overlap": round(fmean(overlaps), 4),
        "ties": len(candidate) - len(set(candidate)),
        "ndcg10_fp32": round(fmean(reference_ndcg), 4),
        "ndcg10": round(fmean(candidate_ndcg), 4),
    }


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's tau-a: (concordant - discordant pairs) / all pairs; 1.0 for fewer than two scores.

    A pair that ties in both lists counts as concordant, so that equal lists have 1.0.
    """
    signs = [(_sign(a[i] - a[j]), _sign(b[i] - b[j])) for i, j in combinations(range(len(a)), 2)]
    return fmean(1 if x == y else x * y for x, y in signs) if signs else 1.0


def ndcg_at(grades: Sequence[int], ideal: Sequence[int], depth: int) -> float:
    """NDCG with linear gains, as trec_eval computes it: `ideal` holds all grades of the query, highest first."""
    best = _dcg(ideal[:depth])
    return _dcg(grades[:depth]) / best if best else 0.0


def _dcg(grades: Sequence[int]) -> float:
    return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades, start=1))


def _order(scores: Sequence[float]) -> list[int]:
    """Positions by falling score; ties keep their order."""
    return sorted(range(len(scores)), key=lambda i: -scores[i])


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
