"""NovelEval-2306 as the tests use it: pairs of the BM25 run, grades, and measures from the field's own library."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

DATA = Path(__file__).parents[2] / "export" / "data" / "noveleval"
REFERENCES = Path(__file__).parents[1] / "data" / "minilm_fp32_scores.json"


def pairs() -> list[tuple[str, str, str, str]]:
    """(query id, document id, query, text) for each line of run_bm25.trec, in its order."""
    queries = {row["_id"]: row["text"] for row in map(json.loads, (DATA / "queries.jsonl").open(encoding="utf-8"))}
    with gzip.open(DATA / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        corpus = {row["_id"]: row["text"] for row in map(json.loads, lines)}
    run = [line.split() for line in (DATA / "run_bm25.trec").open()]
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
