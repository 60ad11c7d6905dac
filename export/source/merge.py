"""A base model with a PEFT LoRA adapter, read as one merged model: rows are merged on request.

    W + scale · B A,  scale = alpha / r, or alpha / sqrt(r) with rslora; arXiv 2106.09685 (LoRA), 2312.03732 (rslora)

All arithmetic is float32 on the stored values, whatever the dtype of base and adapter. Tensors that the adapter stores
in full (PEFT's `modules_to_save`: the score head) replace those of the base. An adapter with any other setting is
refused before the first row is read: a merge that ignores the setting would give a different model without an error.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dearlite.errors import CheckpointError
from dearlite.export.source.checkpoint import (
    Checkpoint,
    Floats,
    TensorSource,
    TensorSpec,
    name_some,
    read_header,
    read_json,
    read_rows,
    refuse_pickle,
)

WEIGHTS = "adapter_model.safetensors"
HEADS = ("score.", "classifier.")  # prefixes of the heads of sequence classifiers in transformers
_PREFIX = "base_model.model."
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
# Fields of adapter_config.json that do not change the meaning of a merge, or are read below. PEFT adds a field for each
# variant (use_dora, rank_pattern, kasa_config ...), so any other field that is switched on is refused, known or not.
_KNOWN_FIELDS = {
    "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying", "eva_config",
    "exclude_modules", "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config",
    "lora_alpha", "lora_dropout", "lora_ga_config", "modules_to_save", "peft_type", "peft_version", "r", "revision",
    "runtime_config", "target_modules", "task_type", "use_rslora", "velora_config",
}  # fmt: skip
# Initialisations that leave the base's weights alone. The others (pissa, olora, corda, loftq, lora_ga) change them.
_BASE_KEEPING_INITS = (True, False, None, "gaussian", "eva", "orthogonal")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_NO_HEAD = (
    'it has no score head and neither has the base: train it with LoraConfig(task_type="SEQ_CLS", '
    'modules_to_save=["score"]), then save_pretrained writes the head into the adapter'
)


class Adapter:
    """A PEFT LoRA folder. `misfits` collects the reasons against a merge; `MergedCheckpoint` reports them together.

    `lora` maps a module to the tensor names of its matrices A and B, `saved` maps a tensor of the base to the adapter's
    tensor that replaces it. The keys of both are without PEFT's prefix and suffixes, spelt as in the classifier
    (`model.layers.0…`).
    """

    def __init__(self, folder: str | Path) -> None:
        """Raises CheckpointError when the folder is not a readable adapter."""
        self.folder = Path(folder)
        if not (self.folder / "adapter_config.json").is_file():
            raise CheckpointError(
                f"{folder} has no adapter_config.json: give the folder that PEFT's save_pretrained wrote"
            )
        self.config = read_json(self.folder / "adapter_config.json")
        if not (self.folder / WEIGHTS).is_file():
            refuse_pickle(self.folder)
            raise CheckpointError(f"{folder} has no {WEIGHTS}: fetch the whole adapter again")
        self.tensors = read_header(self.folder / WEIGHTS)
        self.lora: dict[str, dict[str, str]] = {}
        self.saved: dict[str, str] = {}
        self.misfits: list[str] = []
        self._read_config()
        self._read_names()

    @property
    def base_name(self) -> str:
        """The base model's name as the training script gave it; empty when the configuration has none."""
        return str(self.config.get("base_model_name_or_path") or "")

    def _read_config(self) -> None:
        config = self.config
        kind = config.get("peft_type")
        if kind != "LORA":
            self.misfits.append(f"peft_type is {kind!r}, and only 'LORA' can be merged")
        rank: Any = config.get("r")
        alpha: Any = config.get("lora_alpha")
        if type(rank) is not int or rank < 1:
            self.misfits.append(f"r is {rank!r}, not a whole number from 1")
        if type(alpha) not in {int, float} or not math.isfinite(alpha):
            self.misfits.append(f"lora_alpha is {alpha!r}, not a number")
        self.rank, self.scale = 0, math.nan
        if not self.misfits:
            self.rank, self.scale = rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        if config.get("bias", "none") != "none":
            self.misfits.append(f"bias is {config['bias']!r}, and only 'none' can be merged")
        init = config.get("init_lora_weights")
        if init not in _BASE_KEEPING_INITS:
            self.misfits.append(f"init_lora_weights is {init!r}, which changes the base too")
        for field, value in config.items():
            # Numbers and strings are parameters of variants; a variant is switched on by true, a list or an object.
            if field not in _KNOWN_FIELDS and (value is True or (isinstance(value, list | dict) and value)):
                self.misfits.append(f"{field} is {json.dumps(value)[:60]}, which is not supported")

    def _read_names(self) -> None:
        names = _classifier_names(tensor.removeprefix(_PREFIX) for tensor in self.tensors)
        for tensor in self.tensors:
            name = names[tensor.removeprefix(_PREFIX)]
            if match := _LORA.fullmatch(name):
                sides, side = self.lora.setdefault(match["module"], {}), match["side"]
                duplicate = sides.setdefault(side, tensor) != tensor
            else:
                replaced = re.sub(r"\.modules_to_save(\.default)?(?=\.)", "", name)
                duplicate = self.saved.setdefault(replaced, tensor) != tensor
            if duplicate:
                self.misfits.append(f"{tensor} is there twice, under two names")
            if not tensor.startswith(_PREFIX):
                self.misfits.append(f"{tensor} does not begin with {_PREFIX}")
        if not self.lora:
            self.misfits.append("it holds no LoRA matrices")
        for module, sides in self.lora.items():
            if len(sides) == 1:
                side = next(iter(sides))
                self.misfits.append(f"{module} has lora_{side} without lora_{'B' if side == 'A' else 'A'}")
            if f"{module}.weight" in self.saved:
                self.misfits.append(f"{module} has both a LoRA and a full weight")
        if limits := _as_list(self.config.get("layers_to_transform")):
            layers = [match[1] for module in self.lora if (match := re.search(r"\.(\d+)\.", module))]
            if set(layers) != set(limits):
                listed = ", ".join(dict.fromkeys(layers)) or "none"
                self.misfits.append(f"layers_to_transform is {', '.join(limits)}, and the layers are {listed}")


class MergedCheckpoint(TensorSource):
    """A checkpoint with an adapter merged in, as a TensorSource; without an adapter, the checkpoint itself.

    Names are those of the classifier: a base saved without the prefix `model.` gets it here. `config` is the base's.
    """

    def __init__(self, checkpoint: Checkpoint, adapter: Adapter | None = None, *, require_head: bool = True) -> None:
        """Raises CheckpointError listing everything that does not fit, a missing score head included."""
        self.checkpoint, self.adapter, self.config = checkpoint, adapter, checkpoint.config
        self._base = {spelling: name for name, spelling in _classifier_names(checkpoint.names).items()}
        self._saved: dict[str, TensorSpec] = {}
        self._last_a: tuple[str, Floats] | None = None  # (tensor, its A): all blocks of a tensor need the same A
        headless = require_head and not any(
            name.startswith(HEADS) for name in (*self._base, *(adapter.saved if adapter else ()))
        )
        if adapter is not None:
            misfits = [*adapter.misfits, *self._find_misfits(adapter), *([_NO_HEAD] if headless else [])]
            if misfits:
                remedy = (
                    f": give the base that it was trained on ({adapter.base_name or 'see its model card'}), "
                    "or merge it with PEFT (merge_and_unload, save_pretrained) and export that folder"
                )
                raise CheckpointError(
                    f"{adapter.folder} cannot be merged into {checkpoint.folder}: "
                    f"{name_some(misfits, 8, '; ')}{'' if misfits == [_NO_HEAD] else remedy}"
                )
            self._saved = {name: adapter.tensors[tensor] for name, tensor in adapter.saved.items()}
        elif headless:
            raise CheckpointError(
                f"{checkpoint.folder} has no score head (no tensor {' or '.join(f'{head}*' for head in HEADS)}): "
                "it is not a reranker yet, give the adapter that holds one"
            )
        self._names = dict.fromkeys((*self._base, *self._saved))

    @property
    def names(self) -> Collection[str]:
        return self._names.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._saved[name].shape if name in self._saved else self.checkpoint.shape(self._base.get(name, name))

    def rows(self, name: str, start: int, stop: int) -> Floats:
        if name in self._saved:
            assert self.adapter is not None
            return read_rows(self.adapter.saved[name], self._saved[name], start, stop)
        block = self.checkpoint.rows(self._base.get(name, name), start, stop)  # (rows, in)
        sides = self.adapter.lora.get(name.removesuffix(".weight")) if self.adapter else None
        if sides and name.endswith(".weight"):
            assert self.adapter is not None
            tensors = self.adapter.tensors
            cached = self._last_a
            if cached is None or cached[0] != name:  # a local variable: another thread may read another tensor
                a = read_rows(sides["A"], tensors[sides["A"]], 0, self.adapter.rank)  # (r, in)
                cached = self._last_a = (name, a)
            update = read_rows(sides["B"], tensors[sides["B"]], start, stop) @ cached[1]  # (rows, in)
            update *= np.float32(self.adapter.scale)
            block += update
        return block

    def _find_misfits(self, adapter: Adapter) -> list[str]:
        """Messages about adapter tensors that have no counterpart in the base, or another shape."""
        shapes = {name: self.checkpoint.shape(tensor) for name, tensor in self._base.items()}
        fitting = [module for module in adapter.lora if f"{module}.weight" in shapes]
        misfits = []
        if adapter.lora and not fitting:
            misfits.append(
                f"none of its {len(adapter.lora)} modules is in the base: it has {next(iter(adapter.lora))}, "
                f"the base has {next(iter(shapes), 'nothing')}"
            )
        else:
            misfits += [f"{module} is not in the base" for module in adapter.lora if module not in fitting]
        for module in fitting if adapter.rank else ():
            shape, rank = shapes[f"{module}.weight"], adapter.rank
            expected = {"A": (rank, *shape[1:]), "B": (*shape[:1], rank)}
            sides = {side: adapter.tensors[tensor].shape for side, tensor in adapter.lora[module].items()}
            if len(shape) != 2 or any(sizes != expected[side] for side, sizes in sides.items()):
                actual = " and ".join(f"lora_{side} {list(sizes)}" for side, sizes in sides.items())
                misfits.append(f"{module} has {actual}, for r {rank} and a base of {list(shape)}")
        hidden = self.config.get("hidden_size")
        for name, tensor in adapter.saved.items():
            sizes = adapter.tensors[tensor].shape
            if name in shapes and sizes != shapes[name]:
                misfits.append(f"{name} is {list(sizes)}, the base's is {list(shapes[name])}")
            elif name not in shapes and not name.startswith(HEADS):
                misfits.append(
                    f"{name} is {'of an unsupported LoRA variant' if '.lora_' in name else 'not in the base'}"
                )
            elif name.endswith("weight") and name.startswith(HEADS) and hidden and sizes[1:] != (hidden,):
                misfits.append(f"{name} is {list(sizes)}, and the base's hidden_size is {hidden}")
        for module in dict.fromkeys(_as_list(adapter.config.get("modules_to_save"))):
            # PEFT lists `score` and `classifier` by default; only a module that the model has must be saved.
            tensors_of = re.compile(rf"(.+\.)?{re.escape(module)}\..+")
            if any(map(tensors_of.fullmatch, shapes)) and not any(map(tensors_of.fullmatch, adapter.saved)):
                misfits.append(f"modules_to_save names {module}, and no such tensor was saved")
        return misfits


def check_base(adapter_config: dict[str, Any], checkpoint: Checkpoint) -> str | None:
    """A warning when the adapter names another base than the checkpoint's folder and configuration do, else None.

    It is not an error because folders are renamed and repositories move. `MergedCheckpoint` checks that tensors fit.
    """
    trained_on = str(adapter_config.get("base_model_name_or_path") or "")
    known = [checkpoint.folder.resolve().name, *_repositories(checkpoint)]
    if not trained_on or _last_part(trained_on) in map(_last_part, known):
        return None
    return (
        f"the adapter was trained on {trained_on} and is merged into {checkpoint.folder}, which has another name: "
        "make sure that it is the same model"
    )


def refuse_other_base(adapter_config: dict[str, Any], checkpoint: Checkpoint) -> None:
    """Raises CheckpointError when adapter and base each name a repository and the two names differ.

    The tensors of a base and of its instruct version have the same shapes: their merge would run and write nonsense.
    A folder that names no repository is not refused; `check_base` returns a warning for it.
    """
    trained_on = str(adapter_config.get("base_model_name_or_path") or "")
    named = [name for name in _repositories(checkpoint) if _REPOSITORY.fullmatch(name)]
    if check_base(adapter_config, checkpoint) and _REPOSITORY.fullmatch(trained_on) and named:
        raise CheckpointError(
            f"the adapter was trained on {trained_on} and {checkpoint.folder} is {named[0]}: give the base that it was "
            "trained on (--force merges it anyway)"
        )


def _repositories(checkpoint: Checkpoint) -> list[str]:
    """The base's repository names: from its path in the Hub's cache (models--owner--name) and from its config.json."""
    parts = checkpoint.folder.resolve().parts
    cached = [part.removeprefix("models--").replace("--", "/") for part in parts if part.startswith("models--")]
    return [*cached, str(checkpoint.config.get("_name_or_path") or "")]


def _as_list(value: Any) -> list[str]:
    """The items, as text, of a field that is a list, a single value or null."""
    return [str(item) for item in (value if isinstance(value, list) else [] if value is None else [value])]


def _last_part(name: str) -> str:
    """The last component of a repository name or path, in lower case."""
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1].lower()


def _classifier_names(names: Iterable[str]) -> dict[str, str]:
    """Name -> the classifier's name of that tensor: decoders saved without the prefix `model.` get it.

    Example: layers.0.mlp.up_proj.weight -> model.layers.0.mlp.up_proj.weight; score.weight is unchanged.
    """
    parts = ("layers.", "embed_tokens.", "norm.")
    names = list(names)
    bare = not any(name.startswith("model.") for name in names) and any(name.startswith(parts[:2]) for name in names)
    return {name: f"model.{name}" if bare and name.startswith(parts) else name for name in names}
