"""Computes figures from rounds and prints them as Markdown tables for README.md. Nothing is measured here."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from systems import SYSTEMS, Work
from workers import Round


def describe_models(published: Path | None, work: Work) -> dict[str, Any]:
    """Hashes of the model files, and the number of pairs and tokens in `work`, as truncated by dearlite."""
    from dearlite.files.hashing import sha256_of
    from dearlite.models.bundle import Bundle
    from dearlite.models.registry import DEFAULT_MODEL, find_model
    from dearlite.pointwise.prompts import PAIR_FORMS
    from dearlite.pointwise.tokens import PairEncoder

    bundle = Bundle(find_model(DEFAULT_MODEL))
    encoder = PairEncoder(bundle.read("tokenizer.json"), max_tokens=bundle.manifest.max_tokens)
    form = PAIR_FORMS[bundle.manifest.prompt]
    rows = [
        row.tokens_used
        for query, texts in work
        for row in encoder.pairs(encoder.ids(form.query(query)), (form.before_document + text for text in texts))
    ]
    models = {"dearlite": {"name": bundle.manifest.name, "sha256": bundle.sha256()}}
    if published is not None:
        digest = sha256_of(published / "model.onnx")
        models["published"] = {"name": "model.onnx", "sha256": digest}
    return {"models": models, "pairs": len(rows), "tokens": sum(rows), "longest": max(rows)}


def summarise(
    load_s: Mapping[str, float], rounds: Mapping[str, Sequence[Round]], failures: Mapping[str, str], tokens: int
) -> list[dict[str, Any]]:
    """One row per system, in the order of SYSTEMS: its figures, or `failure`."""
    speeds = {
        key: [len(done.scores) / done.elapsed_s for done in worker_rounds] for key, worker_rounds in rounds.items()
    }
    first = next(iter(SYSTEMS))
    rows: list[dict[str, Any]] = []
    for key, system in SYSTEMS.items():
        if key not in rounds and key not in failures:  # not among those to run
            continue
        row: dict[str, Any] = {"key": key, "name": system.name}
        rows.append(row)
        if key not in rounds:
            row["failure"] = failures[key]
            continue
        docs_per_s = statistics.median(speeds[key])
        row["docs_per_s"] = docs_per_s
        row["docs_per_s_rounds"] = speeds[key]
        row["tokens_per_s"] = docs_per_s * tokens / len(rounds[key][0].scores)
        row["ratio"] = docs_per_s / statistics.median(speeds[first]) if first in speeds else None
        row["peak_rss_mb"] = rounds[key][-1].peak_rss_mb
        row["load_s"] = load_s[key]
        if system.beside in rounds and system.beside != key:
            pairs = zip(rounds[key][-1].scores, rounds[system.beside][-1].scores, strict=True)
            row["moved"] = max(abs(score - other) for score, other in pairs)
    return rows


def print_report(report: Mapping[str, Any]) -> None:
    """Prints the tables as Markdown."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(width=160, highlight=False, markup=False, emoji=False)
    machine, collection = report["machine"], report["collection"]
    cpu = f"{machine['cpu']}, {machine['cpus']} CPUs, {' '.join(machine['flags'])}"
    busy = "" if machine["load_1min"] is None else f"; load average {machine['load_1min']:.2f} at the start"
    console.print(f"{machine['date']}; {cpu}; {machine['system']}{busy}", soft_wrap=True)
    console.print(", ".join(f"{name} {version}" for name, version in machine["versions"].items()), soft_wrap=True)
    for which, model in report["models"].items():
        console.print(f"{which}: {model['name']}, sha256 {model['sha256'][:16]}…", soft_wrap=True)
    mean = report["tokens"] / report["pairs"]
    console.print(
        f"{collection['name']}, {collection['run']}: {report['pairs']} pairs of {collection['queries']} queries, "
        f"{mean:.0f} tokens per pair (longest {report['longest']}); medians of {report['rounds']} rounds, "
        f"{report['threads']} threads\n",
        soft_wrap=True,
    )
    table = Table(box=box.MARKDOWN)
    table.add_column("system", no_wrap=True)
    for title in ("docs/s", "lowest–highest", "tokens/s", "ratio", "peak RSS MB", "load s", "scores moved"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in report["systems"]:
        table.add_row(row["name"], *_cells(row))
    console.print(table)
    for row in report["systems"]:
        if "failure" in row:
            console.print(f"{row['name']}: {row['failure']}", soft_wrap=True)
    table = Table(box=box.MARKDOWN)
    table.add_column("start-up", no_wrap=True)
    table.add_column("seconds", justify="right")
    for name, seconds in report["start_up"].items():
        table.add_row(name, "—" if isinstance(seconds, str) else f"{seconds:.3f}")
    console.print(table)
    for name, reason in report["start_up"].items():
        if isinstance(reason, str):
            console.print(f"{name}: {reason}", soft_wrap=True)


def _cells(row: Mapping[str, Any]) -> list[str]:
    if "failure" in row:
        return ["—"] * 7
    low, high = min(row["docs_per_s_rounds"]), max(row["docs_per_s_rounds"])
    ratio, moved = row["ratio"], row.get("moved")
    return [
        f"{row['docs_per_s']:.1f}",
        f"{low:.1f}–{high:.1f}",
        f"{row['tokens_per_s']:.0f}",
        "—" if ratio is None else f"{ratio:.2f}",
        f"{row['peak_rss_mb']:.0f}",
        f"{row['load_s']:.2f}",
        "—" if moved is None else f"{moved:.2f}" if moved else "0",
    ]
