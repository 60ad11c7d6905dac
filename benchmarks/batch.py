"""What `dearlite batch` costs beside the model: `python benchmarks/batch.py overhead FOLDER`, `… stub [--pairs N]`.

`overhead`: seconds of bare scoring (`Reranker.score` over the same pairs) and of `rerank_run` with journal and files,
turn about in one process, so that both meet the same machine; the ratio is of neighbours, its median counts. Reading
the files is counted apart. `stub`: a million pairs through all of `rerank_run` with a model that answers at once.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from measure import describe_machine, peak_rss_mb, rss_mb

from dearlite import Document, Ranking, Reranker, rerank_run
from dearlite.offline.collection.collection import open_collection
from dearlite.ranking import PairScore


class Constant(Reranker):
    """Scores every pair as 0.5 without looking at it."""

    model, device, quantisation, threads = "constant", "cpu", "none", 1  # type: ignore[assignment]

    def identity(self, listwise: object = None) -> dict[str, str]:
        return {"model": self.model, "sha256": "0" * 64, "device": "cpu", "quantisation": "none", "prompt": ""}

    def rerank(self, *_: object, **__: object) -> Ranking:
        raise NotImplementedError

    def stream(self, pairs: Iterable[tuple[str, Document]]) -> Iterator[PairScore]:
        score = PairScore(0.5, 100, 100)
        for _ in pairs:
            yield score


def overhead(folder: Path, rounds: int, depth: int) -> None:
    reranker = Reranker.load()
    start = time.perf_counter()
    collection = open_collection(folder, depth=depth)
    reading = time.perf_counter() - start
    pairs = [(collection.queries[q], collection.documents[d]) for q, found in collection.run.items() for d in found]
    reranker.score(pairs[:50])
    ratios = []
    for number in range(rounds):
        times = {}
        for kind in ("bare", "batch") if number % 2 else ("batch", "bare"):
            start = time.perf_counter()
            if kind == "bare":
                reranker.score(pairs)
            else:
                with tempfile.TemporaryDirectory() as place:
                    rerank_run(collection, model=reranker, output=f"{place}/out.trec", jsonl=f"{place}/out.jsonl")
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
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
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
        text_mb = sum(len(one.text) for one in collection.documents.values()) / 2**20
        found = rerank_run(collection, model=Constant(), output=folder / "out.trec")
        end = time.perf_counter()
        assert found.scored == collection.pairs == pairs
        print(
            f"{pairs} pairs of {documents} documents: {pairs / (end - start):,.0f} pairs/s in all, "
            f"{pairs / (end - read):,.0f} after reading ({read - start:.1f} s); peak RSS {peak_rss_mb():.0f} MB, "
            f"{text_mb:.0f} of them the texts, {before:.0f} Python and its modules"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    one = kinds.add_parser("overhead")
    one.add_argument("folder", type=Path)
    one.add_argument("--rounds", type=int, default=5)
    one.add_argument("--depth", type=int, default=100)
    other = kinds.add_parser("stub")
    other.add_argument("--pairs", type=int, default=1_000_000)
    other.add_argument("--depth", type=int, default=100)
    other.add_argument("--documents", type=int, default=200_000)
    options = parser.parse_args()
    print(json.dumps(describe_machine()))
    if options.kind == "overhead":
        overhead(options.folder, options.rounds, options.depth)
    else:
        stub(options.pairs, options.depth, options.documents)


if __name__ == "__main__":
    main()
