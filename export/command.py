"""`dearlite export NAME|FOLDER`: makes a `.dear` file. The CLI names this module and imports it when it is called."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from dearlite.errors import UsageError
from dearlite.export.check import FLOOR, peak_memory_mb
from dearlite.export.checkpoint import Checkpoint, CheckpointError
from dearlite.export.decoder import check_disk, export_decoder
from dearlite.export.encoders import ENCODERS, export_encoder, reading_of, refuse_unknown
from dearlite.export.families import ARCHITECTURES, shape_of
from dearlite.export.fetch import fetch
from dearlite.export.merge import Adapter, Merged, check_base
from dearlite.export.pooling import POOLINGS, doubt, padding_id
from dearlite.export.quantisations import DEVICES, QUANTISATIONS, check_devices
from dearlite.prompts import PAIR_FORMS
from dearlite.registry import ModelEntry, load_registry, model_file


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", metavar="NAME|FOLDER")
@click.option("--adapter", type=click.Path(path_type=Path), metavar="FOLDER", help="A PEFT LoRA to merge on the way.")
@click.option(
    "--quant",
    type=click.Choice(list(QUANTISATIONS)),
    default="int8",
    show_default=True,
    help="How weights are stored. " + ", ".join(f"{name} ({plan.about})" for name, plan in QUANTISATIONS.items()) + ".",
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
    type=click.Choice(list(PAIR_FORMS)),
    default="dear",
    show_default=True,
    help="The prompt form of a FOLDER's model; a NAME has its own, an encoder is 'plain' unless it is given.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(8),
    default=228,
    show_default=True,
    help="Tokens of a pair, for a FOLDER's model; a NAME has its own, an encoder up to 512 unless it is given.",
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
    help="The .dear file. [default for a NAME: where `-m NAME` finds it]",
)
@click.option(
    "--card/--no-card",
    "carded",
    default=True,
    show_default=True,
    help="Score named pairs in fp32 and with the file, and keep the comparison in it.",
)
@click.option(
    "--min-tau",
    type=click.FloatRange(-1, 1),
    default=FLOOR,
    show_default=True,
    help="Refuse a file whose order agrees less than this with fp32's (Kendall's tau).",
)
@click.option("--force", is_flag=True, help="Replace an existing FILE, and keep one below --min-tau.")
def command(
    model: str,
    adapter: Path | None,
    quant: str,
    target: str,
    prompt: str,
    max_tokens: int,
    pooling: str,
    output: Path | None,
    carded: bool,
    min_tau: float,
    force: bool,
) -> None:
    """Make a .dear file of a scorer: a Hugging Face folder, a LoRA over one, or a NAME of models.toml.

    Weights are safetensors, merged, rotated, quantised and written a tensor at a time. A folder that holds a LoRA
    alone is merged with the base that its adapter_config.json names. Encoders (BERT, XLM-R, ModernBERT, DeBERTa and
    more) come through optimum, whole: that needs the extra `encoders`.
    """
    start = time.perf_counter()
    entry = None if Path(model).is_dir() else _entry(model)
    output = _output(output, entry, force)
    if entry is not None:
        prompt, max_tokens, pooling = entry.prompt, entry.max_tokens, entry.pooling
    check_devices(quant, DEVICES[target], pooling)
    folder, adapter_folder = _folders(model, entry, adapter)
    checkpoint, lora = Checkpoint(folder), Adapter(adapter_folder) if adapter_folder else None
    refuse_unknown(checkpoint.config.get("model_type"), ARCHITECTURES)
    if checkpoint.config["model_type"] in ENCODERS:
        card = _encoder(checkpoint, adapter_folder, entry, output, quant, DEVICES[target], carded, min_tau, force)
        _tell(output, start, card)
        return
    source = Merged(checkpoint, lora)
    if lora is not None and (note := check_base(lora.config, checkpoint)):
        click.echo(f"dearlite: {note}", err=True)
    # All that can be refused is, before the weights are hashed: that reads every byte of them.
    check_disk(output, shape_of(source.config, max_tokens), quant)
    tokenizer, pads = _tokenizer(folder, adapter_folder, source.config)
    if pooling == "last-position" and pads is None:
        raise UsageError(f"{folder} names neither a pad token nor an eos token: 'last-position' is read at one")
    facts = _facts(entry, source.config, checkpoint, adapter_folder, prompt, pooling, max_tokens, output)
    facts["source"] |= {} if pads is None else {"pad_id": str(pads)}
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
    elif entry is None and (note := doubt(pooling, pads, source.config)):
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


def _entry(name: str) -> ModelEntry:
    known = load_registry()
    if name not in known:
        raise UsageError(f"{name} is no folder and no name of models.toml: `dearlite models` lists the names")
    entry = known[name]
    if entry.kind != "pointwise" or entry.embedded:
        what = "is inside the package already" if entry.embedded else f"is {entry.kind}: that export is being built"
        raise UsageError(f"{name} {what}")
    if entry.pooling not in POOLINGS and entry.architecture not in ENCODERS:
        raise UsageError(f"{name} is read at {entry.pooling!r}: only {' and '.join(POOLINGS)} are covered")
    return entry


def _output(output: Path | None, entry: ModelEntry | None, force: bool) -> Path:
    if output is None:
        if entry is None:
            raise UsageError("name the file to write: -o model.dear")
        output = model_file(entry)
        output.parent.mkdir(parents=True, exist_ok=True)
    if output.exists() and not force:
        raise UsageError(f"{output} exists: --force replaces it")
    if not output.parent.is_dir():
        raise UsageError(f"cannot write {output}: the folder {output.parent} does not exist; make it first")
    return output


def _folders(model: str, entry: ModelEntry | None, adapter: Path | None) -> tuple[Path, Path | None]:
    """The base's folder and the LoRA's, fetched where they are repositories."""
    if entry is not None:
        if entry.base and adapter is not None:
            raise UsageError(f"{entry.name} is a LoRA already: export its base's folder with --adapter instead")
        main = fetch(entry.repository, entry.revision)
        return (fetch(entry.base), main) if entry.base else (main, adapter)
    folder = Path(model)
    if adapter is not None or not (folder / "adapter_config.json").is_file():
        return folder, adapter
    base = Adapter(folder).base_name
    if not base:
        raise UsageError(f"{folder} is a LoRA that names no base: give the base's folder, and this with --adapter")
    return (Path(base) if Path(base).is_dir() else fetch(base)), folder


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
) -> dict[str, Any]:
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
    return {
        "kind": "pointwise",
        "name": entry.name if entry else output.stem,
        "architecture": config["model_type"],
        "prompt": prompt,
        "pooling": pooling,
        "max_tokens": max_tokens,
        "licence": entry.licence if entry else "not stated",
        "source": source,
    }
