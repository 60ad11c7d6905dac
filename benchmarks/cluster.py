"""The gain of a second Ray actor on one machine: the same blocks with one single-threaded actor and with two.

    python benchmarks/cluster.py FOLDER [--queries 16] [--rounds 5]

FOLDER is a collection (docs/collections.md). Two ratios are printed: of the whole call (including the start of Ray and
the loading of the models), and of the slope of finished blocks over time, which a long job approaches. Each round also
runs one process with one thread and with two, for the gain of a second core on this machine.
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

_SCORING = Scoring("minilm-l12", "cpu", threads=1, depth=100, skip_bad=False, listwise=None, batch_size=8, loading={})


def on_ray(collection: Collection, actors: int) -> tuple[float, float]:
    """Pairs per second of the whole call, and by the least-squares slope of finished blocks over time."""
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
        seconds_in_total = time.perf_counter() - start
    finally:
        shutil.rmtree(folder)
    blocks, seconds = zip(*times[1:], strict=True)  # the first entry is for no finished block
    slope = statistics.linear_regression(seconds, blocks).slope
    return collection.pairs / seconds_in_total, collection.pairs / len(collection.run) * slope


def in_process(collection: Collection, threads: int) -> float:
    """Pairs per second of one process."""
    return collection.pairs / rerank_run(collection, model=Reranker.load(threads=threads), journal=False).seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    folder = open_collection(options.folder)
    run = dict(list(folder.run.items())[: options.queries])
    collection = make_collection(folder.queries, folder.documents, run)
    print(f"{options.folder}: {len(run)} queries, {collection.pairs} pairs")
    rows = []
    for _ in range(options.rounds):
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
