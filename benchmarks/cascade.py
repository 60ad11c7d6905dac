"""What a cascade costs and gains.

    python benchmarks/cascade.py parts SCORER.dear COLLECTION [--rounds 5]
    python benchmarks/cascade.py budget MODEL COLLECTION [--rounds 5]
    python benchmarks/cascade.py long SCORER.dear COLLECTION [--queries 20] [--keep 1 2]

`parts`: the embedded default on 100 documents and then a scorer on the best 20, beside the two called by themselves.
`budget`: half of the time that a query takes in full, how late it ends, and how much of it was looked at.
`long`: documents of about 2,000 tokens, made by joining: each document of the run with others that were judged for no
query, at a place drawn by a seed (the collections at hand are of abstracts and passages). The scorer alone over all
passages (chunk), beside the embedded default picking so many of each document for it (cascade, one for each --keep).
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path

from measure import describe_machine

from dearlite import Long, Reranker
from dearlite.documents import Document
from dearlite.files.trec import read_qrels
from dearlite.models.registry import DEFAULT_MODEL
from dearlite.offline.collection.collection import Collection, open_collection
from dearlite.offline.evaluation.measures import mean, measure_run

_JOINED = 9000  # characters: about 2,000 tokens
Job = tuple[str, list[Document]]


def jobs_of(collection: Collection, count: int, depth: int) -> list[Job]:
    """The queries that have `depth` documents, `count` of them at most."""
    full = [(name, ids) for name, ids in collection.run.items() if len(ids) >= depth]
    return [
        (collection.queries[name], [collection.documents[one] for one in list(ids)[:depth]])
        for name, ids in full[:count]
    ]


def parts(model: str, collection: Collection, rounds: int) -> None:
    """The cascade's time over the sum of its parts, query by query in turns."""
    cheap, dear = Reranker.load(), Reranker.load(model)
    chain = Reranker.load([DEFAULT_MODEL, (model, 20)])
    ratios = []
    for number, (query, documents) in enumerate(jobs_of(collection, rounds + 1, 100)):
        start = time.perf_counter()
        head = [hit.index for hit in cheap.rerank(query, documents)][:20]
        dear.rerank(query, [documents[index] for index in head])
        apart = time.perf_counter() - start
        start = time.perf_counter()
        chain.rerank(query, documents)
        together = time.perf_counter() - start
        if number:  # the first loads and warms up
            ratios.append(together / apart)
            print(f"  apart {apart:.2f} s, cascade {together:.2f} s, ratio {ratios[-1]:.3f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


def budget(model: str, collection: Collection, rounds: int) -> None:
    """Half of the full time."""
    reranker = Reranker.load(model)
    late, shares = [], []
    for number, (query, documents) in enumerate(jobs_of(collection, rounds + 1, 100)):
        full = reranker.rerank(query, documents).elapsed_s
        start = time.perf_counter()
        ranking = reranker.rerank(query, documents, budget_s=full / 2)
        took = time.perf_counter() - start
        assert sorted(hit.index for hit in ranking) == list(range(len(documents)))
        if number:
            late.append(1000 * (took - full / 2))
            shares.append(ranking.stages[0].looked_at / len(documents))
            state = "complete" if ranking.complete else "not complete"
            print(f"  given {full / 2:.2f} s of {full:.2f} s, took {took:.2f} s, {state}, {shares[-1]:.0%} read")
    share = statistics.median(shares)
    print(f"late by {statistics.median(late):.0f} ms, median (worst {max(late):.0f}); {share:.0%} read")


def joined(collection: Collection, judged: set[str], seed: int = 42) -> dict[str, Document]:
    """Every document with unjudged ones of the collection around it, `_JOINED` characters in all."""
    rng = random.Random(seed)
    spare = [document.text for name, document in collection.documents.items() if name not in judged]
    made = {}
    for name, document in collection.documents.items():
        texts = [document.text]
        while sum(map(len, texts)) < _JOINED:
            texts.insert(rng.randrange(len(texts) + 1), rng.choice(spare))
        made[name] = Document(" ".join(texts), id=name, title=document.title)
    return made


def long(model: str, collection: Collection, queries: int, depth: int, keeps: list[int]) -> None:
    """Seconds a query and nDCG@10 of every way over the same joined documents, in turns."""
    assert collection.qrels is not None, "the collection has no qrels"
    qrels = read_qrels(collection.qrels)
    texts = joined(collection, {name for grades in qrels.values() for name in grades})
    chain, alone = Reranker.load([DEFAULT_MODEL, (model, depth)]), Reranker.load(model)
    names = [name for name in collection.run if name in qrels][:queries]
    ways = {"chunk": (alone, Long("chunk"))} | {f"cascade, {n} kept": (chain, Long("cascade", keep=n)) for n in keeps}
    runs: dict[str, dict[str, dict[str, float]]] = {way: {} for way in ways}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for name in names:
        ids = list(collection.run[name])[:depth]
        documents = [texts[one] for one in ids]
        for way, (reranker, mode) in ways.items():
            start = time.perf_counter()
            ranking = reranker.rerank(collection.queries[name], documents, long=mode)
            seconds[way].append(time.perf_counter() - start)
            runs[way][name] = {ids[hit.index]: -float(hit.rank) for hit in ranking}
        print(f"  {name}: {', '.join(f'{way} {taken[-1]:.2f} s' for way, taken in seconds.items())}", flush=True)
    for way, run in runs.items():
        quality = mean(measure_run(run, {name: qrels[name] for name in names}, ["nDCG@10"])["nDCG@10"])
        ratios = [a / b for a, b in zip(seconds["chunk"][1:], seconds[way][1:], strict=True)]  # the first warms up
        print(
            f"{way}: {statistics.median(seconds[way]):.2f} s a query, nDCG@10 {quality:.4f}; chunk takes "
            f"{statistics.median(ratios):.2f} times as long ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["parts", "budget", "long"])
    parser.add_argument("model")
    parser.add_argument("collection", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--depth", type=int, default=20, help="of long: documents of each query")
    parser.add_argument(
        "--keep", type=int, nargs="+", default=[1, 2], help="of long: passages of a document for the scorer"
    )
    given = parser.parse_args()
    print(describe_machine()["cpu"])
    collection = open_collection(given.collection, skip_bad=True)
    if given.what == "long":
        long(given.model, collection, given.queries, given.depth, given.keep)
    else:
        {"parts": parts, "budget": budget}[given.what](given.model, collection, given.rounds)


if __name__ == "__main__":
    main()
