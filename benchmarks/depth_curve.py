"""nDCG@10 against documents scored: a fixed depth beside an adaptive one; some splits choose, others report.

    python benchmarks/depth_curve.py DATA --work FOLDER -o curves.json
    python benchmarks/draw.py depth curves.json -o docs/depth.png

Two chains: the collection's BM25 run and then a pointwise model (-m), and that model and then the judgements, as a
stage that never errs: what the best of models could gain. Every pair of the run is scored once, with a journal in
FOLDER; the curves are arithmetic on these scores. Adaptive is what `--adaptive` does: documents whose score in the
stage before lies within a margin of the tenth's, at most 100. All margins are tried on the choosing splits (NFCorpus
dev, SciFact train: the least one that keeps 99.5% of the gain of depth 100); it is marked on the test splits.
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
# name -> (what it is for, folder, queries, qrels, run)
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


def open_split(name: str, data: Path, most: int | None) -> tuple[Collection, Qrels]:
    """One split of SPLITS with its judgements, or the first `most` judged queries of it."""
    _, folder, queries, qrels, run = SPLITS[name]
    place = data / folder
    collection = open_collection(place, queries=queries, qrels=qrels, run=run, depth=DEPTHS[-1], skip_bad=True)
    judged = read_qrels(place / qrels)
    if most is None:
        return collection, judged
    few = dict([(query, documents) for query, documents in collection.run.items() if query in judged][:most])
    return make_collection(collection.queries, collection.documents, few), {query: judged[query] for query in few}


def head_by_model(first: dict[str, float], model: dict[str, float], count: int) -> dict[str, float]:
    """The first `count` documents of the first stage in the model's order, the others behind as they were."""
    names = list(first)
    head = sorted(names[:count], key=lambda name: -model[name])
    return {name: float(-rank) for rank, name in enumerate([*head, *names[count:]])}


def curve(first: Run, model: Run, qrels: Qrels, counts: dict[str, int]) -> dict[str, float]:
    """Documents scored a query, mean, and nDCG@10, where query q's head is `counts[q]`."""
    run = {query: head_by_model(dict(found), dict(model[query]), counts[query]) for query, found in first.items()}
    return {
        "scored": sum(counts.values()) / len(counts),
        "ndcg10": mean(measure_run(run, qrels, ["nDCG@10"])["nDCG@10"]),
    }


def curves(first: Run, model: Run, qrels: Qrels) -> Curves:
    """Both ways at every depth and margin."""
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


def choose(found: dict[str, Curves]) -> float:
    """The least margin that keeps enough of the gain over the first ten on every choosing split."""
    for place, margin in enumerate(MARGINS):
        kept = []
        for name, (use, *_) in SPLITS.items():
            if use == CHOOSING and name in found:
                floor, full = found[name]["fixed"][0]["ndcg10"], found[name]["fixed"][-1]["ndcg10"]
                kept.append(found[name]["adaptive"][place]["ndcg10"] >= floor + KEPT * (full - floor))
        if all(kept):
            return margin
    return MARGINS[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of the collections")
    parser.add_argument("-m", "--model", default=DEFAULT_MODEL)
    parser.add_argument("--splits", nargs="*", default=list(SPLITS), choices=list(SPLITS))
    parser.add_argument("--choose-queries", type=int, help="the first so many of each choosing split; all without")
    parser.add_argument("--report-queries", type=int, help="the first so many of each test split; all without")
    parser.add_argument("--work", type=Path, required=True, help="where the journals are kept")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Curves]] = {chain: {} for chain in CHAINS}
    model = ""
    for name in given.splits:
        most = given.choose_queries if SPLITS[name][0] == CHOOSING else given.report_queries
        collection, judged = open_split(name, given.data, most)
        scored = rerank_run(collection, model=given.model, journal=given.work / f"{name.replace(' ', '_')}.journal")
        model = f"{scored.model} {scored.identity['sha256'][:12]}"
        ordered = {query: dict(sorted(one.items(), key=lambda pair: -pair[1])) for query, one in scored.run.items()}
        right = {q: {doc: float(judged.get(q, {}).get(doc, 0)) for doc in one} for q, one in ordered.items()}
        found[CHAINS[0]][name] = curves(collection.run, scored.run, judged)
        found[CHAINS[1]][name] = curves(ordered, right, judged)
        full = found[CHAINS[0]][name]["fixed"][-1]
        at = f"nDCG@10 {full['ndcg10']:.4f} at {full['scored']:.1f}"
        print(f"{name}: {len(collection.run)} queries, {at}", flush=True)
    margins = {chain: choose(splits) for chain, splits in found.items()}
    report = {"model": model, "cut": CUT, "kept": KEPT, "margins": margins, "chains": found}
    given.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for chain, splits in found.items():
        print(f"{chain}: margin {margins[chain]}")
        for name, both in splits.items():
            one = both["adaptive"][MARGINS.index(margins[chain])]
            print(f"  {name}: {one['scored']:.1f} documents a query, nDCG@10 {one['ndcg10']:.4f}")


if __name__ == "__main__":
    main()
