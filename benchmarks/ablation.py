r"""The paper's ablation on a small scale: six losses of stage 1, several seeds; nDCG@10 and calibration on a dev split.

    python benchmarks/ablation.py stage1.toml --queries-file queries_dev.jsonl --corpus corpus.jsonl.gz \
        --run run_dev.trec --qrels qrels_dev.tsv --work FOLDER [--steps 60] [--seeds 1 2 3] [--queries 60] \
        [--depth 30] [--max-tokens 228]

stage1.toml holds settings of `dearlite train pointwise`; its data need a teacher's scores. The collection is a dev
split. Each model is trained for --steps steps, exported to int8, and reranks the first --depth documents of the run.
Calibration is the expected calibration error of the logit's sigmoid over these pairs, with ten bins of equal width;
unjudged pairs count as not relevant. FOLDER keeps finished results; a second call computes only what is missing.
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
    bin_of = np.minimum((probability * bins).astype(int), bins - 1)
    error = 0.0
    for number in range(bins):
        members = bin_of == number
        if members.any():
            error += members.mean() * abs(probability[members].mean() - relevant[members].mean())
    return error


def measure(model: Path, dev: dict[str, Path], queries: int, depth: int) -> dict[str, float]:
    """nDCG@10 of `model` and of the first stage, and the calibration error."""
    parts = {"queries": dev["queries"], "corpus": [dev["corpus"]], "run": dev["run"]}
    split = open_collection(**parts, depth=depth)
    run = dict(list(split.run.items())[:queries])
    qrels = {name: grades for name, grades in read_qrels(dev["qrels"]).items() if name in run}
    collection = make_collection(split.queries, split.documents, run)
    evaluation = evaluate(collection, qrels=qrels, model=model, measures="nDCG@10", journal=f"{model}.journal")
    system = evaluation.system(evaluation.subject)
    assert system.run is not None
    pairs = [
        (score, qrels[q].get(d, 0) > 0) for q, scores in system.run.items() if q in qrels for d, score in scores.items()
    ]
    logits, relevant = np.array(pairs, dtype=float).T
    return {
        "ndcg": evaluation.values[evaluation.subject]["nDCG@10"],
        "first stage": evaluation.values["first stage"]["nDCG@10"],
        "ece": calibration_error(logits, relevant),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="settings of stage 1 (TOML)")
    parser.add_argument("--queries-file", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--qrels", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for models and results")
    parser.add_argument("--steps", type=int, default=60, help="training steps per model")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--queries", type=int, default=60, help="number of queries to evaluate on")
    parser.add_argument("--depth", type=int, default=30, help="documents per query")
    parser.add_argument("--max-tokens", type=int, default=228)
    options = parser.parse_args()
    dev = {"queries": options.queries_file, "corpus": options.corpus, "run": options.run, "qrels": options.qrels}
    results: dict[str, list[dict[str, float]]] = {}
    for seed in options.seeds:
        for name, settings in VARIANTS.items():
            folder = options.work / f"{name.replace(' ', '')}-{seed}"
            if not (folder / "result.json").exists():
                config = read_config(options.config, PointwiseConfig)
                config = replace(config, **settings, seed=seed, max_steps=options.steps, output=str(folder))
                train_pointwise(config, report=print)
                base = folder / "base" if (folder / "base").is_dir() else Path(config.base)
                model = options.work / f"{folder.name}.dear"
                command = [sys.executable, "-m", "dearlite.cli.main", "export", str(base), "--adapter", str(folder)]
                command += ["--max-tokens", str(options.max_tokens), "--no-card", "-o", str(model)]
                subprocess.run([*command, "--force"], check=True)
                result = measure(model, dev, options.queries, options.depth)
                (folder / "result.json").write_text(json.dumps(result))
            results.setdefault(name, []).append(json.loads((folder / "result.json").read_text()))
            print(name, seed, results[name][-1], flush=True)
    print("| loss | nDCG@10 | calibration error |\n|---|---|---|")
    for name, runs in results.items():
        cells = [
            f"{statistics.mean(values):.4f} ± {statistics.stdev(values) if len(values) > 1 else 0:.4f}"
            for values in ([run[key] for run in runs] for key in ("ndcg", "ece"))
        ]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
