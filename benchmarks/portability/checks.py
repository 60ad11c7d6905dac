"""Checks of another system: one line each, and the example's scores on this machine to compare with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "examples" / "query.txt", ROOT / "examples" / "docs.jsonl")


class CheckFailed(Exception):
    """A statement about the other system that does not hold there."""


@dataclass
class Checks:
    """The checks done so far. Each prints `ok` or `FAIL`, its name, and the figures or the reason."""

    failed: int = 0
    names: list[str] = field(default_factory=list)
    only: str = ""

    def run(self, name: str, check: Callable[[], str]) -> None:
        """Prints the line of `check`, which returns its figures or raises CheckFailed.

        Checks whose name does not contain `only` are left out.
        """
        if self.only not in name:
            return
        self.names.append(name)
        try:
            word, figures = "ok  ", check()
        except (CheckFailed, subprocess.SubprocessError, OSError, ValueError, LookupError) as err:
            word, figures = "FAIL", f"{type(err).__name__}: {err}"
            self.failed += 1
        print(f"{word}  {name}: {figures}", flush=True)

    def finish(self) -> None:
        """Ends the process: exit status 1 after a failed check, or where no check was run."""
        print(f"{len(self.names) - self.failed} passed, {self.failed} failed")
        sys.exit(1 if self.failed or not self.names else 0)


def require(statement: object, message: str) -> None:
    """Raises CheckFailed with `message` unless the statement is true."""
    if not statement:
        raise CheckFailed(message)


def here(*arguments: str | Path) -> str:
    """Standard output of `dearlite` with these arguments on this machine, from this checkout."""
    command = [sys.executable, "-m", "dearlite", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    require(done.returncode == 0, f"on this machine: {done.stderr.strip()}")
    return done.stdout


def hits_of(jsonl: str) -> list[tuple[str, float]]:
    """Ids and scores in the output of `rerank --format jsonl`, best first."""
    return [(hit["id"], hit["score"]) for hit in map(json.loads, jsonl.splitlines())]


def largest_difference(first: Sequence[tuple[str, float]], second: Sequence[tuple[str, float]]) -> float:
    """The largest difference of two scores of one document. Raises CheckFailed where the documents are not the same."""
    scores = dict(second)
    require(
        sorted(scores) == sorted(key for key, _ in first), f"{len(first)} and {len(second)} documents, not the same"
    )
    return max(abs(score - scores[key]) for key, score in first)


def cpu_name() -> str:
    """The model name of this machine's CPU."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
