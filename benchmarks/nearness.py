"""How near scorers are to their teacher: on questions that no training record has, on judgements, and with a long tail.

    python benchmarks/nearness.py squad5 second.dear third.dear --depth 20 --queries 100 --without squad_2.jsonl.gz …
    python benchmarks/nearness.py squad5 second.dear --depth 30 --queries 30 --tail 70 --without squad_2.jsonl.gz …
    python benchmarks/nearness.py nq_utd second.dear --depth 100

COLLECTION is as `dearlite eval` takes it. Of each file: Kendall's tau-b to the teacher and nDCG@10 over the teacher's,
means over queries with their standard errors, and its tau over the first file's, query by query. With `--tail` so many
documents of other queries, drawn at random, stand behind each run: how many come among the best ten, and nDCG@10
without them.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch_run import drawn, taus

from dearlite import rerank_run
from dearlite.files.trec import Qrels, Run, read_qrels
from dearlite.offline.collection.collection import Collection, open_collection
from dearlite.offline.evaluation.measures import mean, measure_run

SEED = 1


def over(ours: Mapping[str, float], other: Mapping[str, float]) -> str:
    """The mean of the differences, query by query, and its standard error."""
    return with_error({name: ours[name] - other[name] for name in ours})


def with_error(values: Mapping[str, float]) -> str:
    """The mean and its standard error."""
    return f"{mean(values):.4f} ± {statistics.stdev(values.values()) / len(values) ** 0.5:.4f}"


def ndcg(run: Run, qrels: Qrels) -> dict[str, float]:
    """nDCG@10 of each query of the run."""
    return measure_run(run, {name: qrels[name] for name in run if name in qrels}, ["nDCG@10"])["nDCG@10"]


def with_tail(collection: Collection, whole: Collection, size: int) -> tuple[Collection, dict[str, set[str]]]:
    """`collection` with documents of `whole` behind each query's own, and which they are."""
    rng, pool = random.Random(SEED), sorted(whole.documents)
    tails = {name: set(rng.sample(pool, size)) - set(first) for name, first in collection.run.items()}
    run = {
        name: first | {one: min(first.values()) - place for place, one in enumerate(sorted(tails[name]), start=1)}
        for name, first in collection.run.items()
    }
    return replace(collection, documents=whole.documents, run=run), tails


def about_tail(run: Run, tails: Mapping[str, set[str]], qrels: Qrels) -> str:
    """How many of the tail are among the best ten, and what nDCG@10 would be without it."""
    best = {name: sorted(scores, key=scores.__getitem__)[-10:] for name, scores in run.items()}
    strangers = statistics.mean(len(tails[name].intersection(found)) for name, found in best.items())
    own = {n: {one: score for one, score in scores.items() if one not in tails[n]} for n, scores in run.items()}
    return f"; {strangers:.2f} of the tail in the best ten, without it {mean(ndcg(own, qrels)):.4f}"


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
    if whole.qrels is None:
        parser.error(f"{given.collection} has no judgements")
    collection, tails, qrels = drawn(whole, given.queries, given.without), {}, read_qrels(whole.qrels)
    if given.tail:
        collection, tails = with_tail(collection, whole, given.tail)
    teacher, first = rerank_run(collection, model=given.teacher, journal=False).run, None
    taught = ndcg(teacher, qrels)
    print(f"{given.teacher}: nDCG@10 {mean(taught):.4f}{about_tail(teacher, tails, qrels) if tails else ''}")
    for model in given.models:
        run = rerank_run(collection, model=model, journal=False).run
        near, found = taus(run, teacher), ndcg(run, qrels)
        print(f"{model}: tau {with_error(near)}, {len(near)} queries", end="")
        print(f", over the first {over(near, first)}" if first else "", end="")
        print(f"; nDCG@10 {mean(found):.4f}, over the teacher's {over(found, taught)}", end="")
        print(about_tail(run, tails, qrels) if tails else "", flush=True)
        first = first or near


if __name__ == "__main__":
    main()
