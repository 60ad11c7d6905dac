"""How near scorers are to their teacher on questions that no training record has, and what a run's tail does to them.

    python benchmarks/nearness.py squad5 second.dear third.dear --depth 20 --queries 100 --without squad_2.jsonl.gz …
    python benchmarks/nearness.py squad5 second.dear --depth 30 --queries 30 --tail 70 --without squad_2.jsonl.gz …

COLLECTION is as `dearlite eval` takes it. Of each file: Kendall's tau-b to the teacher, the mean over queries with its
standard error, and its difference to the first file's, query by query. With `--tail` so many documents of other
queries, drawn at random, stand behind each run: how many come among the best ten, and nDCG@10 with and without them.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scipy.stats import kendalltau
from torch_run import drawn

from dearlite import rerank_run
from dearlite.offline.collection import Collection, open_collection
from dearlite.offline.measures import mean, measure_run
from dearlite.offline.trec import Run, read_qrels

SEED = 1


def with_error(values: Sequence[float]) -> str:
    """The mean and its standard error."""
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values) / len(values) ** 0.5:.4f}"


def taus(ours: Run, teacher: Run) -> dict[str, float]:
    """Kendall's tau-b to the teacher, of each query with two documents or more."""
    return {
        name: float(kendalltau(list(scores.values()), [teacher[name][one] for one in scores]).statistic)
        for name, scores in ours.items()
        if len(scores) > 1
    }


def with_tail(collection: Collection, whole: Collection, size: int) -> tuple[Collection, dict[str, set[str]]]:
    """`collection` with documents of `whole` behind each query's own, and which they are."""
    rng, pool = random.Random(SEED), sorted(whole.documents)
    tails = {name: set(rng.sample(pool, size)) - set(first) for name, first in collection.run.items()}
    run = {
        name: first | {one: min(first.values()) - place for place, one in enumerate(sorted(tails[name]), start=1)}
        for name, first in collection.run.items()
    }
    return replace(collection, documents=whole.documents, run=run), tails


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--queries", type=int)
    parser.add_argument("--without", type=Path, action="append", default=[])
    parser.add_argument("--teacher", default="minilm-l12")
    parser.add_argument("--tail", type=int, default=0)
    given = parser.parse_args()
    whole = open_collection(given.collection, run=given.run, depth=given.depth)
    collection = drawn(whole, given.queries, given.without)
    if given.tail:
        collection, tails = with_tail(collection, whole, given.tail)
        qrels = {name: grades for name, grades in read_qrels(whole.qrels).items() if name in collection.run}
    runs = {
        model: rerank_run(collection, model=model, journal=False).run
        for model in dict.fromkeys([given.teacher, *given.models])
    }
    first = taus(runs[given.models[0]], runs[given.teacher])
    for model, run in runs.items():
        if given.tail:
            best = {name: sorted(scores, key=scores.__getitem__)[-10:] for name, scores in run.items()}
            strangers = statistics.mean(len(tails[name].intersection(found)) for name, found in best.items())
            own = {n: {one: s for one, s in scores.items() if one not in tails[n]} for n, scores in run.items()}
            both = [mean(measure_run(each, qrels, ["nDCG@10"])["nDCG@10"]) for each in (run, own)]
            print(
                f"{model}: {strangers:.2f} of the tail in the best ten; nDCG@10 {both[0]:.4f}, without it {both[1]:.4f}"
            )
        if model != given.teacher:
            found = taus(run, runs[given.teacher])
            print(
                f"{model}: tau {with_error(list(found.values()))}, {len(found)} queries; over {given.models[0]}: ",
                end="",
            )
            print(with_error([found[name] - first[name] for name in found]))


if __name__ == "__main__":
    main()
