"""Agreement of scorers with their teacher on queries outside the training records, with judgements and with a tail.

    python benchmarks/nearness.py squad5 second.dear third.dear --depth 20 --queries 100 --without squad_2.jsonl.gz …
    python benchmarks/nearness.py squad5 second.dear --depth 30 --queries 30 --tail 70 --without squad_2.jsonl.gz …
    python benchmarks/nearness.py nq_utd second.dear --depth 100

The collection is as for `dearlite eval`. The output has, for each model file, Kendall's tau-b to the teacher, nDCG@10
and its difference from the teacher's, as means over queries with standard errors; and the difference of its tau from
the first file's.
`--tail N` appends N random documents of other queries to each run: the output has the number of them in the first ten,
and nDCG@10 without them.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch_run import draw_queries, taus

from dearlite import rerank_run
from dearlite.files.trec import Qrels, Run, read_qrels
from dearlite.offline.collection.collection import Collection, open_collection
from dearlite.offline.evaluation.measures import mean, measure_run

SEED = 1


def difference(values: Mapping[str, float], baseline: Mapping[str, float]) -> str:
    """The mean of the differences per query, and its standard error, as text."""
    return with_error({name: values[name] - baseline[name] for name in values})


def with_error(values: Mapping[str, float]) -> str:
    """The mean and its standard error, as text."""
    return f"{mean(values):.4f} ± {statistics.stdev(values.values()) / len(values) ** 0.5:.4f}"


def ndcg(run: Run, qrels: Qrels) -> dict[str, float]:
    """nDCG@10 of each query of the run."""
    return measure_run(run, {name: qrels[name] for name in run if name in qrels}, ["nDCG@10"])["nDCG@10"]


def with_tail(collection: Collection, source: Collection, size: int) -> tuple[Collection, dict[str, set[str]]]:
    """`collection` with `size` documents of `source` appended to each query's run, and their ids by query."""
    rng, pool = random.Random(SEED), sorted(source.documents)
    tails = {name: set(rng.sample(pool, size)) - set(first) for name, first in collection.run.items()}
    run = {
        name: first | {doc_id: min(first.values()) - rank for rank, doc_id in enumerate(sorted(tails[name]), start=1)}
        for name, first in collection.run.items()
    }
    return replace(collection, documents=source.documents, run=run), tails


def tail_summary(run: Run, tails: Mapping[str, set[str]], qrels: Qrels) -> str:
    """The mean number of tail documents in the first ten, and nDCG@10 without the tail, as text."""
    best = {name: sorted(scores, key=scores.__getitem__)[-10:] for name, scores in run.items()}
    intruders = statistics.mean(len(tails[name].intersection(ids)) for name, ids in best.items())
    own = {n: {doc: score for doc, score in scores.items() if doc not in tails[n]} for n, scores in run.items()}
    return f"; {intruders:.2f} of the tail in the first ten, nDCG@10 without it {mean(ndcg(own, qrels)):.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path)
    parser.add_argument("models", nargs="+", help="names or model files")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--queries", type=int, help="number of queries, drawn by a seed (default: all)")
    parser.add_argument("--without", type=Path, action="append", default=[], help="training records to exclude")
    parser.add_argument("--teacher", default="minilm-l12")
    parser.add_argument("--tail", type=int, default=0, help="documents to append to each run")
    options = parser.parse_args()
    full = open_collection(options.collection, run=options.run, depth=options.depth)
    if full.qrels is None:
        parser.error(f"{options.collection} has no judgements")
    collection, tails, qrels = draw_queries(full, options.queries, options.without), {}, read_qrels(full.qrels)
    if options.tail:
        collection, tails = with_tail(collection, full, options.tail)
    teacher, first = rerank_run(collection, model=options.teacher, journal=False).run, None
    teacher_ndcg = ndcg(teacher, qrels)
    print(f"{options.teacher}: nDCG@10 {mean(teacher_ndcg):.4f}{tail_summary(teacher, tails, qrels) if tails else ''}")
    for model in options.models:
        run = rerank_run(collection, model=model, journal=False).run
        agreement, quality = taus(run, teacher), ndcg(run, qrels)
        print(f"{model}: tau {with_error(agreement)}, {len(agreement)} queries", end="")
        print(f", minus the first {difference(agreement, first)}" if first else "", end="")
        print(f"; nDCG@10 {mean(quality):.4f}, minus the teacher's {difference(quality, teacher_ndcg)}", end="")
        print(tail_summary(run, tails, qrels) if tails else "", flush=True)
        first = first or agreement


if __name__ == "__main__":
    main()
