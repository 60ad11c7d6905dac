"""`dearlite export NAME|FOLDER`: makes a `.dear` file. The CLI names this module and imports it when it is called."""

from __future__ import annotations

import shutil
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from dearlite.errors import DearliteError, UsageError
from dearlite.export.checkpoint import Checkpoint, CheckpointError
from dearlite.export.fetch import fetch
from dearlite.export.llama import QUANTISATIONS, shape_of, write_bundle
from dearlite.export.merge import Adapter, Merged, check_base
from dearlite.prompts import PAIR_FORMS
from dearlite.registry import ModelEntry, load_registry, model_file


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", metavar="NAME|FOLDER")
@click.option("--adapter", type=click.Path(path_type=Path), metavar="FOLDER", help="A PEFT LoRA to merge on the way.")
@click.option("--quant", type=click.Choice(list(QUANTISATIONS)), default="int8", show_default=True)
@click.option(
    "--prompt",
    type=click.Choice(list(PAIR_FORMS)),
    default="dear",
    show_default=True,
    help="The prompt form of a FOLDER's model; a NAME has its own.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(8),
    default=228,
    show_default=True,
    help="Tokens of a pair, for a FOLDER's model; a NAME has its own.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The .dear file. [default for a NAME: where `-m NAME` finds it]",
)
@click.option("--force", is_flag=True, help="Replace an existing FILE.")
def command(
    model: str, adapter: Path | None, quant: str, prompt: str, max_tokens: int, output: Path | None, force: bool
) -> None:
    """Make a .dear file of a LLaMA-family scorer: a Hugging Face folder, a LoRA over one, or a NAME of models.toml.

    Weights are safetensors, merged, rotated, quantised and written a tensor at a time. A folder that holds a LoRA
    alone is merged with the base that its adapter_config.json names.
    """
    start = time.perf_counter()
    entry = None if Path(model).is_dir() else _entry(model)
    output = _output(output, entry, force)
    if entry is not None:
        prompt, max_tokens = entry.prompt, entry.max_tokens
    folder, adapter_folder = _folders(model, entry, adapter)
    checkpoint, lora = Checkpoint(folder), Adapter(adapter_folder) if adapter_folder else None
    source = Merged(checkpoint, lora)
    if lora is not None and (note := check_base(lora.config, checkpoint)):
        click.echo(f"dearlite: {note}", err=True)
    # All that can be refused is, before the weights are hashed: that reads every byte of them.
    _check_disk(output, source.config, max_tokens, quant)
    tokenizer = _tokenizer(folder, adapter_folder)
    facts = _facts(entry, source.config, checkpoint, adapter_folder, prompt, max_tokens, output)
    try:
        write_bundle(
            source,
            tokenizer,
            facts,
            output,
            plan=QUANTISATIONS[quant],
            members={"LICENSE": checkpoint.license_text.encode()},
        )
    except OSError as err:
        raise DearliteError(f"cannot write {output}: {err.strerror or err}") from None
    seconds = time.perf_counter() - start
    click.echo(f"{output}: {output.stat().st_size / 1e9:.2f} GB in {seconds:.0f} s{_peak_memory()}")


def _peak_memory() -> str:
    """What to say of the peak, where the system tells it (ru_maxrss: kilobytes on Linux, bytes on macOS)."""
    try:
        resource = import_module("resource")
    except ModuleNotFoundError:  # Windows
        return ""
    unit = 1e9 if sys.platform == "darwin" else 1e6
    return f", peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.2f} GB"


def _entry(name: str) -> ModelEntry:
    known = load_registry()
    if name not in known:
        raise UsageError(f"{name} is no folder and no name of models.toml: `dearlite models` lists the names")
    entry = known[name]
    if entry.kind != "pointwise" or entry.embedded:
        what = "is inside the package already" if entry.embedded else f"is {entry.kind}: that export is being built"
        raise UsageError(f"{name} {what}")
    if entry.pooling != "last-token":
        raise UsageError(f"{name} is read at {entry.pooling!r}, which is not covered: only 'last-token' is")
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


def _tokenizer(folder: Path, adapter: Path | None) -> bytes:
    """tokenizer.json of the base, or of the adapter where the base has none."""
    for place in (folder, adapter):
        if place is not None and (place / "tokenizer.json").is_file():
            return (place / "tokenizer.json").read_bytes()
    raise CheckpointError(f"{folder} has no tokenizer.json: save the model's fast tokenizer there with transformers")


def _facts(
    entry: ModelEntry | None,
    config: dict[str, Any],
    checkpoint: Checkpoint,
    adapter: Path | None,
    prompt: str,
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
        "pooling": "last-token",
        "max_tokens": max_tokens,
        "licence": entry.licence if entry else "not stated",
        "source": source,
    }


def _check_disk(output: Path, config: dict[str, Any], max_tokens: int, quant: str) -> None:
    """Told before the work: the file's size from the shapes, against what is free."""
    s = shape_of(config, max_tokens)
    layer = s.hidden * s.head_dim * (2 * s.heads + 2 * s.kv_heads) + 3 * s.hidden * s.ffn
    needed = (s.vocabulary * s.hidden + s.layers * layer) * (1 if QUANTISATIONS[quant].int8 else 4) * 1.02
    free = shutil.disk_usage(output.parent).free
    if needed > free:
        raise DearliteError(f"{output} needs {needed / 1e9:.1f} GB of disk and {free / 1e9:.1f} GB are free: make room")
