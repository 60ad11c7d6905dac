"""Kendall's tau and nDCG@10 of attention rerankers beside the first of them, as a file in fp32.

    python benchmarks/attention_error.py FP32.dear INT8.dear ... [--queries 6] [--documents 10]

The queries are the first of NovelEval with the first documents of BM25's order. A document's score is compared within
its query.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from listwise_quality import ndcg10
from scipy.stats import kendalltau

from dearlite import Reranker
from dearlite.export.quality.card import load_pairs

_DATA = Path(__file__).parents[1] / "export" / "data" / "noveleval"


def main() -> None:
    """Prints nDCG@10 of BM25's order and of each file, and the mean and the least tau of all but the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="the file in fp32, and others of the same model")
    parser.add_argument("--queries", type=int, default=6)
    parser.add_argument("--documents", type=int, default=10)
    args = parser.parse_args()
    pairs = load_pairs(_DATA, "run_bm25.trec")
    groups = {query_id: rows[: args.documents] for query_id, rows in list(pairs.by_query().items())[: args.queries]}
    print(f"BM25: nDCG@10 {ndcg10(pairs, groups):.4f}")
    reference: dict[str, list[float]] = {}
    for file in args.files:
        model, orders, scores = Reranker.load(file, device="cpu"), dict[str, list[int]](), dict[str, list[float]]()
        for query_id, rows in groups.items():
            ranking = model.rerank(pairs.rows[rows[0]][2], [pairs.rows[row][3] for row in rows])
            orders[query_id] = [rows[hit.index] for hit in ranking]
            scores[query_id] = [hit.score or 0.0 for hit in sorted(ranking, key=lambda hit: hit.index)]
        reference = reference or scores
        taus = [float(kendalltau(reference[query_id], scores[query_id])[0]) for query_id in groups]
        tau = f"tau {statistics.fmean(taus):.3f}, at least {min(taus):.3f}"
        print(f"{file}: nDCG@10 {ndcg10(pairs, orders):.4f}, {tau}", flush=True)


if __name__ == "__main__":
    main()
