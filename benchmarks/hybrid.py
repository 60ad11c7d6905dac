"""Time of a query on CPUs with cores of several speeds, simulated: `python benchmarks/hybrid.py [--documents 20,100]`.

Documents have the lengths of NovelEval's pairs, and take time in proportion to them. A worker per core scores one
document at a time. The figures are the query's time beside the ideal one, in which all cores end at once: means over
queries. Threads stay on their cores here; a system moves them to a faster core that has become free.
"""

from __future__ import annotations

import argparse
import heapq
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from dearlite.export.quality.card import load_pairs
from dearlite.models.bundle import Bundle
from dearlite.models.registry import DEFAULT_MODEL, find_model
from dearlite.pointwise.tokens import PairEncoder
from dearlite.pointwise.workers import Job, Queue

COLLECTION = Path(__file__).parents[1] / "export" / "data" / "noveleval"
# name -> the speed of each core, fastest first
CPUS = {
    "2 equal cores": [1.0] * 2,
    "4 equal cores": [1.0] * 4,
    "8 equal cores": [1.0] * 8,
    "4 P and 4 E (Apple M1 to M3)": [1.0] * 4 + [0.35] * 4,
    "2 P and 8 E (Intel U, 12th to 14th)": [1.0] * 2 + [0.5] * 8,
    "6 P, 8 E, 2 LP-E (Intel H, Core Ultra 1)": [1.0] * 6 + [0.5] * 8 + [0.25] * 2,
    "4 big and 4 little (RK3588)": [1.0] * 4 + [0.15] * 4,
}
Plan = Callable[[Sequence[float], Sequence[float]], float]


def split(costs: Sequence[float], speeds: Sequence[float]) -> float:
    """Every core gets as many documents before any is scored."""
    return max(sum(costs[start :: len(speeds)]) / speed for start, speed in enumerate(speeds))


def one_queue(costs: Sequence[float], speeds: Sequence[float]) -> float:
    """A core that is free takes the next document."""
    free = [(0.0, -speed) for speed in speeds]
    heapq.heapify(free)
    end = 0.0
    for cost in costs:
        at, speed = heapq.heappop(free)
        end = max(end, at - cost / speed)
        heapq.heappush(free, (at - cost / speed, speed))
    return end


def fast_alone(costs: Sequence[float], speeds: Sequence[float]) -> float:
    """As `one_queue`, on the fastest cores alone."""
    return one_queue(costs, [speed for speed in speeds if speed == speeds[0]])


def dearlite(costs: Sequence[float], speeds: Sequence[float]) -> float:
    """The engine's own queue: the longest of the last first, and slow cores leave the last to the fast ones."""
    queue = Queue(len(speeds))
    for cost in costs:
        queue.add(Job(cost, float))
    events: list[tuple[float, int]] = []

    def take(worker: int, at: float) -> None:
        if (job := queue.take(worker)) is not None:
            heapq.heappush(events, (at + job.cost / speeds[worker], worker))

    started = [0.0] * len(speeds)
    for worker in range(len(speeds)):  # the first ones, before all rows are tokenised
        take(worker, 0.0)
    queue.complete = True
    end = 0.0
    while events:
        end, worker = heapq.heappop(events)
        queue.ended(worker, end - started[worker])
        started[worker] = end
        take(worker, end)
    return end


PLANS: dict[str, Plan] = {
    "split evenly": split,
    "fast cores alone": fast_alone,
    "one queue": one_queue,
    "dearlite": dearlite,
}


def lengths() -> list[list[int]]:
    """The numbers of tokens of each query's pairs."""
    bundle = Bundle(find_model(DEFAULT_MODEL))
    encoder = PairEncoder(bundle.read("tokenizer.json"), max_tokens=bundle.manifest.max_tokens)
    queries: dict[str, list[int]] = {}
    for _, _, query, record in load_pairs(COLLECTION, "run_bm25.trec").rows:
        rows = encoder.pairs(encoder.ids(query), [record["text"]])
        queries.setdefault(query, []).extend(row.tokens_used for row in rows)
    return list(queries.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", default="20,100", help="numbers of documents of a query")
    options = parser.parse_args()
    by_query = lengths()
    for count in map(int, options.documents.split(",")):
        pool = [cost for costs in by_query for cost in costs]
        queries = [[*costs, *pool][:count] for costs in by_query]
        print(f"{count} documents" + "".join(f"{name:>18}" for name in PLANS))
        for name, speeds in CPUS.items():
            ideal = [sum(costs) / sum(speeds) for costs in queries]
            times = [
                statistics.mean(plan(costs, speeds) / best for costs, best in zip(queries, ideal, strict=True))
                for plan in PLANS.values()
            ]
            print(f"  {name:42}" + "".join(f"{value:16.2f}  " for value in times))


if __name__ == "__main__":
    main()
