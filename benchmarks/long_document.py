r"""Time and peak memory of one long document among short ones, from the command line and from Python.

    python benchmarks/long_document.py [--mb 1 20 220] [--folder FOLDER]

Each row is one process: `rerank` of a JSON Lines or a text file whose first document has so many megabytes, the same
from Python, and with 0.1 MB in passages (`--long chunk`), all of which are scored. Otherwise 512 tokens of a document
are read. Prints JSON Lines; the files of FOLDER are kept if it is named.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

WORDS = "rain falls on the hills "
PYTHON = "from dearlite import Long, rerank; text = {words!r} * ({size} // {length}); "
WAYS = ("jsonl", "txt", "python", "passages")


def command(way: str, size: int, folder: Path) -> list[str]:
    """The command of a process that ranks the long document and a short one, with its input written to `folder`."""
    if way in ("jsonl", "txt"):
        path = folder / f"{size}.{way}"
        before, after = ('{"id": "long", "text": "', '"}') if way == "jsonl" else ("", "")
        with open(path, "w") as stream:  # in pieces: a child's peak memory counts from its parent's
            stream.write(before)
            for _ in range(size // len(WORDS)):
                stream.write(WORDS)
            stream.write(f"{after}\n{before.replace('long', 'short')}Ships carry grain.{after}\n")
        # The default format holds the document; a run shows the cost of reading it alone.
        return [sys.executable, "-m", "dearlite.cli.main", "rerank", "-q", "rain", str(path), "--format", "trec"]
    call = 'rerank("rain", [text, "Ships carry grain."]' + (', long=Long("chunk"))' if way == "passages" else ")")
    return [sys.executable, "-c", PYTHON.format(words=WORDS, size=size, length=len(WORDS)) + call]


def measured(arguments: list[str]) -> tuple[float, float]:
    """Seconds and peak memory in megabytes of a process, which must succeed."""
    start = time.perf_counter()
    out = os.open(os.devnull, os.O_WRONLY)
    pid = os.posix_spawn(arguments[0], arguments, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, out, 1)])
    _, status, usage = os.wait4(pid, 0)
    os.close(out)
    if status:
        sys.exit(f"{arguments[-1][:200]} failed with status {status}")
    return time.perf_counter() - start, usage.ru_maxrss / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, nargs="+", default=[0.001, 0.1, 1, 20, 220])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for way in arguments.ways:
            for mb in arguments.mb:
                if way == "passages" and mb > 0.1:
                    continue
                seconds, memory = measured(command(way, int(mb * 1e6), arguments.folder or Path(folder)))
                row = {"way": way, "mb": mb, "seconds": round(seconds, 1), "peak_mb": round(memory)}
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
