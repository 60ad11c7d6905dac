"""Cost and gain of a cascade.

    python benchmarks/cascade.py parts SCORER.dear COLLECTION [--rounds 5]
    python benchmarks/cascade.py budget MODEL COLLECTION [--rounds 5]
    python benchmarks/cascade.py long SCORER.dear COLLECTION [--queries 20] [--keep 1 2]

`parts`: a cascade (the embedded model on 100 documents, a scorer on the best 20) beside the two models called one after
the other. `budget`: half of a query's full time; the delay of its end and the share of documents that were scored.
`long`: documents of about 2,000 tokens, each made of a document of the run and of documents without judgements, joined
in a random order drawn from a seed (the available collections hold abstracts and passages). The scorer on all passages
(chunk), beside the embedded model selecting N passages per document for it (cascade; one row per --keep N).
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

_JOINED_CHARACTERS = 9000  # about 2,000 tokens
Job = tuple[str, list[Document]]


def jobs_of(collection: Collection, count: int, depth: int) -> list[Job]:
    """The first `count` queries that have `depth` documents."""
    full = [(name, ids) for name, ids in collection.run.items() if len(ids) >= depth]
    return [
        (collection.queries[name], [collection.documents[doc_id] for doc_id in list(ids)[:depth]])
        for name, ids in full[:count]
    ]


def parts(model: str, collection: Collection, rounds: int) -> None:
    """Prints the ratio of the cascade's time to the sum of its parts, query by query, alternately."""
    embedded, scorer = Reranker.load(), Reranker.load(model)
    chain = Reranker.load([DEFAULT_MODEL, (model, 20)])
    ratios = []
    for number, (query, documents) in enumerate(jobs_of(collection, rounds + 1, 100)):
        start = time.perf_counter()
        head = [hit.index for hit in embedded.rerank(query, documents)][:20]
        scorer.rerank(query, [documents[index] for index in head])
        apart = time.perf_counter() - start
        start = time.perf_counter()
        chain.rerank(query, documents)
        together = time.perf_counter() - start
        if number:  # the first query is the warm-up
            ratios.append(together / apart)
            print(f"  apart {apart:.2f} s, cascade {together:.2f} s, ratio {ratios[-1]:.3f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


def budget(model: str, collection: Collection, rounds: int) -> None:
    """Prints the delay and the share of documents scored with half of the full time as the budget."""
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
            shares.append(ranking.stages[0].scored / len(documents))
            state = "complete" if ranking.complete else "not complete"
            print(f"  given {full / 2:.2f} s of {full:.2f} s, took {took:.2f} s, {state}, {shares[-1]:.0%} read")
    share = statistics.median(shares)
    print(f"late by {statistics.median(late):.0f} ms, median (worst {max(late):.0f}); {share:.0%} read")


def joined(collection: Collection, judged: set[str], seed: int = 42) -> dict[str, Document]:
    """Each document joined with unjudged documents of the collection around it, `_JOINED_CHARACTERS` in total."""
    rng = random.Random(seed)
    unjudged = [document.text for name, document in collection.documents.items() if name not in judged]
    long_documents = {}
    for name, document in collection.documents.items():
        texts = [document.text]
        while sum(map(len, texts)) < _JOINED_CHARACTERS:
            texts.insert(rng.randrange(len(texts) + 1), rng.choice(unjudged))
        long_documents[name] = Document(" ".join(texts), id=name, title=document.title)
    return long_documents


def long(model: str, collection: Collection, queries: int, depth: int, keeps: list[int]) -> None:
    """Prints seconds per query and nDCG@10 of each mode on the same joined documents, alternately."""
    assert collection.qrels is not None, "the collection has no qrels"
    qrels = read_qrels(collection.qrels)
    texts = joined(collection, {name for grades in qrels.values() for name in grades})
    chain, alone = Reranker.load([DEFAULT_MODEL, (model, depth)]), Reranker.load(model)
    names = [name for name in collection.run if name in qrels][:queries]
    modes = {"chunk": (alone, Long("chunk"))} | {f"cascade, {n} kept": (chain, Long("cascade", keep=n)) for n in keeps}
    runs: dict[str, dict[str, dict[str, float]]] = {way: {} for way in modes}
    seconds: dict[str, list[float]] = {way: [] for way in modes}
    for name in names:
        ids = list(collection.run[name])[:depth]
        documents = [texts[doc_id] for doc_id in ids]
        for way, (reranker, mode) in modes.items():
            start = time.perf_counter()
            ranking = reranker.rerank(collection.queries[name], documents, long=mode)
            seconds[way].append(time.perf_counter() - start)
            runs[way][name] = {ids[hit.index]: -float(hit.rank) for hit in ranking}
        print(f"  {name}: {', '.join(f'{way} {taken[-1]:.2f} s' for way, taken in seconds.items())}", flush=True)
    for way, run in runs.items():
        quality = mean(measure_run(run, {name: qrels[name] for name in names}, ["nDCG@10"])["nDCG@10"])
        ratios = [
            a / b for a, b in zip(seconds["chunk"][1:], seconds[way][1:], strict=True)
        ]  # the first query is the warm-up
        print(
            f"{way}: {statistics.median(seconds[way]):.2f} s per query, nDCG@10 {quality:.4f}; chunk takes "
            f"{statistics.median(ratios):.2f} times as long ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["parts", "budget", "long"])
    parser.add_argument("model")
    parser.add_argument("collection", type=Path)
    parser.add_argument("--rounds", type=int, default=5, help="parts, budget: number of queries")
    parser.add_argument("--queries", type=int, default=20, help="long: number of queries")
    parser.add_argument("--depth", type=int, default=20, help="long: documents per query")
    parser.add_argument(
        "--keep", type=int, nargs="+", default=[1, 2], help="long: passages per document for the scorer"
    )
    options = parser.parse_args()
    print(describe_machine()["cpu"])
    collection = open_collection(options.collection, skip_bad=True)
    if options.what == "long":
        long(options.model, collection, options.queries, options.depth, options.keep)
    else:
        {"parts": parts, "budget": budget}[options.what](options.model, collection, options.rounds)


if __name__ == "__main__":
    main()
