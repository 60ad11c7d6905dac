"""Memory of dearlite's embedded model: in one call with many documents, and over many small calls.

    python benchmarks/memory.py

Each half runs in a fresh process, so that neither is affected by memory of the other. README.md in this folder explains
the figures.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from measure import describe_machine, peak_rss_mb, rss_mb

QUERY = "how do rivers change the shape of a valley"
_VOCABULARY = (
    "the of and to in a is that for it was on are as with his they at be this from have or by one had not but what all "
    "were when we there can an your which their said if do will each about how up out them then she many some so these "
    "would other into has more her two like him see time could no make than first been its who now people my made over "
    "did down only way find use may water long little very after words called just where most know river valley rock "
    "stone mountain erosion sediment delta flood glacier plain current channel bank basin"
)
_WORDS = _VOCABULARY.split()
_SEED = 7

Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory of dearlite's embedded model.")
    parser.add_argument(
        "--documents", type=int, metavar="N", default=10_000, help="documents in the one call (default: 10000)"
    )
    parser.add_argument(
        "--calls", type=int, metavar="N", default=1_000, help="small calls after warm-up (default: 1000)"
    )
    parser.add_argument(
        "--warm-up", type=int, metavar="N", default=50, help="small calls before the measurement (default: 50)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to this file")
    options = parser.parse_args()
    if min(options.documents, options.calls, options.warm_up) < 1:
        parser.error("--documents, --calls and --warm-up must be whole numbers from 1")
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "one_call": _in_fresh_process(one_large_call, options.documents),
        "small_calls": _in_fresh_process(many_small_calls, options.calls, options.warm_up),
    }
    _print_report(report)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def one_large_call(documents: int) -> Figures:
    """Memory before dearlite is imported (with the documents in memory), after the model is loaded, and its peak."""
    draw = random.Random(_SEED)
    # Every 50th is longer than the model's 512 tokens: the longest rows determine the peak.
    texts = [_text(draw, 600 if index % 50 == 49 else draw.randint(20, 60)) for index in range(documents)]
    before_mb = rss_mb()
    from dearlite import Reranker

    reranker = Reranker.load(device="cpu")
    loaded_mb = rss_mb()
    print(f"one call, {documents} documents", file=sys.stderr, flush=True)
    start = time.perf_counter()
    ranking = reranker.rerank(QUERY, texts)
    elapsed_s = time.perf_counter() - start
    assert len(ranking) == documents
    return {
        "documents": documents,
        "threads": reranker.threads,
        "tokens": sum(hit.tokens_used for hit in ranking),
        "elapsed_s": elapsed_s,
        "documents_mb": before_mb,
        "loaded_mb": loaded_mb,
        "peak_mb": peak_rss_mb(),
        "after_mb": rss_mb(),
    }


def many_small_calls(calls: int, warm_up: int) -> Figures:
    """Memory after `warm_up` calls with 1 to 6 documents, and after `calls` further calls."""
    from dearlite import Reranker

    draw = random.Random(_SEED)
    reranker = Reranker.load(device="cpu")
    loaded_mb = rss_mb()
    for _ in range(warm_up):
        reranker.rerank(QUERY, _small_call(draw))
    warm_mb = rss_mb()
    print(f"{calls} small calls", file=sys.stderr, flush=True)
    start = time.perf_counter()
    half_mb = warm_mb
    for call in range(calls):
        if call == calls // 2:
            half_mb = rss_mb()
        reranker.rerank(QUERY, _small_call(draw))
    return {
        "calls": calls,
        "warm_up": warm_up,
        "elapsed_s": time.perf_counter() - start,
        "loaded_mb": loaded_mb,
        "warm_mb": warm_mb,
        "half_mb": half_mb,
        "after_mb": rss_mb(),
        "peak_mb": peak_rss_mb(),
    }


def _small_call(draw: random.Random) -> list[str]:
    return [_text(draw, draw.randint(5, 60)) for _ in range(draw.randint(1, 6))]


def _text(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(_WORDS, k=words))


def _in_fresh_process(measure: Callable[..., Figures], *arguments: int) -> Figures:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


def _print_report(report: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    large, small, machine = report["one_call"], report["small_calls"], report["machine"]
    growth_mb = small["after_mb"] - small["warm_mb"]
    rows = [
        (
            f"one call, {large['documents']:,} documents: baseline (documents in memory, dearlite not imported)",
            large["documents_mb"],
        ),
        ("… model loaded", large["loaded_mb"]),
        ("… peak", large["peak_mb"]),
        ("… peak without the documents (peak − baseline)", large["peak_mb"] - large["documents_mb"]),
        ("… after the call", large["after_mb"]),
        ("small calls: model loaded", small["loaded_mb"]),
        (f"… after {small['warm_up']} calls", small["warm_mb"]),
        (f"… after {small['calls']:,} further calls", small["after_mb"]),
        ("… growth", growth_mb),
        ("… of which in the second half", small["after_mb"] - small["half_mb"]),
    ]
    table = Table(box=box.MARKDOWN)
    table.add_column("RSS", no_wrap=True)
    table.add_column("MB", justify="right")
    for name, megabytes in rows:
        table.add_row(name, f"{megabytes:.1f}")
    console = Console(width=120, highlight=False, markup=False, emoji=False)
    console.print(f"{machine['date']}; {machine['cpu']}, {machine['cpus']} CPUs; {machine['system']}", soft_wrap=True)
    console.print(table)
    console.print(
        f"The one call took {large['elapsed_s']:.0f} s ({large['tokens'] / large['documents']:.0f} tokens per pair, "
        f"{large['threads']} threads), the {small['calls']:,} small calls {small['elapsed_s']:.0f} s; growth is "
        f"{growth_mb * 2**10 / small['calls']:.2f} KiB per call.",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
