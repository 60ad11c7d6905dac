"""Where an export reads and writes: a name's or a folder's files, the LoRA over them, the file that is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dearlite.errors import CheckpointError, UsageError
from dearlite.export.source.fetch import fetch
from dearlite.export.source.merge import Adapter
from dearlite.models.registry import ModelEntry, model_file


def output_of(output: Path | None, entry: ModelEntry | None, force: bool, *, suffix: str) -> Path:
    """The file to write, its folder made where it is a NAME's. Raises UsageError when it is there and not `force`."""
    if output is None:
        if entry is None:
            raise UsageError(f"name the file to write: -o model{suffix}")
        output = model_file(entry)
        output.parent.mkdir(parents=True, exist_ok=True)
    if output.exists() and not force:
        raise UsageError(f"{output} exists: --force replaces it")
    if not output.parent.is_dir():
        raise UsageError(f"cannot write {output}: the folder {output.parent} does not exist; make it first")
    return output


def folders_of(model: str, entry: ModelEntry | None, adapter: Path | None) -> tuple[Path, Path | None]:
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


def padding_id(folder: Path, tokenizer_json: bytes, config: dict[str, Any]) -> int | None:
    """The id that `folder`'s tokenizer pads with: its pad token or, where it has none, its eos token.

    Where its tokenizer_config.json names neither, the eos id of the model's configuration, the first of several; None
    where that has none either. Raises CheckpointError for files that are no tokenizer's.
    """
    path = folder / "tokenizer_config.json"
    try:
        added = json.loads(tokenizer_json).get("added_tokens", ())
        ids = {token["content"]: int(token["id"]) for token in added}
        named = dict(json.loads(path.read_bytes())) if path.is_file() else {}
    except (ValueError, TypeError, KeyError, AttributeError) as err:
        raise CheckpointError(f"the tokenizer in {folder} cannot be read ({err}): fetch its files again") from None
    for key in ("pad_token", "eos_token"):
        token = named.get(key)
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str) and content in ids:
            return ids[content]
    eos = config.get("eos_token_id")
    first = eos[0] if isinstance(eos, list) and eos else eos
    return first if isinstance(first, int) else None


def pooling_warning(pooling: str, pad_id: int | None, config: dict[str, Any]) -> str:
    """What to say where the model's makers may have read another position than `pooling` says, otherwise nothing."""
    other = config.get("pad_token_id")
    if pooling != "last-token" or other is None or pad_id in (None, other):
        return ""
    return (
        f"the model's pad_token_id is {other} and its tokenizer pads with {pad_id}: in a padded batch transformers "
        "reads it at the last position. If its published scores were taken so, export it with --pooling last-position"
    )
