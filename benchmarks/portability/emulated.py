"""Checks on CPUs that qemu emulates: products of 8-bit integers, and scores beside this machine's and those of fp32."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from checks import EXAMPLE, ROOT, Checks, cpu_name, here, hits_of, largest_difference, require
from products import SCRIPT, judge, write_products

TOLERANCE = 0.15  # a rounding step of an activation that falls the other way moves a score by about 0.1
_FP32 = ROOT / "tests" / "data" / "minilm_fp32_scores.json"  # by transformers, for the published weights
_QUERY = "13"  # the example's query in NovelEval

Hits = list[tuple[str, float]]


@dataclass(frozen=True)
class Emulated:
    """One emulated CPU: the start of a command that runs Python on it, and its environment."""

    cpu: str
    command: Sequence[str]
    environment: Mapping[str, str]

    def python(self, *arguments: str | Path) -> str:
        """Standard output of Python with these arguments. Raises CheckFailed on another exit status than 0."""
        path = os.pathsep.join(filter(None, [str(ROOT), self.environment.get("PYTHONPATH", "")]))
        done = subprocess.run(
            [*self.command, *map(str, arguments)],
            env={**self.environment, "PYTHONPATH": path},
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=1800,
        )
        require(done.returncode == 0, f"exit status {done.returncode}: {done.stderr.strip()[-300:]}")
        return done.stdout


def arguments(cpus: Mapping[str, str], folder: Path, description: str | None) -> argparse.Namespace:
    """The options of a script: folder, documents, cpus, only."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=folder)
    parser.add_argument("--documents", type=int, default=3, help="number of the example's documents to score, up to 20")
    parser.add_argument("--cpus", default=",".join(cpus), help="CPU models of qemu")
    parser.add_argument("--only", default="", help="run the checks with this text in their name")
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    return options


def run_checks(machines: Sequence[Emulated], notes: Mapping[str, str], options: argparse.Namespace, qemu: str) -> None:
    """Runs the checks on each CPU and ends the process. `notes` are words on the CPUs, by name."""
    documents = options.folder / "documents.jsonl"
    lines = EXAMPLE[1].read_text(encoding="utf-8").splitlines()[: options.documents]
    documents.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"here: {cpu_name()}; {qemu}")
    expected = hits_of(here("rerank", EXAMPLE[0], documents, "--format", "jsonl"))
    print(f"here, beside fp32: {beside_fp32(expected)}")
    graph, cases = write_products(options.folder)
    checks, seen = Checks(only=options.only), dict[str, Hits]()
    for machine in machines:
        name = f"{machine.cpu} ({notes.get(machine.cpu, 'not in the table')})"
        checks.run(f"{name}, products", lambda machine=machine: judge(machine.python("-c", SCRIPT, graph, cases)))
        checks.run(f"{name}, scores", lambda machine=machine: compare(machine, documents, expected, seen))
        checks.run(f"{name}, doctor", lambda machine=machine: doctor(machine))
    if len(machines) > 1:
        checks.run("scores of the CPUs beside each other", lambda: alike(seen))
    checks.finish()


def compare(machine: Emulated, documents: Path, expected: Hits, seen: dict[str, Hits]) -> str:
    """The scores of the documents beside this machine's and fp32's."""
    hits = hits_of(
        machine.python("-m", "dearlite", "rerank", EXAMPLE[0], documents, "--threads", "1", "--format", "jsonl")
    )
    seen[machine.cpu] = hits
    difference = largest_difference(hits, expected)
    scores = dict(expected)
    pairs = ", ".join(f"{key} {score:.4f} (here {scores[key]:.4f})" for key, score in hits[:4])
    require(difference < TOLERANCE, f"scores differ by up to {difference:.4f}: {pairs}")
    mean = statistics.mean(abs(score - scores[key]) for key, score in hits)
    return f"{pairs}; mean and largest difference {mean:.4f}, {difference:.4f}; beside fp32 {beside_fp32(hits)}"


def beside_fp32(hits: Hits) -> str:
    """The mean and largest difference from transformers in fp32."""
    reference = json.loads(_FP32.read_text(encoding="utf-8"))["scores"]
    differences = [abs(score - reference[f"{_QUERY} {key}"]) for key, score in hits]
    return f"{statistics.mean(differences):.4f}, {max(differences):.4f}"


def alike(seen: Mapping[str, Hits]) -> str:
    """The scores of the emulated CPUs beside each other."""
    require(len(seen) > 1, "fewer than two CPUs were compared")
    first, *others = seen.values()
    return (
        f"largest difference {max(largest_difference(first, other) for other in others):.1e} between {', '.join(seen)}"
    )


def doctor(machine: Emulated) -> str:
    """`doctor` on the emulated CPU."""
    facts = dict(
        line.strip().split("  ", 1)
        for line in machine.python("-m", "dearlite", "doctor").splitlines()
        if "  " in line.strip()
    )
    return "; ".join(f"{name} {facts[name].strip()}" for name in ("processor", "int8 kernels", "probe run"))
