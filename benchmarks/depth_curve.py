"""nDCG@10 against the number of documents scored, with a fixed depth and with an adaptive one.

    python benchmarks/depth_curve.py DATA --work FOLDER -o curves.json
    python benchmarks/draw.py depth curves.json -o docs/depth.png

Two chains: the collection's BM25 run followed by a pointwise model (-m), and that model followed by the judgements, a
perfect last stage that gives the upper bound of the gain. Each pair of the run is scored once, with a journal in
FOLDER; the curves are computed from these scores. The adaptive depth is that of `--adaptive`: documents whose score in
the stage before is within a margin of the tenth document's score, at most 100. The margin is chosen on the choosing
splits (NFCorpus dev, SciFact train): the smallest that keeps 99.5% of the gain of depth 100. It is marked on the test
splits.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dearlite import rerank_run
from dearlite.files.trec import Qrels, Run, read_qrels
from dearlite.models.registry import DEFAULT_MODEL
from dearlite.offline.collection.collection import Collection, make_collection, open_collection
from dearlite.offline.evaluation.measures import mean, measure_run
from dearlite.stages import band

CHOOSING, REPORTING = "choosing", "reporting"
# name -> (use, folder, queries, qrels, run)
SPLITS = {
    "nfcorpus dev": (CHOOSING, "beir_nfcorpus", "queries_dev.jsonl", "qrels_dev.tsv", "run_dev.trec"),
    "scifact train": (CHOOSING, "beir_scifact", "queries_train.jsonl", "qrels_train.tsv", "run_train.trec.gz"),
    "nfcorpus": (REPORTING, "beir_nfcorpus", "queries.jsonl", "qrels.tsv", "run.trec"),
    "scifact": (REPORTING, "beir_scifact", "queries.jsonl", "qrels.tsv", "run.trec"),
    "dl19": (REPORTING, "dl19", "queries.jsonl", "qrels.tsv", "run.trec"),
}
DEPTHS = (10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100)
MARGINS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0)
CUT, KEPT = 10, 0.995
CHAINS = ("BM25, then the model", "the model, then the judgements")
Curves = dict[str, list[dict[str, float]]]


def open_split(name: str, data: Path, queries_limit: int | None) -> tuple[Collection, Qrels]:
    """A split of SPLITS with its judgements, limited to the first `queries_limit` judged queries."""
    _, folder, queries, qrels, run = SPLITS[name]
    path = data / folder
    collection = open_collection(path, queries=queries, qrels=qrels, run=run, depth=DEPTHS[-1], skip_bad=True)
    judged = read_qrels(path / qrels)
    if queries_limit is None:
        return collection, judged
    few = dict([(query, documents) for query, documents in collection.run.items() if query in judged][:queries_limit])
    return make_collection(collection.queries, collection.documents, few), {query: judged[query] for query in few}


def head_by_model(first: dict[str, float], model: dict[str, float], count: int) -> dict[str, float]:
    """The first `count` documents of the first stage in the model's order, then the others in their old order."""
    names = list(first)
    head = sorted(names[:count], key=lambda name: -model[name])
    return {name: float(-rank) for rank, name in enumerate([*head, *names[count:]])}


def curve(first: Run, model: Run, qrels: Qrels, counts: dict[str, int]) -> dict[str, float]:
    """Mean number of documents scored per query, and nDCG@10; `counts` is query -> documents that the model orders."""
    run = {query: head_by_model(dict(scores), dict(model[query]), counts[query]) for query, scores in first.items()}
    return {
        "scored": sum(counts.values()) / len(counts),
        "ndcg10": mean(measure_run(run, qrels, ["nDCG@10"])["nDCG@10"]),
    }


def curves(first: Run, model: Run, qrels: Qrels) -> Curves:
    """The points of the fixed curve, one per depth, and of the adaptive one, one per margin."""
    fixed = [
        {"depth": depth} | curve(first, model, qrels, {q: min(depth, len(d)) for q, d in first.items()})
        for depth in DEPTHS
    ]
    adaptive = [
        {"margin": margin}
        | curve(first, model, qrels, {q: band(list(d.values()), CUT, margin, DEPTHS[-1]) for q, d in first.items()})
        for margin in MARGINS
    ]
    return {"fixed": fixed, "adaptive": adaptive}


def choose(curves_by_split: dict[str, Curves]) -> float:
    """The smallest margin that keeps the share KEPT of the gain over depth 10 on every choosing split."""
    for index, margin in enumerate(MARGINS):
        kept = []
        for name, (use, *_) in SPLITS.items():
            if use == CHOOSING and name in curves_by_split:
                split = curves_by_split[name]
                floor, full = split["fixed"][0]["ndcg10"], split["fixed"][-1]["ndcg10"]
                kept.append(split["adaptive"][index]["ndcg10"] >= floor + KEPT * (full - floor))
        if all(kept):
            return margin
    return MARGINS[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder that holds the collections")
    parser.add_argument("-m", "--model", default=DEFAULT_MODEL)
    parser.add_argument("--splits", nargs="*", default=list(SPLITS), choices=list(SPLITS))
    parser.add_argument("--choose-queries", type=int, help="number of queries per choosing split (default: all)")
    parser.add_argument("--report-queries", type=int, help="number of queries per test split (default: all)")
    parser.add_argument("--work", type=Path, required=True, help="the folder of the journals")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the curves, JSON")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    chains: dict[str, dict[str, Curves]] = {chain: {} for chain in CHAINS}
    model = ""
    for name in options.splits:
        limit = options.choose_queries if SPLITS[name][0] == CHOOSING else options.report_queries
        collection, judged = open_split(name, options.data, limit)
        scored = rerank_run(collection, model=options.model, journal=options.work / f"{name.replace(' ', '_')}.journal")
        model = f"{scored.model} {scored.identity['sha256'][:12]}"
        ordered = {
            query: dict(sorted(scores.items(), key=lambda pair: -pair[1])) for query, scores in scored.run.items()
        }
        perfect = {q: {doc: float(judged.get(q, {}).get(doc, 0)) for doc in docs} for q, docs in ordered.items()}
        chains[CHAINS[0]][name] = curves(collection.run, scored.run, judged)
        chains[CHAINS[1]][name] = curves(ordered, perfect, judged)
        full = chains[CHAINS[0]][name]["fixed"][-1]
        ndcg = f"nDCG@10 {full['ndcg10']:.4f} at {full['scored']:.1f}"
        print(f"{name}: {len(collection.run)} queries, {ndcg}", flush=True)
    margins = {chain: choose(splits) for chain, splits in chains.items()}
    report = {"model": model, "cut": CUT, "kept": KEPT, "margins": margins, "chains": chains}
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for chain, splits in chains.items():
        print(f"{chain}: margin {margins[chain]}")
        for name, split in splits.items():
            point = split["adaptive"][MARGINS.index(margins[chain])]
            print(f"  {name}: {point['scored']:.1f} documents per query, nDCG@10 {point['ndcg10']:.4f}")


if __name__ == "__main__":
    main()
