"""Expected calibration error on splits that the fit never saw, beside the bare sigmoid's.

    python benchmarks/calibration_error.py DATA --work FOLDER [-m MODEL] [--fit "nfcorpus dev"]

FOLDER's journals are those of depth_curve.py: pairs that it scored are not scored again. The fit is on one split, the
rows are of all; fifteen bins of equal width (Guo et al. 2017), a pair of the BM25 run each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from depth_curve import SPLITS, open_split

from dearlite import Reranker
from dearlite.export.quality.calibrate import (
    Judged,
    expected_calibration_error,
    fit_logistic,
    judged_pairs,
    margin_of,
    sigmoid,
)
from dearlite.models.registry import DEFAULT_MODEL


def pairs_of(name: str, data: Path, work: Path, reranker: Reranker, most: int | None) -> Judged:
    """The judged pairs of one split."""
    collection, qrels = open_split(name, data, most)
    return judged_pairs(collection, qrels, reranker, journal=work / f"{name.replace(' ', '_')}.journal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of the collections")
    parser.add_argument("-m", "--model", default=DEFAULT_MODEL)
    parser.add_argument("--fit", default="nfcorpus dev", choices=list(SPLITS))
    parser.add_argument("--splits", nargs="*", default=["nfcorpus dev", "nfcorpus", "scifact", "dl19"])
    parser.add_argument("--queries", type=int, help="the first so many of each split but the fit's; all without")
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    reranker = Reranker.load(given.model)
    found = {
        name: pairs_of(name, given.data, given.work, reranker, None if name == given.fit else given.queries)
        for name in {given.fit: None, **dict.fromkeys(given.splits)}
    }
    scale, bias = fit_logistic(found[given.fit])
    print(f"{reranker.model}: sigmoid({scale:.4f} x score {bias:+.4f}), margin {margin_of(found[given.fit]):.3f}\n")
    print("| split | pairs | relevant | error | of the bare sigmoid | mean probability |\n|---|---|---|---|---|---|")
    for name, pairs in found.items():
        fitted, bare = sigmoid(scale * pairs.scores + bias), sigmoid(pairs.scores)
        errors = [expected_calibration_error(one, pairs.relevant) for one in (fitted, bare)]
        seen = " (the fit)" if name == given.fit else ""
        print(
            f"| {name}{seen} | {len(pairs.scores):,} | {pairs.relevant.mean():.1%} | {errors[0]:.4f} | {errors[1]:.4f} "
            f"| {fitted.mean():.1%} |"
        )


if __name__ == "__main__":
    main()
