"""Times that a user feels: start-up, --help, completion, and `rerank()` in a loop beside a kept Reranker.

Run on an idle machine: `python benchmarks/everyday.py`. Bounds: --help 0.15 s, completion of a model's name 0.2 s, the
loop 1.1 times the kept Reranker.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from start_up import measure_start_up

from dearlite import Reranker, rerank

_QUERY = "Who invented the light bulb?"
_DOCUMENTS = ["Coffee is good for diet", "Thomas Edison invented it in 1879", "KEPCO fixes light problems"]


def main() -> None:
    """Prints each time, in seconds, and the ratio of the loops."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each command, and of each loop [default: 5]")
    parser.add_argument("--calls", type=int, default=100, help="calls of a loop [default: 100]")
    options = parser.parse_args()
    for name, seconds in measure_start_up(Path(__file__).parents[1], options.rounds).items():
        print(f"{seconds:7.3f} s" if isinstance(seconds, float) else seconds, name, sep="  ")
    with Reranker.load() as reranker:
        loops: dict[str, Callable[[], object]] = {
            "rerank()": lambda: rerank(_QUERY, _DOCUMENTS),
            "a kept Reranker": lambda: reranker.rerank(_QUERY, _DOCUMENTS),
        }
        seconds = {name: [] for name in loops}
        for _ in range(options.rounds + 1):  # the first one loads, and is left out
            for name, call in loops.items():
                start = time.perf_counter()
                for _ in range(options.calls):
                    call()
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    for name, median in medians.items():
        print(f"{median:7.3f} s  {options.calls} calls of {name}")
    own, kept = medians.values()
    print(f"{own / kept:7.3f}    the first over the second")


if __name__ == "__main__":
    main()
