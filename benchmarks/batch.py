"""The overhead of `dearlite batch`: `python benchmarks/batch.py overhead FOLDER`, `… stub [--pairs N]`.

`overhead`: seconds of bare scoring (`Reranker.score` over the same pairs) and of `rerank_run` with journal and files,
alternately in one process, so that both run under the same load; the result is the median ratio of adjacent runs.
Reading the files is reported separately. `stub`: a million pairs through `rerank_run` with a model that returns a
constant at once.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from measure import describe_machine, peak_rss_mb, rss_mb

from dearlite import Document, Ranking, Reranker, rerank_run
from dearlite.jobs import Job
from dearlite.offline.collection.collection import open_collection
from dearlite.options import Call
from dearlite.ranking import PairScore


class Constant(Reranker):
    """A model that scores every pair as 0.5."""

    model, device, quantisation, threads = "constant", "cpu", "none", 1  # type: ignore[assignment]

    def identity(self, listwise: object = None) -> dict[str, str]:
        return {"model": self.model, "sha256": "0" * 64, "device": "cpu", "quantisation": "none", "prompt": ""}

    def rank(self, jobs: Sequence[Job], call: Call) -> list[Ranking]:
        raise NotImplementedError  # rerank_run takes the scores of a pointwise model from `stream`

    def stream(self, pairs: Iterable[tuple[str, Document]]) -> Iterator[PairScore]:
        score = PairScore(0.5, 100, 100)
        for _ in pairs:
            yield score


def overhead(folder: Path, rounds: int, depth: int) -> None:
    reranker = Reranker.load()
    start = time.perf_counter()
    collection = open_collection(folder, depth=depth)
    reading = time.perf_counter() - start
    pairs = [(collection.queries[q], collection.documents[d]) for q, ranking in collection.run.items() for d in ranking]
    reranker.score(pairs[:50])
    ratios = []
    for number in range(rounds):
        times = {}
        for kind in ("bare", "batch") if number % 2 else ("batch", "bare"):
            start = time.perf_counter()
            if kind == "bare":
                reranker.score(pairs)
            else:
                with tempfile.TemporaryDirectory() as folder_name:
                    files = {"output": f"{folder_name}/out.trec", "jsonl": f"{folder_name}/out.jsonl"}
                    rerank_run(collection, model=reranker, **files)
            times[kind] = time.perf_counter() - start
        ratios.append(times["batch"] / times["bare"])
        print(
            f"{collection.name}: bare {times['bare']:.1f} s, batch {times['batch']:.1f} s, ratio {ratios[-1]:.4f}",
            flush=True,
        )
    typical = statistics.median(times.values())
    print(
        f"median ratio {statistics.median(ratios):.4f} of {rounds} rounds ({len(pairs)} pairs, depth {depth}); "
        f"reading the files {reading:.2f} s, {100 * reading / typical:.2f}% more"
    )


def stub(pairs: int, depth: int, documents: int) -> None:
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        text = "a passage of the usual length, some sixty words in all, " * 6
        with gzip.open(folder / "corpus.jsonl.gz", "wt", compresslevel=1) as file:
            for number in range(documents):
                file.write(json.dumps({"_id": f"doc{number}", "title": "", "text": f"{number} {text}"}) + "\n")
        with open(folder / "queries.jsonl", "w") as file, open(folder / "run.trec", "w") as run:
            for number in range(pairs // depth):
                file.write(json.dumps({"_id": f"q{number}", "text": f"query number {number}"}) + "\n")
                for rank in range(depth):
                    name = (number * 7919 + rank * 104729) % documents
                    run.write(f"q{number} Q0 doc{name} {rank + 1} {100 - rank / 7:.6f} bm25\n")
        start, before = time.perf_counter(), rss_mb()
        collection = open_collection(folder)
        read = time.perf_counter()
        text_mb = sum(len(document.text) for document in collection.documents.values()) / 2**20
        reranked = rerank_run(collection, model=Constant(), output=folder / "out.trec")
        end = time.perf_counter()
        assert reranked.scored == collection.pairs == pairs
        print(
            f"{pairs} pairs of {documents} documents: {pairs / (end - start):,.0f} pairs/s in total, "
            f"{pairs / (end - read):,.0f} after reading ({read - start:.1f} s); peak RSS {peak_rss_mb():.0f} MB, "
            f"of which texts {text_mb:.0f} MB, Python and its modules {before:.0f} MB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    overhead_parser = kinds.add_parser("overhead", help="batch beside bare scoring")
    overhead_parser.add_argument("folder", type=Path, help="a collection")
    overhead_parser.add_argument("--rounds", type=int, default=5)
    overhead_parser.add_argument("--depth", type=int, default=100, help="documents per query")
    stub_parser = kinds.add_parser("stub", help="a million pairs with a model that returns a constant")
    stub_parser.add_argument("--pairs", type=int, default=1_000_000)
    stub_parser.add_argument("--depth", type=int, default=100, help="documents per query")
    stub_parser.add_argument("--documents", type=int, default=200_000, help="size of the corpus")
    options = parser.parse_args()
    print(json.dumps(describe_machine()))
    if options.kind == "overhead":
        overhead(options.folder, options.rounds, options.depth)
    else:
        stub(options.pairs, options.depth, options.documents)


if __name__ == "__main__":
    main()
