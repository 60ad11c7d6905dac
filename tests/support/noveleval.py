"""NovelEval-2306 as the tests use it: pairs of the BM25 run, grades, and measures from the field's own library."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

RUN = "run_bm25.trec"
DATA = Path(__file__).parents[2] / "export" / "data" / "noveleval"
REFERENCES = Path(__file__).parents[1] / "data" / "minilm_fp32_scores.json"


@cache
def pairs() -> list[tuple[str, str, str, str]]:
    """(query id, document id, query, text) for each line of run_bm25.trec, in its order."""
    queries = {row["_id"]: row["text"] for row in map(json.loads, (DATA / "queries.jsonl").open(encoding="utf-8"))}
    with gzip.open(DATA / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        corpus = {row["_id"]: row["text"] for row in map(json.loads, lines)}
    run = [line.split() for line in (DATA / RUN).open()]
    return [(qid, docid, queries[qid], corpus[docid]) for qid, _, docid, *_ in run]


def reference_scores() -> list[float]:
    """transformers' fp32 score of each pair (make_references.py)."""
    table = json.loads(REFERENCES.read_text())["scores"]
    return [table[f"{qid} {docid}"] for qid, docid, _, _ in pairs()]


def ndcg10(scores: list[float]) -> float:
    """Mean nDCG@10 of the pairs' scores over the 21 queries, by ir-measures (trec_eval's definition)."""
    import ir_measures
    from ir_measures import Qrel, ScoredDoc, nDCG

    qrels = [Qrel(q, d, int(grade)) for q, _, d, grade in map(str.split, (DATA / "qrels.tsv").open())]
    run = [ScoredDoc(qid, docid, score) for (qid, docid, _, _), score in zip(pairs(), scores, strict=True)]
    return float(ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10])


def assert_same_figures(measured: dict[str, Any], expected: dict[str, Any]) -> None:
    """The figures of two quality cards are those of the same scores, but for another machine's arithmetic."""
    assert measured["ndcg10_fp32"] == expected["ndcg10_fp32"]
    assert measured["mean_error"] == pytest.approx(expected["mean_error"], abs=0.005)
    assert measured["kendall_tau"] == pytest.approx(expected["kendall_tau"], abs=0.003)


def kendall_tau(a: list[float], b: list[float]) -> float:
    """Kendall's tau-a of two score lists: concordant less discordant pairs, over all pairs."""
    total = agreed = 0
    for i in range(len(a)):
        for j in range(i):
            total += 1
            product = (a[i] - a[j]) * (b[i] - b[j])
            agreed += (product > 0) - (product < 0)
    return agreed / total


def by_query() -> dict[str, list[int]]:
    """Positions in `pairs()` of each query's documents."""
    groups: dict[str, list[int]] = {}
    for place, (qid, *_) in enumerate(pairs()):
        groups.setdefault(qid, []).append(place)
    return groups
