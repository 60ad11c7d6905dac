"""Expected calibration error on splits outside the fit, beside the bare sigmoid's.

    python benchmarks/calibration_error.py DATA --work FOLDER [-m MODEL] [--fit "nfcorpus dev"]

FOLDER holds the journals of depth_curve.py: pairs that it scored are not scored again. The calibration is fitted on one
split and evaluated on all. Fifteen bins of equal width (Guo et al. 2017); a sample is a pair of the BM25 run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from depth_curve import SPLITS, open_split

from dearlite import Reranker
from dearlite.export.quality.calibrate import judged_scores
from dearlite.export.quality.fit import JudgedScores, expected_calibration_error, fit_logistic, fit_margin, sigmoid
from dearlite.models.registry import DEFAULT_MODEL


def pairs_of(name: str, data: Path, work: Path, reranker: Reranker, queries: int | None) -> JudgedScores:
    """The judged pairs of one split."""
    collection, qrels = open_split(name, data, queries)
    return judged_scores(collection, qrels, reranker, journal=work / f"{name.replace(' ', '_')}.journal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder that holds the collections")
    parser.add_argument("-m", "--model", default=DEFAULT_MODEL)
    parser.add_argument("--fit", default="nfcorpus dev", choices=list(SPLITS), help="the split to fit on")
    parser.add_argument("--splits", nargs="*", default=["nfcorpus dev", "nfcorpus", "scifact", "dl19"])
    parser.add_argument("--queries", type=int, help="number of queries per split, except the fit's (default: all)")
    parser.add_argument("--work", type=Path, required=True, help="the folder of journals")
    options = parser.parse_args()
    reranker = Reranker.load(options.model)
    pairs_by_split = {
        name: pairs_of(name, options.data, options.work, reranker, None if name == options.fit else options.queries)
        for name in {options.fit: None, **dict.fromkeys(options.splits)}
    }
    scale, bias = fit_logistic(pairs_by_split[options.fit])
    margin = fit_margin(pairs_by_split[options.fit])
    print(f"{reranker.model}: sigmoid({scale:.4f} x score {bias:+.4f}), margin {margin:.3f}\n")
    print("| split | pairs | relevant | error | of the bare sigmoid | mean probability |\n|---|---|---|---|---|---|")
    for name, pairs in pairs_by_split.items():
        fitted, bare = sigmoid(scale * pairs.scores + bias), sigmoid(pairs.scores)
        errors = [expected_calibration_error(probabilities, pairs.relevant) for probabilities in (fitted, bare)]
        role = " (the fit)" if name == options.fit else ""
        print(
            f"| {name}{role} | {len(pairs.scores):,} | {pairs.relevant.mean():.1%} | {errors[0]:.4f} | {errors[1]:.4f} "
            f"| {fitted.mean():.1%} |"
        )


if __name__ == "__main__":
    main()
