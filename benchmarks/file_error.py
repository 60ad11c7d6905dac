"""Error of model files against a reference file of the same model: a card's figures, queries to choose by kept apart.

    python benchmarks/file_error.py fp32.dear before.dear after.dear [--depth 10 --step 2 --choose 10]

Prints a row for each file: the mean and the largest distance of its scores from the reference's, in percent of the
standard deviation of those, and Kendall's tau within a query, for the first `--choose` queries and for the others.
COLLECTION is as for quality.py. Unlike a quality card, which compares a file with its own fp32 weights, this compares
any files: of two exporters, or before and after a change of their weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pointwise import REPOSITORY

from dearlite import Reranker
from dearlite.export.quality.card import Pairs, compare_scores, load_pairs


def parts_of(pairs: Pairs, *, depth: int, step: int, choose: int) -> list[Pairs]:
    """Every `step`-th of the first `depth` documents of a query, for the first `choose` queries and for the others."""
    groups = [positions[:depth:step] for positions in pairs.by_query().values()]
    return [
        Pairs(pairs.name, tuple(pairs.rows[position] for group in part for position in group), pairs.grades)
        for part in (groups[:choose], groups[choose:])
    ]


def scores_of(path: Path, parts: Sequence[Pairs]) -> list[list[float]]:
    """The file's scores of each part, on the CPU."""
    reranker = Reranker.load(path, device="cpu")
    scores = [reranker.score([(query, record) for _, _, query, record in part.rows]) for part in parts]
    reranker.close()
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path, help="the file that the others are compared with")
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--collection", type=Path, default=REPOSITORY / "export" / "data" / "noveleval")
    parser.add_argument("--run", default="run_bm25.trec")
    parser.add_argument("--depth", type=int, default=10, metavar="N", help="documents per query (default: 10)")
    parser.add_argument("--step", type=int, default=1, metavar="N", help="take every N-th of these (default: 1)")
    parser.add_argument("--choose", type=int, default=10, metavar="N", help="queries to choose by (default: 10)")
    options = parser.parse_args()
    parts = parts_of(
        load_pairs(options.collection, options.run), depth=options.depth, step=options.step, choose=options.choose
    )
    references = scores_of(options.reference, parts)
    sizes = [f"{len(part.by_query())} queries, {len(part.rows)} pairs" for part in parts]
    print(f"| file | error, {sizes[0]} | largest | tau | error, {sizes[1]} others | largest | tau |")
    print("|---|---|---|---|---|---|---|")
    for path in options.files:
        cells = []
        for part, reference, scores in zip(parts, references, scores_of(path, parts), strict=True):
            card = compare_scores(part, reference, scores)
            percent = 100 / card["spread_of_scores"]
            cells.append(
                f"{percent * card['mean_error']:.1f} | {percent * card['max_error']:.1f} | {card['kendall_tau']:.3f}"
            )
        print(f"| {path.name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
