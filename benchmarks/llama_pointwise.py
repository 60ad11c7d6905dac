"""A LLaMA scorer with a LoRA in dearlite and other systems: documents per second, memory, and difference from fp32.

    python benchmarks/llama_pointwise.py --checkpoint FOLDER --adapter FOLDER

Each system has its own process; they run in turn. A round is a slice of the collection that every system scores; each
round starts with the next system. Speeds are medians of the rounds, quality is measured on all slices together.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from int8_peak import int8_peak
from llama_files import Files, make_files
from llama_systems import LlamaSystem, count_tokens, systems
from measure import describe_machine
from pointwise import REPOSITORY, SETTLE_S, WARM_UP_DOCUMENTS, print_progress
from systems import Work
from workers import Round, SystemFailed, Worker

REFERENCE = "transformers-fp32"
# Column -> prefix of keys: speeds are divided by that of the fastest system whose key has this prefix.
BASELINES = {"fp32": REFERENCE, "bf16": "transformers-bf16", "llama.cpp": "llama.cpp"}


def main() -> None:
    options = parse_options()
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}  # workers inherit it
    from dearlite.export.quality.card import Pairs, load_pairs
    from dearlite.machine import check_threads

    machine = describe_machine()  # before the work: the load average is that of other processes
    threads = check_threads(options.threads)
    pairs = load_pairs(options.collection, options.run)
    pairs = Pairs(pairs.name, pairs.rows[: options.pairs], pairs.grades)
    rows = systems(options.quant)
    chosen = {key: row for key, row in rows.items() if not options.only or key in (REFERENCE, *options.only)}
    with tempfile.TemporaryDirectory(prefix="dearlite-benchmark-") as scratch, ExitStack() as stack:
        folder = options.files or Path(scratch)
        folder.mkdir(exist_ok=True)
        files = make_files(
            options.checkpoint,
            options.adapter,
            folder,
            quants=options.quant,
            max_tokens=options.max_tokens,
            threads=threads,
        )
        workers: dict[str, Worker] = {}
        failures: dict[str, str] = {}
        for key, system in chosen.items():
            print_progress(f"loading {system.name}")
            try:
                workers[key] = stack.enter_context(Worker(key, files, system.load))
            except SystemFailed as err:
                failures[key] = str(err)
        size = -(-len(pairs.rows) // options.rounds)
        slices = [as_work(pairs.rows[at : at + size]) for at in range(0, len(pairs.rows), size)]
        rounds, peaks = run_slices(workers, slices, failures, threads=threads, limit_s=options.limit_s)
        done = len(peaks)
        tokens = [count_tokens(work, files) for work in slices[:done]]
        scored = Pairs(pairs.name, pairs.rows[: size * done], pairs.grades)
        report = {
            "machine": machine,
            "threads": threads,
            "checkpoint": options.checkpoint.name,
            "adapter": options.adapter and options.adapter.name,
            "pairs": {"name": pairs.name, "pairs": len(scored.rows), "queries": len(scored.by_query())},
            "rounds": done,
            "max_tokens": options.max_tokens,
            "mean_tokens": sum(counts.pairs for counts in tokens) / len(scored.rows),
            "int8_peak_gops": statistics.median(peaks),
            "int8_peak_gops_rounds": peaks,
            "systems": summarise(chosen, workers, rounds, failures, scored, files, tokens, statistics.median(peaks)),
        }
    print_report(report)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FOLDER", help="a Llama scorer, safetensors")
    parser.add_argument("--adapter", type=Path, metavar="FOLDER", help="a PEFT LoRA for it")
    parser.add_argument(
        "--files", type=Path, metavar="FOLDER", help="keep the converted files there and use existing ones"
    )
    parser.add_argument(
        "--quant", nargs="+", default=["int8", "fp32"], help="quantisations of dearlite (default: int8 fp32)"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="KEY", help=f"systems to run: {', '.join(systems([]))}, dearlite-QUANT"
    )
    default = REPOSITORY / "export" / "data" / "noveleval"
    parser.add_argument("--collection", type=Path, metavar="FOLDER", default=default, help="as for quality.py")
    parser.add_argument("--run", metavar="NAME", default="run_bm25.trec")
    parser.add_argument(
        "--pairs", type=int, metavar="N", default=420, help="number of pairs, of all rounds together (default: 420)"
    )
    parser.add_argument("--rounds", type=int, metavar="N", default=5, help="default: 5")
    parser.add_argument("--max-tokens", type=int, metavar="N", default=140, help="per pair (default: 140)")
    parser.add_argument("--threads", type=int, metavar="N", help="default: one per core, as in dearlite")
    parser.add_argument(
        "--limit-s",
        type=float,
        metavar="S",
        default=1500,
        help="begin no round that would end after S seconds (default: 1500)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to this file")
    options = parser.parse_args()
    if options.pairs < 1 or options.rounds < 1:
        parser.error("--pairs and --rounds must be whole numbers from 1")
    unknown = set(options.only or ()) - set(systems(options.quant))
    if unknown:
        parser.error(f"--only: no {', '.join(sorted(unknown))}; there are {', '.join(systems(options.quant))}")
    return options


def as_work(rows: Sequence[tuple[str, str, str, dict[str, Any]]]) -> Work:
    """Queries in order with their documents' texts, a title joined by a space: the same strings for all systems."""
    work: dict[str, list[str]] = {}
    for _, _, query, record in rows:
        work.setdefault(query, []).append(f"{record.get('title') or ''} {record['text']}".strip())
    return list(work.items())


def run_slices(
    workers: dict[str, Worker], slices: Sequence[Work], failures: dict[str, str], *, threads: int, limit_s: float
) -> tuple[dict[str, list[Round]], list[float]]:
    """Each worker's rounds, one per slice, and the int8 peak before each round in GOP/s. A warm-up comes first.

    A worker that fails is moved to `failures`.
    """
    rounds: dict[str, list[Round]] = {key: [] for key in workers}

    def run(work: Work, turn: int, *, kept: bool) -> None:
        order = list(rounds)
        for position in range(len(order)):
            key = order[(position + turn) % len(order)]
            time.sleep(SETTLE_S)
            try:
                done = workers[key].run(work)
            except SystemFailed as err:
                failures[key] = str(err)
                del rounds[key]
            else:
                rounds[key] += [done] if kept else []

    print_progress("warming up")
    query, texts = slices[0][0]
    run([(query, texts[:WARM_UP_DOCUMENTS])], 0, kept=False)
    peaks: list[float] = []
    start = time.perf_counter()
    for number, work in enumerate(slices):
        elapsed_s = time.perf_counter() - start
        if number and elapsed_s * (number + 1) / number > limit_s:
            print_progress(f"stopped after {number} of {len(slices)} rounds: another would pass --limit-s {limit_s:g}")
            break
        print_progress(f"round {number + 1} of {len(slices)}")
        time.sleep(SETTLE_S)
        peaks.append(int8_peak(threads))
        run(work, number, kept=True)
    return rounds, peaks


def summarise(
    chosen: Mapping[str, LlamaSystem],
    workers: Mapping[str, Worker],
    rounds: Mapping[str, Sequence[Round]],
    failures: Mapping[str, str],
    pairs: Any,
    files: Files,
    tokens: Sequence[Any],
    peak: float,
) -> list[dict[str, Any]]:
    """One row per system: its figures, or `failure`."""
    from dearlite.export.quality.card import compare_scores

    scores = {key: [score for done in worker_rounds for score in done.scores] for key, worker_rounds in rounds.items()}
    docs = {key: [len(done.scores) / done.elapsed_s for done in worker_rounds] for key, worker_rounds in rounds.items()}
    speed = {key: statistics.median(rates) for key, rates in docs.items()}
    all_products, last_layer_products = files.products_per_token()
    rows: list[dict[str, Any]] = []
    for key, system in chosen.items():
        row: dict[str, Any] = {"key": key, "name": system.name}
        rows.append(row)
        if key not in rounds:
            row["failure"] = failures[key]
            continue
        seconds = [done.elapsed_s for done in rounds[key]]
        row |= {
            "docs_per_s": speed[key],
            "docs_per_s_rounds": docs[key],
            "tokens_per_s": statistics.median(t.pairs / s for t, s in zip(tokens, seconds, strict=True)),
            "ratios": {
                name: speed[key] / max(speeds)
                for name, prefix in BASELINES.items()
                if (speeds := [speed[other] for other in speed if other.startswith(prefix)])
            },
            "peak_rss_mb": rounds[key][-1].peak_rss_mb,
            "load_s": workers[key].load_s,
        }
        if REFERENCE in scores and key != REFERENCE:
            row["card"] = card = compare_scores(pairs, scores[REFERENCE], scores[key])
            row["error_percent"] = 100 * card["mean_error"] / card["spread_of_scores"]
        if system.ours:
            # Products that are computed: a query's part once per query; in the last layer everything but keys and
            # values for one row per call only.
            products = [t.computed * all_products - (t.computed - t.calls) * last_layer_products for t in tokens]
            row["gops"] = statistics.median(2e-9 * p / s for p, s in zip(products, seconds, strict=True))
            row["share_of_peak"] = row["gops"] / peak
    return rows


def print_report(report: Mapping[str, Any]) -> None:
    """Prints the table as Markdown."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(width=240, highlight=False, markup=False, emoji=False)
    machine, pairs = report["machine"], report["pairs"]
    cpu = f"{machine['cpu']}, {machine['cpus']} CPUs, {' '.join(machine['flags'])}"
    busy = "" if machine["load_1min"] is None else f"; load average {machine['load_1min']:.2f} at the start"
    console.print(f"{machine['date']}; {cpu}; {machine['system']}{busy}", soft_wrap=True)
    console.print(", ".join(f"{name} {version}" for name, version in machine["versions"].items()), soft_wrap=True)
    lora = f" with {report['adapter']}" if report["adapter"] else ""
    console.print(
        f"{report['checkpoint']}{lora}; {pairs['name']}, {pairs['pairs']} pairs of {pairs['queries']} queries, "
        f"{report['mean_tokens']:.0f} tokens per pair (at most {report['max_tokens']}); medians of {report['rounds']} "
        f"rounds, {report['threads']} threads; int8 peak {report['int8_peak_gops']:.0f} GOP/s\n",
        soft_wrap=True,
    )
    table = Table(box=box.MARKDOWN)
    table.add_column("system", no_wrap=True)
    titles = ["docs/s", "lowest–highest", "tokens/s", *(f"× {name}" for name in BASELINES)]
    for title in [*titles, "error, %", "tau", "nDCG@10", "GOP/s", "of int8 peak", "peak RSS MB", "load s"]:
        table.add_column(title, justify="right", no_wrap=True)
    for row in report["systems"]:
        table.add_row(row["name"], *_cells(row, report["systems"]))
    console.print(table)
    for row in report["systems"]:
        if "failure" in row:
            console.print(f"{row['name']}: {row['failure']}", soft_wrap=True)


def _cells(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if "failure" in row:
        return ["—"] * (10 + len(BASELINES))
    low, high = min(row["docs_per_s_rounds"]), max(row["docs_per_s_rounds"])
    card = row.get("card")
    reference = next((other["card"]["ndcg10_fp32"] for other in rows if "card" in other), None)
    ndcg = card["ndcg10"] if card else reference
    return [
        f"{row['docs_per_s']:.2f}",
        f"{low:.2f}–{high:.2f}",
        f"{row['tokens_per_s']:.0f}",
        *(f"{row['ratios'][name]:.2f}" if name in row["ratios"] else "—" for name in BASELINES),
        f"{row['error_percent']:.1f}" if card else "—",
        f"{card['kendall_tau']:.3f}" if card else "—",
        "—" if ndcg is None else f"{100 * ndcg:.1f}",
        f"{row['gops']:.0f}" if "gops" in row else "—",
        f"{row['share_of_peak']:.0%}" if "gops" in row and "int8" in row["key"] else "—",
        f"{row['peak_rss_mb']:.0f}",
        f"{row['load_s']:.2f}",
    ]


if __name__ == "__main__":
    main()
