"""Memory, descriptors and threads over very many calls: of the Python API, of the command line, and of the server.

    python benchmarks/soak.py [--calls 100000] [--runs 2000] [--processes 100] [--minutes 0] --json soak.json
    python benchmarks/draw.py soak soak.json -o soak.png

Each part runs in a process of its own, which samples itself. `--calls` are calls of four threads in random order: 0 to
50 documents, one query or several, texts beyond the limit, two models and one by its name, coroutines and streams,
cancelled calls, wrong types. `--runs` are command lines in one process, `--processes` whole processes, whose leftovers
are counted. `--minutes` are serve.py's mixed load on a `dearlite serve`. The model is a tiny one
(tests/support/tiny_bundle.py). The first tenth is the warm-up. Needs Linux and the extra dev.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from measure import describe_machine
from serve import run_threads, running_server

import dearlite
from dearlite import Cancelled, InvalidInput, Reranker, UsageError

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

THREADS = 4
SAMPLES = 200
WARM_UP = 0.1
QUERY = "rivers and valleys"


def sample(done: float, process: int | str = "self") -> dict[str, float]:
    """Resident memory in MB, open descriptors and threads of a process after `done`."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return {
        "done": done,
        "rss_mb": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "descriptors": len(os.listdir(f"/proc/{process}/fd")),
        "threads": len(os.listdir(f"/proc/{process}/task")),
    }


def documents(chance: random.Random) -> list[str]:
    """0 to 50 texts, mostly few; the sizes of calls that people make."""
    count = chance.choice((0, 1, 2, 3, 5, 8)) if chance.random() < 0.95 else chance.randint(9, 50)
    return [f"document {chance.randrange(10**6)} of a river" for _ in range(count)]


# --- Python calls


def plain(models: list[Reranker], chance: random.Random) -> None:
    """One query."""
    chance.choice(models).rerank(QUERY, documents(chance), top_k=chance.choice((None, 1, 10)))


def several(models: list[Reranker], chance: random.Random) -> None:
    """Several jobs, or several queries about the same documents."""
    if chance.random() < 0.5:
        chance.choice(models).rerank_many([(QUERY, documents(chance)), ("floods", documents(chance))])
    else:
        chance.choice(models).rerank([QUERY, "floods"], documents(chance))


def by_name(models: list[Reranker], chance: random.Random) -> None:
    """`dearlite.rerank`, which keeps the model."""
    dearlite.rerank(QUERY, documents(chance), model=chance.choice(MODELS) if chance.random() < 0.01 else MODELS[0])


def too_long(models: list[Reranker], chance: random.Random) -> None:
    """A text beyond the model's limit."""
    ranking = chance.choice(models).rerank(QUERY, ["river " * 3000, "valley"])
    assert ranking[0].tokens_used < ranking[0].tokens_total or ranking[1].tokens_used < ranking[1].tokens_total


def coroutine(models: list[Reranker], chance: random.Random) -> None:
    """An event loop of its own."""
    asyncio.run(chance.choice(models).arerank(QUERY, documents(chance)))


def streamed(models: list[Reranker], chance: random.Random) -> None:
    """The events of a call; every other one is left early."""

    async def read() -> None:
        async for _ in chance.choice(models).astream(QUERY, documents(chance)):
            if chance.random() < 0.5:
                break

    asyncio.run(read())


def cancelled(models: list[Reranker], chance: random.Random) -> None:
    """A call that is cancelled before it starts, or in its course."""
    event = threading.Event()
    if chance.random() < 0.5:
        event.set()

    def progress(done: int, total: int) -> None:
        event.set()

    with suppress(Cancelled):
        chance.choice(models).rerank(QUERY, documents(chance), cancel=event, progress=progress)


def cancelled_task(models: list[Reranker], chance: random.Random) -> None:
    """A coroutine whose task is cancelled."""

    async def run() -> None:
        task = asyncio.create_task(chance.choice(models).arerank(QUERY, ["a river"] * 20))
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError, Cancelled):
            await task

    asyncio.run(run())


def wrong(models: list[Reranker], chance: random.Random) -> None:
    """Arguments of wrong types."""
    bad: Any = chance.choice((5, None, "text", [3], [None], [["a"]], [{"no": "text"}]))
    try:
        chance.choice(models).rerank(QUERY, bad)
    except (InvalidInput, UsageError, TypeError):
        return
    raise AssertionError(f"{bad!r} was ranked")


def reloaded(models: list[Reranker], chance: random.Random) -> None:
    """A model that is loaded for one call."""
    with Reranker.load(MODELS[0], threads=1) as reranker:
        reranker.rerank(QUERY, documents(chance))


KINDS: dict[Callable[[list[Reranker], random.Random], None], int] = {
    plain: 500, several: 150, by_name: 100, too_long: 5, coroutine: 60, streamed: 40, cancelled: 60, cancelled_task: 30,
    wrong: 50, reloaded: 1,
}  # fmt: skip
MODELS: list[str] = []


def python_calls(calls: int, models: list[str]) -> dict[str, Any]:
    """Samples over `calls` calls, and the number of each kind."""
    MODELS[:] = models
    loaded = [Reranker.load(model, threads=threads) for model, threads in zip(models, (1, 2), strict=True)]
    points, counts, lock, numbers = [sample(0)], Counter[str](), threading.Lock(), iter(range(calls))

    def worker(number: int) -> None:
        chance = random.Random(number)
        while True:
            with lock:
                done = next(numbers, None)
                if done is None:
                    return
                if done % max(1, calls // SAMPLES) == 0:
                    points.append(sample(done))
            (kind,) = chance.choices(list(KINDS), list(KINDS.values()))
            kind(loaded, chance)
            with lock:
                counts[kind.__name__] += 1

    with ThreadPoolExecutor(THREADS) as pool:
        for result in [pool.submit(worker, number) for number in range(THREADS)]:
            result.result()
    return {"points": [*points, sample(calls)], "counts": dict(counts)}


# --- command lines


def command_lines(folder: Path, models: list[str]) -> list[list[str]]:
    """The command lines that are run in turn; the last ones are wrong."""
    file = folder / "documents.jsonl"
    file.write_text("".join(json.dumps({"id": n, "text": f"river {n}"}) + "\n" for n in range(10)), encoding="utf-8")
    rerank = ["rerank", "-q", QUERY, str(file), "-m", models[0]]
    return [
        [*rerank, "-o", str(folder / "out.jsonl")],
        [*rerank, "--format", "jsonl"],
        [*rerank, "-o", str(folder / "out.trec.gz")],
        ["models", "list"],
        ["version"],
        ["rerank", "-q", QUERY, str(folder / "absent.jsonl"), "-m", models[0]],
        ["rerank", "-q", QUERY, str(file), "-m", models[0], "--top-k", "0"],
    ]


def command_runs(runs: int, models: list[str]) -> dict[str, Any]:
    """Samples over `runs` command lines in this process, and their exit codes."""
    from dearlite.cli.main import run

    points, codes = [], Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        lines = command_lines(Path(name), models)
        for number in range(runs):
            if number % max(1, runs // SAMPLES) == 0:
                points.append(sample(number))
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                try:
                    run(lines[number % len(lines)])
                except SystemExit as ended:
                    codes[f"exit {ended.code}"] += 1
        gc.collect()
        return {"points": [*points, sample(runs)], "counts": dict(codes), "left": sorted(os.listdir(name))}


def whole_processes(runs: int, models: list[str]) -> dict[str, Any]:
    """Peak memory of each of `runs` processes, and what they left in the folders of temporary files and of the user."""
    points, codes = [], Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name, "home")
        home.mkdir()
        lines = command_lines(Path(name), models)
        variables = os.environ | {"HOME": str(home), "TMPDIR": str(home), "XDG_CACHE_HOME": str(home)}
        for number in range(runs):
            command = [sys.executable, "-m", "dearlite", *lines[number % len(lines)]]
            process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            codes[f"exit {process.returncode}"] += 1
            points.append({"done": number, "rss_mb": used.ru_maxrss / 1024, "descriptors": 0, "threads": 0})
        left = sorted(str(path.relative_to(home)) for path in home.rglob("*"))
    return {"points": points, "counts": dict(codes), "left": left}


# --- server


def server(minutes: float, models: list[str]) -> dict[str, Any]:
    """Samples of a `dearlite serve` under serve.py's mixed load."""
    from serve import any_load

    with running_server("-m", models[0]) as (port, process):
        start, counts, lock, points = time.monotonic(), Counter[str](), threading.Lock(), []
        end = start + minutes * 60

        def worker() -> None:
            while time.monotonic() < end:
                load = any_load()
                try:
                    status = load(port)
                except OSError as err:
                    status = -(err.errno or 1)
                with lock:
                    counts[f"{load.__name__} {status}"] += 1

        def watch() -> None:
            while time.monotonic() < end:
                points.append(sample((time.monotonic() - start) / 60, process))
                time.sleep(minutes * 60 / SAMPLES)

        run_threads([watch, *[worker] * 6])
        time.sleep(2)  # its last requests end
        points.append(sample((time.monotonic() - start) / 60, process))
    return {"points": points, "counts": dict(sorted(counts.items()))}


PARTS: dict[str, Callable[[Any, list[str]], dict[str, Any]]] = {
    "calls": python_calls, "runs": command_runs, "processes": whole_processes, "minutes": server,
}  # fmt: skip
NAMES = {
    "calls": "Python calls", "runs": "command lines in one process", "processes": "whole processes, peak",
    "minutes": "minutes of `dearlite serve`",
}  # fmt: skip


def row_of(part: str, report: dict[str, Any]) -> str:
    """A row of the table: each number when warm, at the end, and at most after the warm-up."""
    points = report["points"]
    warm = points[min(len(points) - 1, max(1, round(WARM_UP * len(points))))]
    after = points[points.index(warm) :]
    cells = []
    for name, digits in (("rss_mb", 1), ("descriptors", 0), ("threads", 0)):
        most = max(point[name] for point in after)
        cells.append(f"{warm[name]:.{digits}f}, {points[-1][name]:.{digits}f}, {most:.{digits}f}")
    return f"| {points[-1]['done']:,.0f} {NAMES[part]} | {report['seconds']:.0f} | {' | '.join(cells)} |"


def main() -> None:
    """Runs the parts that the options name, each in a new process, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--processes", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the samples to this file")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--models", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part is not None:
        print(json.dumps(PARTS[options.part](getattr(options, options.part), options.models)))
        return
    from tiny_bundle import write_tiny_bundle

    report: dict[str, Any] = {"machine": describe_machine(), "parts": {}}
    with tempfile.TemporaryDirectory() as folder:
        models = [str(write_tiny_bundle(Path(folder) / name)) for name in ("tiny.dear", "other.dear")]
        print("| | seconds | resident MB: warm, end, most | descriptors | threads |\n|---|--:|--:|--:|--:|")
        for part in (part for part in PARTS if getattr(options, part)):
            start = time.perf_counter()
            amount = str(getattr(options, part))
            command = [sys.executable, __file__, "--part", part, f"--{part}", amount, "--models", *models]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            result = json.loads(done.stdout.splitlines()[-1])
            report["parts"][part] = result | {"seconds": time.perf_counter() - start}
            print(row_of(part, report["parts"][part]), flush=True)
            if options.json is not None:
                options.json.write_text(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
