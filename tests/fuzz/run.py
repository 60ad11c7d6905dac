"""A long run over all targets, or one. A row per target is printed at the end; faulty inputs are kept in a folder.

    python tests/fuzz/run.py --inputs 1000000 --minutes 30 [--target NAME] [--first NUMBER] [--keep FOLDER]

Each target runs in a process of its own, so that one that ends is a fault of the input it was reading. An input is made
of the target's name and a number: `--target NAME --first NUMBER --inputs 1` reads it again.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "support"), str(Path(__file__).parent)]

from fuzzing import input_of, outcome_of  # noqa: E402
from targets import TARGETS  # noqa: E402

_MOST_FAULTS = 200  # of a target, after which it is left


def main() -> int:
    """The exit code: 1 with a fault."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of all targets together")
    parser.add_argument("--minutes", type=float, default=30.0, help="of all targets together")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="alone; may be repeated")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"), help="folder for faulty inputs and totals")
    parser.add_argument("--alone", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        name, first, count, seconds = options.alone
        run_alone(name, int(first), int(count), float(seconds), options.keep)
        return 0
    if options.inputs < 1 or not options.minutes > 0:
        parser.error("--inputs and --minutes must be above 0")
    options.keep.mkdir(parents=True, exist_ok=True)
    names = options.target or list(TARGETS)
    shares = {name: TARGETS[name].share for name in names}
    end, rows = time.monotonic() + 60 * options.minutes, []
    for position, name in enumerate(names):
        share = shares[name] / sum(shares.values())
        # of the time an expensive reader gets a larger part than of the inputs, and what a cheap one leaves over
        parts = [shares[other] ** 0.5 for other in names[position:]]
        seconds = max(1.0, (end - time.monotonic()) * parts[0] / sum(parts))
        rows.append(run_target(name, options.first, max(1, round(options.inputs * share)), seconds, options.keep))
        print(shown(rows[-1]), flush=True)
    total = {key: sum(row[key] for row in rows) for key in ("inputs", "results", "errors", "faults")}
    print(shown({"target": "all", "slowest_s": max(row["slowest_s"] for row in rows), **total}))
    return 1 if total["faults"] else 0


def shown(row: dict) -> str:
    """The row of a target."""
    counts = "  ".join(f"{row[key]:>9,} {key}" for key in ("inputs", "results", "errors"))
    return f"{row['target']:<24} {counts}  slowest {row['slowest_s']:6.2f} s  {row['faults']} faults"


def run_target(name: str, first: int, count: int, seconds: float, keep: Path) -> dict:
    """The totals of a target, whose process is started again after an input that ended it."""
    row = {"target": name, "inputs": 0, "results": 0, "errors": 0, "faults": 0, "slowest_s": 0.0}
    end, number = time.monotonic() + seconds, first
    while number < first + count and row["faults"] < _MOST_FAULTS and (left := end - time.monotonic()) > 0:
        command = [sys.executable, __file__, "--keep", str(keep), "--alone", name, str(number)]
        ended = subprocess.run([*command, str(first + count - number), str(left)], check=False)
        state = json.loads((keep / f"{name}.state").read_text())
        state["next"] = max(state["next"], int((keep / f"{name}.number").read_text()))
        for key in ("inputs", "results", "errors", "faults"):
            row[key] += state[key]
        row["slowest_s"] = max(row["slowest_s"], state["slowest_s"])
        number = state["next"]
        if ended.returncode == 0:
            break
        print(f"FAULT {name} {number}: the process ended with {ended.returncode}", flush=True)
        row["faults"] += 1
        number += 1
    for ending in ("state", "number"):
        (keep / f"{name}.{ending}").unlink(missing_ok=True)
    return row


def run_alone(name: str, first: int, count: int, seconds: float, keep: Path) -> None:
    """Reads `count` inputs from `first`, and keeps the state and the input that is being read in files of `keep`."""
    faulthandler.enable()
    logging.disable(logging.CRITICAL)
    target, end = TARGETS[name], time.monotonic() + seconds
    known: set[str] = set()
    state = {"inputs": 0, "results": 0, "errors": 0, "faults": 0, "slowest_s": 0.0, "next": first}

    def save() -> None:
        (keep / f"{name}.state").write_text(json.dumps(state))

    save()
    reading = os.open(keep / f"{name}.number", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.pwrite(reading, b"%d" % first, 0)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        lasting, folder = Path(place, "seeds"), Path(place, "inputs")
        lasting.mkdir()
        folder.mkdir()
        seeds = target.seeds(lasting)
        for number in range(first, first + count):
            data = input_of(target, seeds, number)
            os.pwrite(reading, b"%d" % number, 0)
            if number % 50 == 0:
                save()
            outcome = outcome_of(target, data, folder, must_read=number < len(seeds))
            state["inputs"] += 1
            state[f"{outcome.kind}s"] += 1
            state["slowest_s"] = max(state["slowest_s"], outcome.seconds)
            if outcome.kind == "fault" and (kind := re.sub(r"'[^']*'|\d+(?!\S* <|\))", "", outcome.text)) not in known:
                known.add(kind)
                print(f"FAULT {name} {number}: {outcome.text[:600]!a}", flush=True)
                (keep / f"{name}.{number}").write_bytes(data)
            if time.monotonic() > end or state["faults"] >= _MOST_FAULTS:
                break
        state["next"] = number + 1
        save()


if __name__ == "__main__":
    sys.exit(main())
