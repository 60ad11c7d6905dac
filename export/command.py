"""`dearlite export NAME|FOLDER`. The command line names this module and imports it when the command is called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from dearlite.export.decoders.quantisations import DEVICES, POOLINGS, QUANTISATIONS
from dearlite.export.gguf.quants import GGUF_QUANTS
from dearlite.export.options import DEFAULT_POOLING, DEFAULT_STRIDE, DEFAULT_TARGET, DEFAULT_WINDOW, ExportOptions
from dearlite.export.pipeline import export_model
from dearlite.export.quality.gate import MIN_AGREEMENT, MIN_TAU
from dearlite.export.results import ExportResult
from dearlite.export.source.heads import ALL, HEADS
from dearlite.files.targets import leads_to_stdout
from dearlite.listwise.forms import FORMS
from dearlite.pointwise.prompts import PAIR_FORMS
from dearlite.templates.families import FAMILIES, STATED

_ABOUT = {name: plan.about for name, plan in QUANTISATIONS.items()}
_ABOUT |= {name: plan.about for name, plan in GGUF_QUANTS.items()}
_PROMPTS = tuple(dict.fromkeys((*PAIR_FORMS, *STATED, *FORMS)))


@click.command()
@click.argument("model", metavar="NAME|FOLDER")
@click.option(
    "--adapter",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="A PEFT LoRA, merged with the model during the export.",
)
@click.option(
    "--quant",
    type=click.Choice(list(_ABOUT)),
    help="Storage type of the weights. "
    + ", ".join(f"{name} ({_ABOUT[name]})" for name in _ABOUT)
    + ". [default: int8; q4_k_m for a listwise model]",
)
@click.option(
    "--for",
    "target",
    type=click.Choice(list(DEVICES)),
    help="Device that the file holds a graph for. With both, the two graphs share one copy of the weights. "
    f"[default: {DEFAULT_TARGET}]",
)
@click.option(
    "--prompt",
    # ExportOptions has a better reason against the other families than "is not one of".
    type=click.Choice(list(dict.fromkeys((*_PROMPTS, *FAMILIES)))),
    metavar="NAME",
    help=f"Prompt form of a FOLDER's model: {', '.join(_PROMPTS)}; that of a NAME is in models.toml. "
    "[default: as the folder's files state; "
    "otherwise dear, plain for an encoder, chat for a listwise model]",
)
@click.option(
    "--max-tokens",
    type=int,
    metavar="N",
    help="Most tokens of a pair, or of a listwise model's prompt and answer, for a FOLDER's model; those of a NAME are "
    "in models.toml. [default: 228; up to 512 for an encoder, up to 5000 for a listwise model]",
)
@click.option("--window", type=int, metavar="N", help=f"Listwise: documents of a prompt. [default: {DEFAULT_WINDOW}]")
@click.option(
    "--stride",
    type=int,
    metavar="N",
    help=f"Listwise: documents that the window moves by. [default: {DEFAULT_STRIDE}]",
)
@click.option(
    "--pooling",
    type=click.Choice(POOLINGS),
    help="Position of the score in a FOLDER's model; that of a NAME is in models.toml. last-position is the end of a "
    f"row padded to --max-tokens. [default: {DEFAULT_POOLING}]",
)
@click.option(
    "--heads",
    metavar="FILE|NAME",
    help="Make an attention reranker of a FOLDER's language model, which reads these heads: a file of them as "
    f"layer-head, {', '.join(HEADS)}, or {ALL} for all heads.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The .dear file, or .gguf for a listwise model. [default for a NAME: the file that `-m NAME` loads]",
)
@click.option(
    "--card/--no-card",
    default=True,
    show_default=True,
    help="Compare the file with fp32 on texts of the package, and keep the comparison in it.",
)
@click.option(
    "--min-tau",
    type=float,
    metavar="TAU",
    help="Pointwise: refuse a file whose order agrees with that of fp32 by less than this (Kendall's tau, -1 to 1). "
    f"[default: {MIN_TAU}]",
)
@click.option(
    "--min-agreement",
    type=float,
    metavar="SHARE",
    help="Listwise: refuse a file whose likeliest token is that of fp32 at a smaller share of positions (0 to 1). "
    f"[default: {MIN_AGREEMENT}]",
)
@click.option("--force", is_flag=True, help="Replace an existing FILE, and keep a FILE that is too inexact.")
@click.option("--accept-licence", is_flag=True, help="Accept a NAME's licence that forbids commercial use.")
def command(model: str, **options: Any) -> None:
    """Make a .dear file of a scorer, or a .gguf of a listwise model.

    The model is a Hugging Face folder, a LoRA over one, or a NAME of models.toml, which also records its kind. A FOLDER
    is a listwise model if --quant is a type of GGUF or -o ends in .gguf, unless it has a score head. With --heads it is
    an attention reranker, in a .dear file.

    Weights are read from safetensors, merged, rotated, quantised and written one tensor at a time. A folder that holds
    only a LoRA is merged with the base that its adapter_config.json names. Encoders (BERT, XLM-R, ModernBERT, DeBERTa
    and more) are traced whole by optimum, which needs the extra `encoders`.
    """
    result = export_model(model, ExportOptions(**options), _report)
    to_stderr = leads_to_stdout(options["output"])  # the file itself is on stdout
    for line in summary(result):
        click.echo(line, err=to_stderr)
    if "below_floor" in result.card:
        _report(f"kept by --force: {result.card['below_floor']}")
    if result.published_scores:
        click.echo(f"`dearlite models verify {result.path}` compares it with the published scores", err=to_stderr)


def _report(line: str) -> None:
    click.echo(f"dearlite: {line}", err=True)


def summary(result: ExportResult) -> Iterator[str]:
    """The file with its size, time and memory in one line, and its agreement with fp32 in another."""
    time = f"{result.seconds:.0f} s"
    memory = "" if result.peak_rss_mb is None else f", peak memory {result.peak_rss_mb / 1e3:.2f} GB"
    if result.kind == "listwise":
        time += f", {result.seconds / max(result.source_bytes / 1e9, 1e-9):.1f} s per GB of weights"
        if result.worker_peak_rss_mb is not None:
            memory += f" (llama.cpp {result.worker_peak_rss_mb / 1e3:.2f} GB)"
    yield f"{result.path}: {result.size_bytes / 1e9:.2f} GB in {time}{memory}"
    card = result.card
    if "kendall_tau" in card:
        yield (
            f"against fp32 on {card['documents']} pairs: Kendall's tau {card['kendall_tau']}, mean error "
            f"{card['mean_error']} at a standard deviation of the scores of {card['spread_of_scores']} "
            f"(`dearlite models show {result.path}`)"
        )
    if "argmax_agreement" in card:
        yield (
            f"against fp32 at {card['positions']} positions: the same likeliest token at {card['argmax_agreement']}, "
            f"KL {card['kl']}, mean error of logits {card['mean_error']} (`dearlite models show {result.path}`)"
        )
