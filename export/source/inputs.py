"""Inputs and output of an export: the folders of base and adapter, the padding token, the path of the new file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dearlite.errors import CheckpointError, UsageError
from dearlite.export.source.adapter import Adapter
from dearlite.export.source.fetch import fetch
from dearlite.export.source.tokenizer import read_settings
from dearlite.files.outputs import check_outputs
from dearlite.files.targets import ending_of, find_target, reason_of
from dearlite.models.entries import ModelEntry
from dearlite.models.registry import model_file

_MODEL_FILES = (".dear", ".gguf")  # of an earlier export into the folder: no export reads them


def output_path(
    output: Path | None, entry: ModelEntry | None, force: bool, *, suffix: str, folders: Iterable[Path | None] = ()
) -> Path:
    """The path of the new file. Raises UsageError when the file exists, unless `force`, and for a file of `folders`.

    Without `output` it is the path where `-m NAME` looks for `entry`; its folder is created.
    """
    if output is None:
        if entry is None:
            raise UsageError(f"name the file to write: -o model{suffix}")
        output = model_file(entry)
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            pass  # `find_target` below names the file that stands in the way
        except OSError as err:
            raise UsageError(f"cannot write {output}: {reason_of(err)}") from None
    ending_of(output, (suffix.removeprefix("."),), needed=True)
    files = [path for folder in folders if folder is not None and os.path.isdir(folder) for path in folder.iterdir()]
    inputs = [path for path in files if path.suffix not in _MODEL_FILES]
    check_outputs({"--output": output}, {"MODEL": inputs})
    target = find_target(output)
    if target.is_file and target.status is not None and not force:
        raise UsageError(f"{output} exists: --force replaces it")
    return output


def source_folders(model: str, entry: ModelEntry | None, adapter: Path | None) -> tuple[Path, Path | None]:
    """The folder of the base and the folder of the LoRA, if any; repositories are fetched.

    A folder that holds only a LoRA is combined with the base that its adapter_config.json names.
    """
    if entry is not None:
        if entry.base and adapter is not None:
            raise UsageError(f"{entry.name} is a LoRA already: export its base's folder with --adapter instead")
        fetched = fetch(entry.repository, entry.revision)
        return (fetch(entry.base), fetched) if entry.base else (fetched, adapter)
    folder = Path(model)
    if adapter is not None or not os.path.isfile(folder / "adapter_config.json"):
        return folder, adapter
    base = Adapter(folder).base_name
    if not base:
        raise UsageError(f"{folder} is a LoRA that names no base: give the base's folder, and this one with --adapter")
    return (Path(base) if os.path.isdir(base) else fetch(base)), folder


def padding_id(folder: Path, tokenizer_json: bytes, config: dict[str, Any]) -> int | None:
    """The id of the padding token of `folder`'s tokenizer: its pad token or, without a pad token, its eos token.

    If tokenizer_config.json names neither: the (first) eos id of the model's configuration; None if that has no eos id
    either. Raises CheckpointError for files that do not belong to a tokenizer.
    """
    path = folder / "tokenizer_config.json"
    try:
        added_tokens = json.loads(tokenizer_json).get("added_tokens", ())
        ids = {token["content"]: int(token["id"]) for token in added_tokens}
        settings = dict(json.loads(path.read_bytes())) if os.path.isfile(path) else {}
    except (ValueError, TypeError, KeyError, AttributeError) as err:
        raise CheckpointError(f"the tokenizer in {folder} cannot be read ({err}): fetch its files again") from None
    for key in ("pad_token", "eos_token"):
        token = settings.get(key)
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str) and content in ids:
            return ids[content]
    eos = config.get("eos_token_id")
    first = eos[0] if isinstance(eos, list) and eos else eos
    return first if isinstance(first, int) else None


def pooling_warning(pooling: str, pad_id: int | None, config: dict[str, Any]) -> str:
    """A warning if the model's published scores may come from another position than `pooling`; otherwise empty.

    transformers takes the last token that is not config.json's `pad_token_id` as the end of a row. If the tokenizer
    pads with another token, that is the last position of the padded row.
    """
    model_pad_id = config.get("pad_token_id")
    if pooling != "last-token" or model_pad_id is None or pad_id in (None, model_pad_id):
        return ""
    return (
        f"the model's pad_token_id is {model_pad_id} and its tokenizer pads with {pad_id}: in a padded batch "
        "transformers reads it at the last position. If its published scores come from there, export with --pooling "
        "last-position"
    )


def states_scorer(folder: Path, adapter: Path | None) -> bool:
    """True if the model in `folder`, or the adapter over it, states that it is a scorer and no language model."""
    settings = read_settings(folder / "config.json")
    names = settings.get("architectures")
    if isinstance(names, list) and any(str(name).endswith("ForSequenceClassification") for name in names):
        return True
    places = (folder, adapter) if adapter is not None else (folder,)
    return any(read_settings(place / "adapter_config.json").get("task_type") == "SEQ_CLS" for place in places)
