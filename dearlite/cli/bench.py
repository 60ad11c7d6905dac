"""`dearlite bench -m MODEL`."""

from __future__ import annotations

from dataclasses import asdict

import click

from dearlite.files.json_text import json_text
from dearlite.machine import DEVICES
from dearlite.models.registry import DEFAULT_MODEL, find_model
from dearlite.options import Device
from dearlite.pointwise.bench import DEFAULT_TOKENS, Measurement, measure
from dearlite.render.facts import print_facts, print_rows


@click.command()
@click.option("-m", "--model", default=DEFAULT_MODEL, show_default=True, metavar="NAME|FILE", help="Model to measure.")
@click.option(
    "--docs", type=click.IntRange(1), metavar="N", help="Documents per round. [default: about two seconds of work]"
)
@click.option(
    "--tokens",
    type=click.IntRange(1),
    metavar="N",
    help=f"Tokens of query and document together. [default: {DEFAULT_TOKENS}, or the model's maximum]",
)
@click.option("--threads", type=int, metavar="N", help="Number of CPU threads. [default: one per physical core]")
@click.option(
    "--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="Device that runs the model."
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object instead of a table.")
def command(
    model: str, docs: int | None, tokens: int | None, threads: int | None, device: Device, as_json: bool
) -> None:
    """Measure a pointwise model on this machine: load time, documents per second, memory, and the cost of long runs.

    The input is one query and documents of random words from the model's own vocabulary. Rates are medians of five
    rounds. Run nothing else at the same time.
    """
    measurement = measure(find_model(model), documents=docs, tokens=tokens, threads=threads, device=device)
    if as_json:
        click.echo(json_text(asdict(measurement), indent=1))
    else:
        _print(measurement)


def _print(measurement: Measurement) -> None:
    lowest, highest = measurement.documents_per_s_range
    memory = measurement.memory
    facts: dict[str, object] = {
        "model": f"{measurement.model}, {measurement.quantisation}, on {measurement.device} "
        f"with {measurement.threads} threads",
        "file": measurement.file,
        "load": f"{measurement.load_s:.2f} s",
        "first score": f"{measurement.first_score_s:.2f} s",
        "documents": f"{measurement.documents_per_s:.2f} a second ({lowest:.2f} to {highest:.2f}), "
        f"{measurement.documents} of {measurement.tokens_per_document} tokens a round",
        "tokens": f"{measurement.tokens_per_s:.0f} a second",
        "peak memory": _megabytes(memory.peak_rss_mb),
    }
    if memory.anonymous_mb is not None and memory.file_mb is not None:
        facts["memory while scoring"] = f"{memory.anonymous_mb:.0f} MB, and {memory.file_mb:.0f} MB of mapped files"
    facts["products"] = f"{measurement.matrices_gops:.0f} GOP/s with the model's matrices"
    if measurement.int8_peak_gops is not None and measurement.share_of_int8_peak is not None:
        facts["int8 peak"] = (
            f"{measurement.int8_peak_gops:.0f} GOP/s here: {measurement.share_of_int8_peak:.0%} of it is used"
        )
    if measurement.kernels is not None and measurement.product_rates is not None:
        facts["int8 kernels"] = measurement.kernels
        facts["small products"] = measurement.product_rates
    print_facts(facts)
    rows = [(f"{p.documents:,}", f"{p.seconds:.0f} s", _megabytes(p.memory_mb)) for p in measurement.predicted]
    print_rows(("one call with", "time", "memory"), rows)


def _megabytes(value: float | None) -> str:
    return "not known here" if value is None else f"{value:.0f} MB"
