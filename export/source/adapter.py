"""A PEFT LoRA folder: its settings, the names of its tensors, and the reasons against a merge (merge.py)."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from dearlite.errors import CheckpointError
from dearlite.export.source.checkpoint import (
    Floats,
    TensorSource,
    read_header,
    read_json,
    read_rows,
    refuse_pickle,
)

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
# A decoder within a model that also reads images, in transformers up to 4.51, and later.
_INNER = re.compile(r"^language_model\.(?=model\.|lm_head\.)|^(model\.)language_model\.(?=layers|embed_tokens|norm)")
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


class Adapter(TensorSource):
    """A PEFT LoRA folder. `misfits` collects the reasons against a merge; `MergedCheckpoint` reports them together.

    `lora` maps a module to the tensor names of its matrices A and B, `saved` maps a tensor of the base to the adapter's
    tensor that replaces it. The keys of both are without PEFT's prefix and suffixes, spelt as in the classifier
    (`model.layers.0…`).
    """

    def __init__(self, folder: str | Path) -> None:
        """Raises CheckpointError when the folder is not a readable adapter."""
        self.folder = Path(folder)
        if not os.path.isfile(self.folder / "adapter_config.json"):
            raise CheckpointError(
                f"{folder} has no adapter_config.json: give the folder that PEFT's save_pretrained wrote"
            )
        self.config = read_json(self.folder / "adapter_config.json")
        if not os.path.isfile(self.folder / WEIGHTS):
            refuse_pickle(self.folder)
            raise CheckpointError(f"{folder} has no {WEIGHTS}: fetch the whole adapter again")
        self.tensors = read_header(self.folder / WEIGHTS)
        self.copies: dict[str, str] = {}  # a tensor of the base -> the adapter's copy of it, which changes nothing
        self.lora: dict[str, dict[str, str]] = {}
        self.saved: dict[str, str] = {}
        self.misfits: list[str] = []
        self._read_config()
        self._read_names()

    @property
    def names(self) -> Collection[str]:
        return self.tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def rows(self, name: str, start: int, stop: int) -> Floats:
        return read_rows(name, self.tensors[name], start, stop)

    def trains(self, name: str) -> bool:
        """True if the adapter changes or replaces the tensor `name`."""
        return name in self.saved or name.removesuffix(".weight") in self.lora

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
        if type(rank) is not int or not 1 <= rank < 2**31:
            self.misfits.append(f"r is {rank!r}, not a whole number from 1")
        if type(alpha) not in {int, float} or not abs(alpha) < 1e18:
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
        names = classifier_names(tensor.removeprefix(PREFIX) for tensor in self.tensors)
        for tensor in self.tensors:
            name = names[tensor.removeprefix(PREFIX)]
            if name.endswith(".base_layer.weight"):  # PEFT stores it beside a LoRA on an embedding or output matrix
                copied = name.removesuffix(".base_layer.weight") + ".weight"
                duplicate = self.copies.setdefault(copied, tensor) != tensor
            elif match := _LORA.fullmatch(name):
                sides, side = self.lora.setdefault(match["module"], {}), match["side"]
                duplicate = sides.setdefault(side, tensor) != tensor
            else:
                replaced = re.sub(r"\.modules_to_save(\.default)?(?=\.)", "", name)
                duplicate = self.saved.setdefault(replaced, tensor) != tensor
            if duplicate:
                self.misfits.append(f"{tensor} is there twice, under two names")
            if not tensor.startswith(PREFIX):
                self.misfits.append(f"{tensor} does not begin with {PREFIX}")
        if not self.lora:
            self.misfits.append("it holds no LoRA matrices")
        for module, sides in self.lora.items():
            if len(sides) == 1:
                side = next(iter(sides))
                self.misfits.append(f"{module} has lora_{side} without lora_{'B' if side == 'A' else 'A'}")
            if f"{module}.weight" in self.saved:
                self.misfits.append(f"{module} has both a LoRA and a full weight")
        if limits := as_list(self.config.get("layers_to_transform")):
            layers = [match[1] for module in self.lora if (match := re.search(r"\.(\d+)\.", module))]
            if set(layers) != set(limits):
                listed = ", ".join(dict.fromkeys(layers)) or "none"
                self.misfits.append(f"layers_to_transform is {', '.join(limits)}, and the layers are {listed}")


def as_list(value: Any) -> list[str]:
    """The items, as text, of a field that is a list, a single value or null."""
    return [str(item) for item in (value if isinstance(value, list) else [] if value is None else [value])]


def classifier_names(names: Iterable[str]) -> dict[str, str]:
    """Name -> the classifier's name of that tensor: decoders saved without the prefix `model.` get it.

    That of a decoder within a model that also reads images is put there. Examples: layers.0.mlp.up_proj.weight and
    language_model.model.layers.0.mlp.up_proj.weight -> model.layers.0.mlp.up_proj.weight; score.weight is unchanged.
    """
    parts = ("layers.", "embed_tokens.", "norm.")
    names = list(names)
    bare = not any(name.startswith("model.") for name in names) and any(name.startswith(parts[:2]) for name in names)
    return {name: f"model.{name}" if bare and name.startswith(parts) else _INNER.sub(r"\1", name) for name in names}
