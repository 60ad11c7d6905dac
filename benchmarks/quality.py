"""nDCG@10 of a model on a first stage's run, beside the first stage: `python benchmarks/quality.py FOLDER [FOLDER…]`.

FOLDER holds corpus.jsonl.gz, queries.jsonl, qrels.tsv and a TREC run (`--run`, default run.trec).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path

import ir_measures
from ir_measures import Qrel, ScoredDoc, nDCG

from dearlite import Reranker
from dearlite.export.quality.card import Pairs, load_pairs


def ndcg10(pairs: Pairs, scores: Iterable[float]) -> float:
    """Mean nDCG@10 over the qrels' queries, by trec_eval's definition."""
    qrels = [Qrel(q, d, grade) for q, grades in pairs.grades.items() for d, grade in grades.items()]
    run = [ScoredDoc(q, d, s) for (q, d, _, _), s in zip(pairs.rows, scores, strict=True)]
    return float(ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--run", default="run.trec")
    parser.add_argument("--model", default=None, help="a name or a model file (default: the embedded model)")
    options = parser.parse_args()
    reranker = Reranker.load(options.model)
    print(
        f"{reranker.model} (manifest {reranker.bundle.sha256()[:12]}) on {reranker.device}, {reranker.threads} threads"
    )
    for folder in options.folders:
        pairs = load_pairs(folder, options.run)
        first = [-float(rank) for rank in range(len(pairs.rows))]  # the run's own order
        start = time.perf_counter()
        scores = reranker.score([(query, record) for _, _, query, record in pairs.rows])
        seconds = time.perf_counter() - start
        print(
            f"{pairs.name}: {len(pairs.by_query())} queries, {len(scores)} documents, {len(scores) / seconds:.1f} "
            f"per second; nDCG@10 first stage {ndcg10(pairs, first):.4f}, reranked {ndcg10(pairs, scores):.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
