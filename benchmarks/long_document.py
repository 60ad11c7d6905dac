r"""Time and peak memory of one long document among short ones, from the command line and from Python.

    python benchmarks/long_document.py [--mb 1 20 220] [--folder FOLDER]

Each row is one process: `rerank` of a JSON Lines or a text file whose first document has so many megabytes, the same
from Python, and from Python in passages (`--long chunk`) up to 1 MB. Of a document 512 tokens are read. Prints JSON
Lines; the files of FOLDER are kept if it is named.
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
    text = WORDS * (size // len(WORDS))
    if way in ("jsonl", "txt"):
        path = folder / f"{size}.{way}"
        rows = [text, "Ships carry grain."]
        lines = [json.dumps({"id": str(n), "text": row}) for n, row in enumerate(rows)] if way == "jsonl" else rows
        path.write_text("\n".join(lines) + "\n")
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
    parser.add_argument("--mb", type=float, nargs="+", default=[0.001, 1, 20, 220])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for way in arguments.ways:
            for mb in arguments.mb:
                if way == "passages" and mb > 1:
                    continue
                seconds, memory = measured(command(way, int(mb * 1e6), arguments.folder or Path(folder)))
                print(json.dumps({"way": way, "mb": mb, "seconds": round(seconds, 1), "peak_mb": round(memory)}))


if __name__ == "__main__":
    main()
