"""dearlite's embedded model beside other ways to run the same model: documents per second, memory, start-up times.

    python benchmarks/pointwise.py --published-onnx FOLDER

Rounds are interleaved (every system once per round, each round starts with the next system) and medians are reported,
so that a slow phase of the machine affects all systems alike. README.md in this folder explains each figure.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from measure import describe_machine
from published import make_folders
from report import describe_models, print_report, summarise
from start_up import measure_start_up
from systems import SYSTEMS, Work
from workers import Round, SystemFailed, Worker

REPOSITORY = Path(__file__).resolve().parent.parent
WARM_UP_DOCUMENTS = 16
SETTLE_S = 0.2  # after a call, spinning threads have gone to sleep within this time


def main() -> None:
    options = parse_options()
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }  # inherited by the workers: no system uses the network
    from dearlite.machine import check_threads

    machine = describe_machine()  # before the work: the load average is that of other processes
    run = options.run or default_run(options.collection)
    work = read_work(options.collection, run, options.pairs)
    threads = check_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="dearlite-benchmark-") as folder, ExitStack() as stack:
        setting = make_folders(options.published_onnx, Path(folder), threads=threads, older=options.older)
        workers: dict[str, Worker] = {}
        failures: dict[str, str] = {}
        for key in options.only or [key for key in SYSTEMS if key != "dearlite-older" or options.older]:
            system = SYSTEMS[key]
            print_progress(f"loading {system.name}")
            try:
                if system.needs_published and setting.published is None:
                    raise SystemFailed("needs --published-onnx FOLDER")
                workers[key] = stack.enter_context(Worker(key, setting))
            except SystemFailed as err:
                failures[key] = str(err)
        rounds = run_rounds(workers, work, failures, count=options.rounds, limit_s=options.limit_s)
    print_progress("start-up times")
    models = describe_models(options.published_onnx, work)
    report: dict[str, Any] = {
        "machine": machine,
        "threads": threads,
        "rounds": max(map(len, rounds.values()), default=0),
        "collection": {"name": options.collection.name, "run": run, "queries": len(work)},
        **models,
        "systems": summarise({key: workers[key].load_s for key in rounds}, rounds, failures, models["tokens"]),
        "start_up": measure_start_up(REPOSITORY, options.rounds),
    }
    print_report(report)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="dearlite beside other ways to run the same model.")
    parser.add_argument(
        "--published-onnx", type=Path, metavar="FOLDER", help="the folder of model.onnx and tokenizer.json"
    )
    default = REPOSITORY / "export" / "data" / "noveleval"
    parser.add_argument("--collection", type=Path, metavar="FOLDER", default=default, help="in BEIR's layout")
    parser.add_argument("--run", metavar="NAME", help="a run in the collection (default: run_bm25.trec, else run.trec)")
    parser.add_argument(
        "--pairs", type=int, metavar="N", default=128, help="the first N pairs of the run (default: 128)"
    )
    parser.add_argument("--rounds", type=int, metavar="N", default=5, help="default: 5")
    parser.add_argument(
        "--limit-s",
        type=float,
        metavar="S",
        default=400,
        help="begin no round that would end after S seconds (default: 400)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: one per core, as in dearlite")
    parser.add_argument("--older", type=Path, metavar="FILE", help="another file of dearlite's, as another row")
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, metavar="SYSTEM", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to this file")
    options = parser.parse_args()
    if options.pairs < 1 or options.rounds < 1:
        parser.error("--pairs and --rounds must be whole numbers from 1")
    if not (options.collection / "corpus.jsonl.gz").is_file():
        parser.error(f"no corpus.jsonl.gz in {options.collection}: pass --collection FOLDER")
    if options.published_onnx is not None:
        missing = [name for name in ("model.onnx", "tokenizer.json") if not (options.published_onnx / name).is_file()]
        if missing:
            parser.error(f"no {' and no '.join(missing)} in {options.published_onnx}: pass --published-onnx FOLDER")
    return options


def default_run(collection: Path) -> str:
    """The name of the collection's BM25 run."""
    return "run_bm25.trec" if (collection / "run_bm25.trec").is_file() else "run.trec"


def read_work(collection: Path, run: str, pairs: int) -> Work:
    """The texts of the first `pairs` lines of a run, a title joined by a space: the same strings for all systems."""
    lines = (collection / run).read_text().splitlines()
    wanted = [tuple(line.split()[0:3:2]) for line in lines[:pairs]]  # (query id, document id)
    with gzip.open(collection / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        corpus = dict(_texts(file, {document for _, document in wanted}))
    with open(collection / "queries.jsonl", encoding="utf-8") as file:
        queries = dict(_texts(file, {query for query, _ in wanted}))
    work: dict[str, list[str]] = {}
    for query, document in wanted:
        work.setdefault(query, []).append(corpus[document])
    return [(queries[query], texts) for query, texts in work.items()]


def _texts(lines: Iterator[str], wanted: set[str]) -> Iterator[tuple[str, str]]:
    for record in map(json.loads, lines):
        if record["_id"] in wanted:
            yield record["_id"], f"{record.get('title') or ''} {record['text']}".strip()


def run_rounds(
    workers: dict[str, Worker], work: Work, failures: dict[str, str], *, count: int, limit_s: float
) -> dict[str, list[Round]]:
    """Each worker's rounds, from one to `count`. A worker that fails is moved to `failures`."""
    query, texts = work[0]
    rounds: dict[str, list[Round]] = {key: [] for key in workers}
    print_progress("warming up")
    _run_round(workers, [(query, texts[:WARM_UP_DOCUMENTS])], rounds, failures, turn=0)
    for worker_rounds in rounds.values():
        worker_rounds.clear()
    start = time.perf_counter()
    for number in range(count):
        elapsed_s = time.perf_counter() - start
        if number and elapsed_s * (number + 1) / number > limit_s:
            print_progress(f"stopped after {number} of {count} rounds: another would pass --limit-s {limit_s:g}")
            break
        print_progress(f"round {number + 1} of {count}")
        _run_round(workers, work, rounds, failures, turn=number)
    return rounds


def _run_round(
    workers: dict[str, Worker], work: Work, rounds: dict[str, list[Round]], failures: dict[str, str], *, turn: int
) -> None:
    order = list(rounds)
    for position in range(len(order)):
        key = order[(position + turn) % len(order)]
        time.sleep(SETTLE_S)
        try:
            rounds[key].append(workers[key].run(work))
        except SystemFailed as err:
            failures[key] = str(err)
            del rounds[key]


def print_progress(message: str) -> None:
    """Prints `message` to stderr."""
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
