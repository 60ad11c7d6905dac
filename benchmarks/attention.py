"""An attention reranker on one window of 20 documents, beside one pass over the prompt of the query.

    python benchmarks/attention.py FILE.dear ... [--rounds 5] [--json FILE]

The window is NovelEval's query with the longest documents. "prefill" reads the documents and the query's part once and
gives no attention; "rank" is the whole call: both queries, attention, scores. Of several files the rounds run in turn,
so that files that end at different layers compare. Figures are medians; the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from measure import describe_machine, peak_rss_mb

from dearlite import Reranker
from dearlite.documents import as_document
from dearlite.export.quality.card import load_pairs

_DATA = Path(__file__).parents[1] / "export" / "data" / "noveleval"


def main() -> None:
    """Prints the figures and a description of the machine as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help=".dear files of attention rerankers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path, help="also write all rounds to this file")
    args = parser.parse_args()
    query, documents = _window(args.documents)
    models: dict[str, Any] = {file: Reranker.load(file, device="cpu", threads=args.threads) for file in args.files}
    times: dict[str, dict[str, list[float]]] = {file: {"prefill": [], "rank": []} for file in models}
    for number in range(args.rounds + 1):
        for file, model in models.items():
            prompt = model._encoder.prompt(query, [model._encoder.passage(document) for document in documents])
            start = time.perf_counter()
            model._backend.prefill(prompt.ids)
            middle = time.perf_counter()
            model.rerank(query, documents)
            end = time.perf_counter()
            if number:  # the first round warms up
                times[file]["prefill"].append(middle - start)
                times[file]["rank"].append(end - middle)
    result: dict[str, Any] = {"machine": describe_machine(), "peak_rss_mb": peak_rss_mb(), "files": {}}
    for file, model in models.items():
        prompt = model._encoder.prompt(query, [model._encoder.passage(document) for document in documents])
        medians = {name: statistics.median(seconds) for name, seconds in times[file].items()}
        result["files"][file] = {
            "layers": len(model._backend.layers),
            "heads": model.bundle.manifest.attention.heads[:60],
            "tokens of the documents": len(prompt.prefix),
            "tokens of the queries": [len(tail) for tail in prompt.tails],
            **{f"{name}_s": round(value, 3) for name, value in medians.items()},
            "rank / prefill": round(medians["rank"] / medians["prefill"], 3),
        }
    print(json.dumps(result, indent=1))
    if args.json is not None:
        args.json.write_text(json.dumps({**result, "times": times}, indent=1) + "\n")


def _window(count: int) -> tuple[str, list[Any]]:
    """The query with the longest documents, and its first `count` documents."""
    pairs = load_pairs(_DATA, "run_bm25.trec")
    groups = [positions[:count] for positions in pairs.by_query().values()]
    longest = max(groups, key=lambda positions: sum(len(str(pairs.rows[i][3])) for i in positions))
    return pairs.rows[longest[0]][2], [as_document(pairs.rows[i][3], "a document") for i in longest]


if __name__ == "__main__":
    main()
