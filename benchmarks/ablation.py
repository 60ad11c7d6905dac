r"""The paper's ablation in small: stage 1 by six losses and several seeds, nDCG@10 and calibration on a dev split.

    python benchmarks/ablation.py stage1.toml --queries-file queries_dev.jsonl --corpus corpus.jsonl.gz \
        --run run_dev.trec --qrels qrels_dev.tsv --work FOLDER [--steps 60] [--seeds 1 2 3] [--queries 60] \
        [--depth 30] [--max-tokens 228]

stage1.toml is as `dearlite train pointwise` takes it (its data have a teacher's scores); the collection is a dev split.
Each model is trained for --steps steps, exported to int8, and reranks the best --depth of the run. Calibration is the
expected calibration error of the logit's sigmoid over those pairs, ten bins of equal width, unjudged pairs taken as not
relevant. What is done is kept in FOLDER and not done again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from dearlite import evaluate
from dearlite.export.train.config import PointwiseConfig, read_config
from dearlite.export.train.pointwise import train_pointwise
from dearlite.files.trec import read_qrels
from dearlite.offline.collection.collection import make_collection, open_collection

VARIANTS = {
    "CE": {"rank_loss": "ce", "alpha": 0.0},
    "RankNet": {"rank_loss": "ranknet", "alpha": 0.0},
    "KL alone": {"rank_loss": "ranknet", "alpha": 1.0},
    "CE + KL": {"rank_loss": "ce", "alpha": 0.5},
    "RankNet + KL": {"rank_loss": "ranknet", "alpha": 0.5},
    "all": {"rank_loss": "ce+ranknet", "alpha": 0.5},
}


def calibration_error(logits: np.ndarray, relevant: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error of sigmoid(`logits`) (Naeini et al. 2015): both (pairs,), `relevant` 0 or 1."""
    probability = 1 / (1 + np.exp(-logits))
    place = np.minimum((probability * bins).astype(int), bins - 1)
    error = 0.0
    for number in range(bins):
        mine = place == number
        if mine.any():
            error += mine.mean() * abs(probability[mine].mean() - relevant[mine].mean())
    return error


def measure(model: Path, dev: dict[str, Path], queries: int, depth: int) -> dict[str, float]:
    """nDCG@10 of `model` and of the first stage, and the calibration error."""
    parts = {"queries": dev["queries"], "corpus": [dev["corpus"]], "run": dev["run"]}
    whole = open_collection(**parts, depth=depth)
    run = dict(list(whole.run.items())[:queries])
    qrels = {name: grades for name, grades in read_qrels(dev["qrels"]).items() if name in run}
    collection = make_collection(whole.queries, whole.documents, run)
    found = evaluate(collection, qrels=qrels, model=model, measures="nDCG@10", journal=f"{model}.journal")
    system = found.system(found.subject)
    assert system.run is not None
    pairs = [
        (score, qrels[q].get(d, 0) > 0) for q, scores in system.run.items() if q in qrels for d, score in scores.items()
    ]
    logits, relevant = np.array(pairs, dtype=float).T
    return {
        "ndcg": found.values[found.subject]["nDCG@10"],
        "first stage": found.values["first stage"]["nDCG@10"],
        "ece": calibration_error(logits, relevant),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--queries-file", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--qrels", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--depth", type=int, default=30)
    parser.add_argument("--max-tokens", type=int, default=228)
    given = parser.parse_args()
    dev = {"queries": given.queries_file, "corpus": given.corpus, "run": given.run, "qrels": given.qrels}
    results: dict[str, list[dict[str, float]]] = {}
    for seed in given.seeds:
        for name, settings in VARIANTS.items():
            folder = given.work / f"{name.replace(' ', '')}-{seed}"
            if not (folder / "result.json").exists():
                config = read_config(given.config, PointwiseConfig)
                config = replace(config, **settings, seed=seed, max_steps=given.steps, output=str(folder))
                train_pointwise(config, on_message=print)
                base = folder / "base" if (folder / "base").is_dir() else Path(config.base)
                model = given.work / f"{folder.name}.dear"
                command = [sys.executable, "-m", "dearlite.cli.main", "export", str(base), "--adapter", str(folder)]
                command += ["--max-tokens", str(given.max_tokens), "--no-card", "-o", str(model)]
                subprocess.run([*command, "--force"], check=True)
                found = measure(model, dev, given.queries, given.depth)
                (folder / "result.json").write_text(json.dumps(found))
            results.setdefault(name, []).append(json.loads((folder / "result.json").read_text()))
            print(name, seed, results[name][-1], flush=True)
    print("| loss | nDCG@10 | calibration error |\n|---|---|---|")
    for name, measured in results.items():
        cells = [
            f"{statistics.mean(values):.4f} ± {statistics.stdev(values) if len(values) > 1 else 0:.4f}"
            for values in ([one[key] for one in measured] for key in ("ndcg", "ece"))
        ]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
