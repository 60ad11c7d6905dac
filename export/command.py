"""`dearlite export NAME|FOLDER`: makes a `.dear` file. The CLI names this module and imports it when it is called."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from dearlite.errors import CheckpointError, UsageError
from dearlite.export.decoders.pipeline import check_disk, export_decoder
from dearlite.export.decoders.pooling import POOLINGS
from dearlite.export.decoders.quantisations import DEVICES, QUANTISATIONS, check_devices
from dearlite.export.encoders.pipeline import ENCODERS, export_encoder, reading_of, refuse_unknown
from dearlite.export.gguf.card import FLOOR as AGREEMENT_FLOOR
from dearlite.export.gguf.command import LISTWISE_OPTIONS, refuse_given, run_listwise
from dearlite.export.gguf.quants import GGUF_QUANTS
from dearlite.export.quality.check import FLOOR
from dearlite.export.source.checkpoint import Checkpoint
from dearlite.export.source.families import FAMILIES, shape_of
from dearlite.export.source.inputs import folders_of, output_of, padding_id, pooling_warning
from dearlite.export.source.merge import Adapter, MergedCheckpoint, check_base
from dearlite.listwise.prompts import LIST_FORMS
from dearlite.machine import peak_memory_mb
from dearlite.models.facts import NOT_STATED, PointwiseFacts
from dearlite.models.registry import ModelEntry, load_registry
from dearlite.pointwise.prompts import PAIR_FORMS

_ABOUT = {name: plan.about for name, plan in QUANTISATIONS.items()}
_ABOUT |= {name: plan.about for name, plan in GGUF_QUANTS.items()}


@click.command()
@click.argument("model", metavar="NAME|FOLDER")
@click.option("--adapter", type=click.Path(path_type=Path), metavar="FOLDER", help="A PEFT LoRA to merge on the way.")
@click.option(
    "--quant",
    type=click.Choice(list(_ABOUT)),
    help="How weights are stored. "
    + ", ".join(f"{name} ({_ABOUT[name]})" for name in _ABOUT)
    + ". [default: int8; q4_k_m for a listwise model]",
)
@click.option(
    "--for",
    "target",
    type=click.Choice(list(DEVICES)),
    default="cpu",
    show_default=True,
    help="The device that the file has a graph for. With both, one copy of the weights serves either.",
)
@click.option(
    "--prompt",
    type=click.Choice(list(dict.fromkeys((*PAIR_FORMS, *LIST_FORMS)))),
    help="The prompt form of a FOLDER's model; a NAME has its own. [default: dear; plain for an encoder, chat for a "
    "listwise model]",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(8),
    help="Tokens of a pair, or of a listwise model's prompt and answer, for a FOLDER's model; a NAME has its own. "
    "[default: 228; up to 512 for an encoder, up to 5000 for a listwise model]",
)
@click.option(
    "--window",
    type=click.IntRange(2),
    default=20,
    show_default=True,
    help="Listwise: documents of a prompt.",
)
@click.option(
    "--stride",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Listwise: documents that the window moves by.",
)
@click.option(
    "--pooling",
    type=click.Choice(POOLINGS),
    default="last-token",
    show_default=True,
    help="Where a FOLDER's model is read; a NAME has its own. [last-position: the end of a row padded to --max-tokens]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The .dear file, or .gguf for a listwise model. [default for a NAME: where `-m NAME` finds it]",
)
@click.option(
    "--card/--no-card",
    "carded",
    default=True,
    show_default=True,
    help="Run named texts in fp32 and with the file, and keep the comparison in it.",
)
@click.option(
    "--min-tau",
    type=click.FloatRange(-1, 1),
    default=FLOOR,
    show_default=True,
    help="Refuse a file whose order agrees less than this with fp32's (Kendall's tau).",
)
@click.option(
    "--min-agreement",
    type=click.FloatRange(0, 1),
    default=AGREEMENT_FLOOR,
    show_default=True,
    help="Listwise: refuse a file whose likeliest token is fp32's at fewer positions than this.",
)
@click.option("--force", is_flag=True, help="Replace an existing FILE, and keep one that is refused as too inexact.")
def command(
    model: str,
    adapter: Path | None,
    quant: str | None,
    target: str,
    prompt: str | None,
    max_tokens: int | None,
    window: int,
    stride: int,
    pooling: str,
    output: Path | None,
    carded: bool,
    min_tau: float,
    min_agreement: float,
    force: bool,
) -> None:
    """Make a .dear file of a scorer, or a .gguf of a listwise model.

    The model is a Hugging Face folder, a LoRA over one, or a NAME of models.toml. A NAME's kind is in models.toml; a
    FOLDER is listwise where --quant is one of GGUF's types or -o ends in .gguf.

    Weights are safetensors, merged, rotated, quantised and written a tensor at a time. A folder that holds a LoRA
    alone is merged with the base that its adapter_config.json names. Encoders (BERT, XLM-R, ModernBERT, DeBERTa and
    more) come through optimum, whole: that needs the extra `encoders`.
    """
    start = time.perf_counter()
    entry = None if Path(model).is_dir() else _entry(model)
    if _is_listwise(entry, quant, output):
        run_listwise(model, entry, adapter, output)
        return
    refuse_given(LISTWISE_OPTIONS, "a pointwise model")
    quant, prompt = quant or "int8", prompt or "dear"
    max_tokens = max_tokens or 228
    if quant not in QUANTISATIONS:
        raise UsageError(
            f"--quant {quant} is of listwise models and {model} is pointwise: take one of {', '.join(QUANTISATIONS)}"
        )
    if prompt not in PAIR_FORMS:
        raise UsageError(f"--prompt {prompt} is of listwise models: of a scorer it is one of {', '.join(PAIR_FORMS)}")
    output = output_of(output, entry, force, suffix=".dear")
    if entry is not None:
        prompt, max_tokens, pooling = entry.prompt, entry.max_tokens, entry.pooling
    check_devices(quant, DEVICES[target], pooling)
    folder, adapter_folder = folders_of(model, entry, adapter)
    checkpoint, lora = Checkpoint(folder), Adapter(adapter_folder) if adapter_folder else None
    refuse_unknown(checkpoint.config.get("model_type"), FAMILIES)
    if checkpoint.config["model_type"] in ENCODERS:
        card = _encoder(checkpoint, adapter_folder, entry, output, quant, DEVICES[target], carded, min_tau, force)
        _tell(output, start, card)
        return
    source = MergedCheckpoint(checkpoint, lora)
    if lora is not None and (note := check_base(lora.config, checkpoint)):
        click.echo(f"dearlite: {note}", err=True)
    # All that can be refused is, before the weights are hashed: that reads every byte of them.
    check_disk(output, shape_of(source.config, max_tokens), quant)
    tokenizer, pads = _tokenizer(folder, adapter_folder, source.config)
    if pooling == "last-position" and pads is None:
        raise UsageError(f"{folder} names neither a pad token nor an eos token: 'last-position' is read at one")
    facts = _facts(entry, source.config, checkpoint, adapter_folder, prompt, pooling, max_tokens, output, pads)
    card = export_decoder(
        source,
        tokenizer,
        facts,
        output,
        quant=quant,
        devices=DEVICES[target],
        pad_id=pads,
        members={"LICENSE": checkpoint.license_text.encode()},
        carded=carded,
        floor=min_tau,
        keep=force,
    )
    _tell(output, start, card)
    if entry is not None and entry.golden:
        click.echo(f"`dearlite models verify {output}` holds it to the published scores")
    elif entry is None and (note := pooling_warning(pooling, pads, source.config)):
        click.echo(f"dearlite: {note}", err=True)


def _tell(output: Path, start: float, card: dict[str, Any]) -> None:
    """What was made, in one line or two."""
    peak = peak_memory_mb()
    memory = "" if peak is None else f", peak memory {peak / 1e3:.2f} GB"
    click.echo(f"{output}: {output.stat().st_size / 1e9:.2f} GB in {time.perf_counter() - start:.0f} s{memory}")
    if "kendall_tau" in card:
        click.echo(
            f"against fp32 on {card['documents']} pairs: Kendall's tau {card['kendall_tau']}, mean error "
            f"{card['mean_error']} where scores spread by {card['spread_of_scores']} (`dearlite models show {output}`)"
        )
    if "below_floor" in card:
        click.echo(f"dearlite: kept by --force: {card['below_floor']}", err=True)


def _encoder(
    checkpoint: Checkpoint,
    adapter: Path | None,
    entry: ModelEntry | None,
    output: Path,
    quant: str,
    devices: Collection[str],
    carded: bool,
    floor: float,
    keep: bool,
) -> dict[str, Any]:
    """An encoder, through optimum; what the command line leaves open is the model's own."""
    config, context = checkpoint.config, click.get_current_context()
    if adapter is not None:
        raise UsageError(f"a LoRA over an encoder ({config['model_type']}) is not merged here: do it with PEFT first")
    if context.get_parameter_source("pooling") is ParameterSource.COMMANDLINE:
        raise UsageError(f"where an encoder ({config['model_type']}) is read its config.json says: leave out --pooling")
    given = {
        name: context.params[name] if context.get_parameter_source(name) is ParameterSource.COMMANDLINE else None
        for name in ("prompt", "max_tokens")
    }
    if entry is not None:
        given = {"prompt": entry.prompt, "max_tokens": entry.max_tokens}
    reading = reading_of(config, quant, devices, **given)
    tokenizer, _ = _tokenizer(checkpoint.folder, None, config)
    facts = _facts(entry, config, checkpoint, None, *reading, output)
    members = {"LICENSE": checkpoint.license_text.encode()}
    return export_encoder(
        checkpoint, tokenizer, facts, output, quant=quant, members=members, carded=carded, floor=floor, keep=keep
    )


def _is_listwise(entry: ModelEntry | None, quant: str | None, output: Path | None) -> bool:
    """What a NAME's entry says, and of a FOLDER the type or the file that is asked for. Raises UsageError."""
    if entry is not None:
        return entry.kind == "listwise"
    return quant in GGUF_QUANTS or (output is not None and output.suffix == ".gguf")


def _entry(name: str) -> ModelEntry:
    known = load_registry()
    if name not in known:
        raise UsageError(f"{name} is no folder and no name of models.toml: `dearlite models` lists the names")
    entry = known[name]
    if entry.kind == "cascade" or entry.embedded:
        what = "is inside the package already" if entry.embedded else "is a cascade: export each of its models"
        raise UsageError(f"{name} {what}")
    if entry.kind == "pointwise" and entry.pooling not in POOLINGS and entry.architecture not in ENCODERS:
        raise UsageError(f"{name} is read at {entry.pooling!r}: only {' and '.join(POOLINGS)} are covered")
    return entry


def _tokenizer(folder: Path, adapter: Path | None, config: dict[str, Any]) -> tuple[bytes, int | None]:
    """tokenizer.json of the base, or of the adapter where the base has none, and the id that it pads with."""
    for place in (folder, adapter):
        if place is not None and (place / "tokenizer.json").is_file():
            tokenizer = (place / "tokenizer.json").read_bytes()
            return tokenizer, padding_id(place, tokenizer, config)
    raise CheckpointError(f"{folder} has no tokenizer.json: save the model's fast tokenizer there with transformers")


def _facts(
    entry: ModelEntry | None,
    config: dict[str, Any],
    checkpoint: Checkpoint,
    adapter: Path | None,
    prompt: str,
    pooling: str,
    max_tokens: int,
    output: Path,
    pad_id: int | None = None,
) -> PointwiseFacts:
    """The manifest's fields that say what the model is."""
    source = {f"sha256 {name}": digest for name, digest in checkpoint.sha256s().items()}
    if adapter is not None:
        source["adapter"] = adapter.name
    if entry is not None:
        source |= {"repository": entry.repository, "revision": entry.revision} | (
            {"base": entry.base} if entry.base else {}
        )
    else:
        source["folder"] = checkpoint.folder.resolve().name
    if pad_id is not None:
        source["pad_id"] = str(pad_id)
    return PointwiseFacts(
        name=entry.name if entry else output.stem,
        architecture=config["model_type"],
        prompt=prompt,
        pooling=pooling,
        max_tokens=max_tokens,
        licence=entry.licence if entry else NOT_STATED,
        source=source,
    )
