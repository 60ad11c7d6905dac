"""The listwise half of `dearlite export`: what its options mean, what it refuses, and what it says at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from dearlite.errors import UsageError
from dearlite.export.gguf.listwise import export_listwise
from dearlite.export.gguf.metadata import ListwiseFacts
from dearlite.export.gguf.quants import GGUF_QUANTS
from dearlite.export.source.checkpoint import Checkpoint
from dearlite.export.source.inputs import folders_of, output_of
from dearlite.export.source.merge import Adapter, MergedCheckpoint, check_base, refuse_other_base
from dearlite.listwise.prompts import LIST_FORMS
from dearlite.machine import peak_memory_mb
from dearlite.models.facts import NOT_STATED
from dearlite.models.registry import ModelEntry

LISTWISE_OPTIONS = ("window", "stride", "min_agreement")
_POINTWISE_OPTIONS = ("target", "pooling", "min_tau")
_SPELT = {"target": "--for"}  # an option that its parameter does not name
_DEFAULT_QUANT, _DEFAULT_FORM = "q4_k_m", "chat"
_MOST_TOKENS = 5000  # DeAR's cut-off in training (arXiv 2508.16998)


def refuse_given(names: Sequence[str], what: str) -> None:
    """Raises UsageError where the command line gives options that `what` has no use for."""
    context = click.get_current_context()
    given = [name for name in names if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        spelt = ", ".join(_SPELT.get(name, "--" + name.replace("_", "-")) for name in given)
        raise UsageError(f"{spelt} means nothing for {what}: leave it out")


def run_listwise(model: str, entry: ModelEntry | None, adapter: Path | None, output: Path | None) -> None:
    """Exports `model`, the rest of the command line read from click's context."""
    started = time.perf_counter()
    options = click.get_current_context().params
    refuse_given(_POINTWISE_OPTIONS, "a listwise model")
    quant = options["quant"] or _DEFAULT_QUANT
    if quant not in GGUF_QUANTS:
        raise UsageError(
            f"--quant {quant} is of pointwise models: {model} is written as GGUF, take one of {', '.join(GGUF_QUANTS)}"
        )
    if output is not None and output.suffix != ".gguf":
        raise UsageError(f"{output} is to be a listwise model, whose file ends in .gguf: -o {output.stem}.gguf")
    if options["prompt"] is not None and options["prompt"] not in LIST_FORMS:
        raise UsageError(
            f"--prompt {options['prompt']} is of pointwise models: of a listwise one it is one of "
            f"{', '.join(LIST_FORMS)}"
        )
    if options["stride"] > options["window"]:
        raise UsageError(f"--stride {options['stride']} leaves out documents: at most --window, {options['window']}")
    output = output_of(output, entry, options["force"], suffix=".gguf")
    folder, adapter_folder = folders_of(model, entry, adapter)
    checkpoint, lora = Checkpoint(folder), Adapter(adapter_folder) if adapter_folder else None
    _refuse_scorer(checkpoint)
    source = MergedCheckpoint(checkpoint, lora, require_head=False)
    if lora is not None:
        if not options["force"]:
            refuse_other_base(lora.config, checkpoint)
        if note := check_base(lora.config, checkpoint):
            click.echo(f"dearlite: {note}", err=True)
    form, most = options["prompt"] or _DEFAULT_FORM, checkpoint.config.get("max_position_embeddings") or _MOST_TOKENS
    max_tokens = options["max_tokens"] or min(_MOST_TOKENS, most)
    if entry is not None:
        form, max_tokens = entry.prompt, entry.max_tokens
    if form not in LIST_FORMS:
        raise UsageError(f"{model} wants the prompt {form!r}, which is none of {', '.join(LIST_FORMS)}")
    if max_tokens > most:
        raise UsageError(f"--max-tokens {max_tokens} is more than the model's max_position_embeddings, {most}")
    facts = ListwiseFacts(
        name=entry.name if entry else output.stem,
        prompt=form,
        window=options["window"],
        stride=options["stride"],
        max_tokens=max_tokens,
        licence=entry.licence if entry else NOT_STATED,
        source=_source(entry, checkpoint, lora),
    )
    card = export_listwise(
        source,
        facts,
        output,
        quant=quant,
        carded=options["carded"],
        floor=options["min_agreement"],
        keep=options["force"],
    )
    _tell(output, started, card, checkpoint)


def _refuse_scorer(checkpoint: Checkpoint) -> None:
    """Raises UsageError where config.json says that the folder is no language model."""
    names = checkpoint.config.get("architectures") or []
    if names and not any(str(name).endswith("ForCausalLM") for name in names):
        raise UsageError(
            f"{checkpoint.folder} is a {names[0]}, not a language model, and a GGUF has no place for its head: export "
            "it as a .dear file, without --quant or with --quant int8"
        )


def _source(entry: ModelEntry | None, checkpoint: Checkpoint, lora: Adapter | None) -> dict[str, Any]:
    """Where the weights came from, but for their hashes."""
    adapter = {} if lora is None else {"adapter": lora.folder.resolve().name}
    if entry is None:
        return {"folder": checkpoint.folder.resolve().name} | adapter
    base = {"base": entry.base} if entry.base else {}
    return {"repository": entry.repository, "revision": entry.revision} | base | adapter


def _tell(output: Path, started: float, card: dict[str, Any], checkpoint: Checkpoint) -> None:
    """What was made and what it took, in one line or two."""
    seconds, read = time.perf_counter() - started, sum(_sizes(checkpoint)) / 1e9
    peak, peak_of_llama = peak_memory_mb(), _children_peak_mb()
    memory = "" if peak is None else f", peak memory {peak / 1e3:.2f} GB"
    memory += "" if peak_of_llama is None else f" (llama.cpp {peak_of_llama / 1e3:.2f} GB)"
    size = output.stat().st_size / 1e9
    click.echo(f"{output}: {size:.2f} GB in {seconds:.0f} s, {seconds / max(read, 1e-9):.1f} s a GB of weights{memory}")
    if "argmax_agreement" in card:
        click.echo(
            f"against fp32 at {card['positions']} positions: the same likeliest token at {card['argmax_agreement']}, "
            f"KL {card['kl']}, mean error of logits {card['mean_error']} (`dearlite models show {output}`)"
        )
    if "below_floor" in card:
        click.echo(f"dearlite: kept by --force: {card['below_floor']}", err=True)


def _sizes(checkpoint: Checkpoint) -> list[int]:
    return [path.stat().st_size for path in {checkpoint.spec(name).file for name in checkpoint.names}]


def _children_peak_mb() -> float | None:
    """The largest resident memory of the processes that ran llama.cpp; None where the system does not tell."""
    try:
        resource = import_module("resource")
    except ModuleNotFoundError:  # Windows
        return None
    return float(
        round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3))
    )
