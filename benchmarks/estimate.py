"""The time that `dearlite rerank` announces for a long list, beside the time that the call takes, for several sizes.

Run on an idle machine: `python benchmarks/estimate.py [--sizes 500 1000 2000]`. The documents are those of NovelEval,
repeated with a number before each, so that no two are equal; the announcement comes after a second of scoring.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from measure import describe_machine

_CORPUS = Path(__file__).parents[1] / "export" / "data" / "noveleval" / "corpus.jsonl.gz"
_QUERY = "Who does Momoa play in Fast X?"
_REMARK = re.compile(r"documents take about (\S+) (s|min|h) at (\S+) documents/s; .*, about (\S+) (s|min)")
_SECONDS = {"s": 1, "min": 60, "h": 3600}


def main() -> None:
    """Prints, for each size, the announced and the measured seconds of scoring all documents, and of the best 200."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[500, 1000, 2000], help="numbers of documents, over 400"
    )
    options = parser.parse_args()
    print(describe_machine())
    with gzip.open(_CORPUS, "rt", encoding="utf-8") as stream:
        texts = [json.loads(line)["text"] for line in stream]
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            path = Path(folder) / f"{size}.jsonl"
            documents = enumerate(islice(cycle(texts), size))
            path.write_text("".join(json.dumps({"id": str(n), "text": f"{n}. {text}"}) + "\n" for n, text in documents))
            seconds, stderr = _timed(path)
            announced = _REMARK.search(stderr)
            if announced is None:
                raise SystemExit(f"{size} documents in {seconds:.1f} s, and no estimate on stderr: {stderr!r}")
            estimate_s = float(announced[1]) * _SECONDS[announced[2]]
            best_s = float(announced[4]) * _SECONDS[announced[5]]
            first_s, _ = _timed(path, "--first", "bm25:200")
            print(
                f"{size:6} documents: announced {estimate_s:6.1f} s, took {seconds:6.1f} s ({estimate_s / seconds:.2f})"
            )
            print(f"{'':6} --first bm25:200: announced {best_s:6.1f} s, took {first_s:6.1f} s")


def _timed(path: Path, *options: str) -> tuple[float, str]:
    """The seconds of a whole process without its start, which a call with one document measures, and its stderr."""
    start_s = _run(["-q", _QUERY, "--docs-format", "txt", "-"], b"rain\n")[0]
    seconds, stderr = _run(["-q", _QUERY, str(path), *options], b"")
    return seconds - start_s, stderr


def _run(arguments: list[str], data: bytes) -> tuple[float, str]:
    start = time.perf_counter()
    command = [sys.executable, "-m", "dearlite", "rerank", *arguments]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.decode())
    return time.perf_counter() - start, done.stderr.decode()


if __name__ == "__main__":
    main()
