"""The quality card: how far a model file is from its fp32 reference, on named pairs. Sees scores, not models."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from dearlite.ranking import kendall_tau


@dataclass(frozen=True, slots=True)
class Pairs:
    """A first stage's documents for some queries, with grades: (query id, document id, query, document record)."""

    name: str
    rows: tuple[tuple[str, str, str, dict[str, Any]], ...]
    grades: dict[str, dict[str, int]]  # query id -> document id -> grade

    def by_query(self) -> dict[str, list[int]]:
        """Positions of each query's rows."""
        groups: dict[str, list[int]] = {}
        for place, (query_id, *_) in enumerate(self.rows):
            groups.setdefault(query_id, []).append(place)
        return groups


def load_pairs(folder: Path, run: str) -> Pairs:
    """The pairs of `folder` (queries.jsonl, corpus.jsonl.gz, qrels.tsv) that its TREC run `run` names, in its order."""
    with open(folder / "queries.jsonl", encoding="utf-8") as lines:
        queries = {row["_id"]: row["text"] for row in map(json.loads, lines)}
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        corpus = {row["_id"]: row for row in map(json.loads, lines)}
    with open(folder / run, encoding="utf-8") as lines:
        named = [line.split()[:3] for line in lines]
    grades: dict[str, dict[str, int]] = {}
    with open(folder / "qrels.tsv", encoding="utf-8") as lines:
        for query_id, _, document_id, grade in map(str.split, lines):
            grades.setdefault(query_id, {})[document_id] = int(grade)
    rows = tuple((q, d, queries[q], corpus[d]) for q, _, d in named)
    return Pairs(f"{folder.name}/{run}", rows, grades)


def compare(pairs: Pairs, reference: Sequence[float], candidate: Sequence[float]) -> dict[str, Any]:
    """How `candidate` differs from `reference`: errors in score units, agreement of orders, and nDCG@10 of both."""
    errors = [abs(a - b) for a, b in zip(reference, candidate, strict=True)]
    groups = list(pairs.by_query().items())
    taus, overlaps, ndcg = [], [], ([], [])  # type: ignore[var-annotated]
    for query_id, places in groups:
        ours, theirs = [candidate[i] for i in places], [reference[i] for i in places]
        taus.append(kendall_tau(ours, theirs))
        best = [set(_order(scores)[:10]) for scores in (ours, theirs)]
        overlaps.append(len(best[0] & best[1]) / len(best[0]))
        grades = [pairs.grades.get(query_id, {}).get(pairs.rows[i][1], 0) for i in places]
        ideal = sorted(pairs.grades.get(query_id, {}).values(), reverse=True)
        for scores, into in ((theirs, ndcg[0]), (ours, ndcg[1])):
            into.append(ndcg_at([grades[i] for i in _order(scores)], ideal, 10))
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
        "ndcg10_fp32": round(fmean(ndcg[0]), 4),
        "ndcg10": round(fmean(ndcg[1]), 4),
    }


def ndcg_at(grades: Sequence[int], ideal: Sequence[int], depth: int) -> float:
    """NDCG with linear gains, as trec_eval computes it: `ideal` holds all grades of the query, highest first."""
    best = _dcg(ideal[:depth])
    return _dcg(grades[:depth]) / best if best else 0.0


def _dcg(grades: Sequence[int]) -> float:
    return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades, start=1))


def _order(scores: Sequence[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda i: -scores[i])
