"""What a second Ray actor gains on one machine: the same blocks by one actor of one thread and by two, side by side.

    python benchmarks/cluster.py FOLDER [--queries 16] [--rounds 5]

FOLDER is a collection (docs/collections.md). Two ratios: of the whole call (Ray's start and the models' loading
included), and of the slope of blocks done over time, which is what a long job approaches. Each round
also takes one process with one thread and with two, which say what the machine itself gains from a second core.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from dearlite import Reranker, rerank_run
from dearlite.offline.cluster.ray import Scoring, rerank_on_ray
from dearlite.offline.collection.collection import Collection, make_collection, open_collection

_SCORING = Scoring("minilm-l12", "cpu", threads=1, depth=100, skip_bad=False, listwise=None, together=8, loading={})


def on_ray(collection: Collection, actors: int) -> tuple[float, float]:
    """Pairs a second of the whole call, and by the least-squares slope of blocks done over time."""
    folder, times = Path(tempfile.mkdtemp()), []
    try:
        start = time.perf_counter()
        rerank_on_ray(
            collection,
            folder,
            scoring=_SCORING,
            actors=(actors, actors),
            block_queries=1,
            progress=lambda done, _: times.append((done, time.perf_counter())),
        )
        whole = time.perf_counter() - start
    finally:
        shutil.rmtree(folder)
    blocks, seconds = zip(*times[1:], strict=True)  # the first entry is of none done
    slope = statistics.linear_regression(seconds, blocks).slope
    return collection.pairs / whole, collection.pairs / len(collection.run) * slope


def in_process(collection: Collection, threads: int) -> float:
    """Pairs a second of one process."""
    return collection.pairs / rerank_run(collection, model=Reranker.load(threads=threads), journal=False).seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    whole = open_collection(given.folder)
    run = dict(list(whole.run.items())[: given.queries])
    collection = make_collection(whole.queries, whole.documents, run)
    print(f"{given.folder}: {len(run)} queries, {collection.pairs} pairs")
    rows = []
    for _ in range(given.rounds):
        one, two = on_ray(collection, 1), on_ray(collection, 2)
        alone, both = in_process(collection, 1), in_process(collection, 2)
        rows.append((two[1] / one[1], two[0] / one[0], both / alone))
        print(
            f"actors, steady: {one[1]:.1f} and {two[1]:.1f} pairs/s ({rows[-1][0]:.2f}); whole call: {one[0]:.1f} and "
            f"{two[0]:.1f} ({rows[-1][1]:.2f}); threads of one process: {alone:.1f} and {both:.1f} ({rows[-1][2]:.2f})",
            flush=True,
        )
    names = ("two actors over one, steady", "two actors over one, whole call", "two threads over one")
    for name, values in zip(names, zip(*rows, strict=True), strict=True):
        print(f"{name}: median {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
