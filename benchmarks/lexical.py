"""BM25 of dearlite beside bm25s itself: time of the index, of a query, and memory, over many passages.

    python benchmarks/lexical.py CORPUS [--passages 100000] [--rounds 5]

CORPUS is JSON Lines with texts (.gz too). Its texts are repeated with a word of their own until there are enough. Each
round builds both indexes and searches in turn; medians are printed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import statistics
import time
from itertools import count, islice
from pathlib import Path

import bm25s
import Stemmer
from measure import describe_machine

from dearlite import Corpus, Reranker

QUERIES = ("when was the university founded", "who wrote the song of the year", "population of the city")


def read_texts(path: Path, number: int) -> list[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    return list(islice((f"{text} v{turn}" for turn in count() for text in texts), number))


def measure_bm25s(texts: list[str]) -> tuple[float, float]:
    """Seconds of the index, and of a query."""
    stemmer = Stemmer.Stemmer("english")
    start = time.perf_counter()
    tokens = bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)
    index = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    index.index(tokens, show_progress=False)
    built = time.perf_counter() - start
    start = time.perf_counter()
    for query in QUERIES:
        words = bm25s.tokenize([query], stopwords="en", stemmer=stemmer, show_progress=False)
        index.retrieve(words, k=100, show_progress=False)
    return built, (time.perf_counter() - start) / len(QUERIES)


def measure_dearlite(texts: list[str]) -> tuple[float, float]:
    """Seconds of the index with the reading of the documents, and of a query after the first."""
    start = time.perf_counter()
    corpus, reranker = Corpus(texts), Reranker.load("bm25")
    reranker.rerank("a query", corpus, top_k=100)
    built = time.perf_counter() - start
    start = time.perf_counter()
    for query in QUERIES:
        reranker.rerank(query, corpus, top_k=100)
    return built, (time.perf_counter() - start) / len(QUERIES)


def main() -> None:
    """Prints the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(json.dumps(describe_machine()))
    texts = read_texts(options.corpus, options.passages)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = {"dearlite": [measure_dearlite(texts)]}
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / options.passages
    times["bm25s"] = [measure_bm25s(texts)]
    for _ in range(options.rounds - 1):
        times["dearlite"].append(measure_dearlite(texts))
        times["bm25s"].append(measure_bm25s(texts))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in times.items()}
    for name, (index_s, query_s) in medians.items():
        print(f"{name}: index of {len(texts):,} passages {index_s:.2f} s, query {query_s * 1000:.1f} ms")
    print(f"index: {medians['dearlite'][0] / medians['bm25s'][0]:.2f} of bm25s; peak {peak:.2f} KiB a passage")


if __name__ == "__main__":
    main()
