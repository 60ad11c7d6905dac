"""nDCG@10 and seconds per query of a listwise model's modes on a first stage's run, as a Markdown table.

    python benchmarks/listwise_quality.py MODEL.gguf FOLDER [--run run_bm25.trec] [--mode permute ...]
        [--passage-tokens 60 ...] [--prompt chat] [--reasoning-tokens 256] [--depth 20]

FOLDER holds corpus.jsonl.gz, queries.jsonl, qrels.tsv and a TREC run. --passage-tokens 0 is the
prompt form's own limit.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import ir_measures
from ir_measures import Qrel, ScoredDoc, nDCG

from dearlite import Listwise, Reranker
from dearlite.export.quality.card import Pairs, load_pairs
from dearlite.models.gguf import GgufFile
from dearlite.options import LISTWISE_MODES

_SHOW = "| {:<9} | {:>14} | {:>7.4f} | {:>9.2f} | {:>6} | {:>8} |"


def main() -> None:
    """Prints the first stage's row, and one row for each mode and number of passage tokens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", default="run.trec")
    parser.add_argument("--mode", nargs="+", default=list(LISTWISE_MODES), choices=list(LISTWISE_MODES))
    parser.add_argument("--passage-tokens", nargs="+", type=int, default=[0])
    parser.add_argument("--prompt")
    parser.add_argument("--reasoning-tokens", type=int, default=256)
    parser.add_argument("--depth", type=int, default=20)
    options = parser.parse_args()
    reranker = Reranker.load(options.model)
    pairs = load_pairs(options.folder, options.run)
    groups = {query_id: indices[: options.depth] for query_id, indices in pairs.by_query().items()}
    sha256 = GgufFile(options.model).sha256()[:12]
    print(f"{Path(options.model).name} ({sha256}) on {reranker.device}, {reranker.threads} threads; {pairs.name}")
    print("| mode      | passage tokens | nDCG@10 | s/query   | faulty | read cut |")
    print("|---|---|---|---|---|---|")
    print(_SHOW.format("(first)", "", ndcg10(pairs, groups), 0, "", ""), flush=True)
    for tokens in options.passage_tokens:
        for mode in options.mode:
            listwise = Listwise(
                mode=mode,
                passage_tokens=tokens or None,
                prompt=options.prompt,
                **({"reasoning_tokens": options.reasoning_tokens} if mode == "reason" else {}),
            )
            orders, seconds, faulty, cut = {}, [], 0, 0
            for query_id, indices in groups.items():
                start = time.perf_counter()
                query, documents = pairs.rows[indices[0]][2], [pairs.rows[i][3] for i in indices]
                ranking = reranker.rerank(query, documents, listwise=listwise)
                seconds.append(time.perf_counter() - start)
                orders[query_id] = [indices[hit.index] for hit in ranking]
                faulty += bool(ranking.problems)
                cut += sum(hit.truncated for hit in ranking)
            median = statistics.median(seconds)
            row = (mode, tokens or "all", ndcg10(pairs, orders), median, f"{faulty}/{len(groups)}", cut)
            print(_SHOW.format(*row), flush=True)


def ndcg10(pairs: Pairs, orders: Mapping[str, Sequence[int]]) -> float:
    """Mean nDCG@10 over the qrels' queries, by trec_eval's definition; `orders` holds indices into `pairs.rows`."""
    qrels = [Qrel(q, d, grade) for q, grades in pairs.grades.items() for d, grade in grades.items()]
    run = [ScoredDoc(q, pairs.rows[i][1], -float(n)) for q, order in orders.items() for n, i in enumerate(order)]
    return float(ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10])


if __name__ == "__main__":
    main()
