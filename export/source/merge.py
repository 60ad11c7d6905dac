"""A base model and a PEFT LoRA adapter, read as one merged model: rows are merged when they are asked for.

    W + scale · B A,  scale = alpha / r, or alpha / sqrt(r) with rslora; arXiv 2106.09685 (LoRA), 2312.03732 (rslora)

Everything is computed in float32 from the values as stored, whatever the dtype of base and adapter. Tensors that the
adapter holds whole (PEFT's `modules_to_save`: the score head) replace the base's. An adapter that asks for anything
else is refused before the first row is read: merged all the same, it would be another model that still runs.
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
HEADS = ("score.", "classifier.")  # what the heads of sequence classifiers are called in transformers
_PREFIX = "base_model.model."
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
# Names of adapter_config.json that do not change what merging means, or are read below. PEFT adds a field a variant
# (use_dora, rank_pattern, kasa_config ...), so another field that is switched on is refused, known today or not.
_UNDERSTOOD = {
    "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying", "eva_config",
    "exclude_modules", "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config",
    "lora_alpha", "lora_dropout", "lora_ga_config", "modules_to_save", "peft_type", "peft_version", "r", "revision",
    "runtime_config", "target_modules", "task_type", "use_rslora", "velora_config",
}  # fmt: skip
# The other ways to start (pissa, olora, corda, loftq, lora_ga) change the base's weights as well.
_BASE_KEEPING_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_NO_HEAD = (
    'it has no score head and neither has the base: train it with LoraConfig(task_type="SEQ_CLS", '
    'modules_to_save=["score"]), then save_pretrained writes the head into the adapter'
)


class Adapter:
    """A PEFT LoRA folder. What cannot be merged is collected in `misfits`, for `MergedCheckpoint` to refuse together.

    `lora` maps a module to its matrices' tensor names by side, `saved` a tensor to the adapter's tensor that replaces
    it; both without PEFT's prefix and suffixes, spelt as the classifier spells them (`model.layers.0…`).
    """

    def __init__(self, folder: str | Path) -> None:
        """Raises CheckpointError when the folder is no readable adapter."""
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
        """The model that it was trained on, as its training script called it; empty when it does not say."""
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
        start = config.get("init_lora_weights")
        if start not in _BASE_KEEPING_STARTS:
            self.misfits.append(f"init_lora_weights is {start!r}, which changes the base too")
        for field, value in config.items():
            # Numbers and strings are settings of variants; what switches one on is true, a list or an object.
            if field not in _UNDERSTOOD and (value is True or (isinstance(value, list | dict) and value)):
                self.misfits.append(f"{field} is {json.dumps(value)[:60]}, which is not supported")

    def _read_names(self) -> None:
        spelt = _spell(given.removeprefix(_PREFIX) for given in self.tensors)
        for given in self.tensors:
            name = spelt[given.removeprefix(_PREFIX)]
            if match := _LORA.fullmatch(name):
                sides, side = self.lora.setdefault(match["module"], {}), match["side"]
                twice = sides.setdefault(side, given) != given
            else:
                target = re.sub(r"\.modules_to_save(\.default)?(?=\.)", "", name)
                twice = self.saved.setdefault(target, given) != given
            if twice:
                self.misfits.append(f"{given} is there twice, under two names")
            if not given.startswith(_PREFIX):
                self.misfits.append(f"{given} does not begin with {_PREFIX}")
        if not self.lora:
            self.misfits.append("it holds no LoRA matrices")
        for module, sides in self.lora.items():
            if len(sides) == 1:
                has = next(iter(sides))
                self.misfits.append(f"{module} has lora_{has} without lora_{'B' if has == 'A' else 'A'}")
            if f"{module}.weight" in self.saved:
                self.misfits.append(f"{module} has both a LoRA and a whole weight")
        if limits := _as_list(self.config.get("layers_to_transform")):
            found = [match[1] for module in self.lora if (match := re.search(r"\.(\d+)\.", module))]
            if set(found) != set(limits):
                there = ", ".join(dict.fromkeys(found)) or "none"
                self.misfits.append(f"layers_to_transform is {', '.join(limits)}, and the layers are {there}")


class MergedCheckpoint(TensorSource):
    """A checkpoint with an adapter merged in, read like a checkpoint; without an adapter, the checkpoint itself.

    Names are the classifier's: a base that was saved without its `model.` prefix gets it here. `config` is the base's.
    """

    def __init__(self, checkpoint: Checkpoint, adapter: Adapter | None = None, *, require_head: bool = True) -> None:
        """Raises CheckpointError with everything that does not fit, also when there is no score head at all."""
        self.checkpoint, self.adapter, self.config = checkpoint, adapter, checkpoint.config
        self._base = {spelt: name for name, spelt in _spell(checkpoint.names).items()}
        self._saved: dict[str, TensorSpec] = {}
        self._held: tuple[str, Floats] | None = None  # the last A, since a tensor's blocks all want the same one
        headless = require_head and not any(
            name.startswith(HEADS) for name in (*self._base, *(adapter.saved if adapter else ()))
        )
        if adapter is not None:
            misfits = [*adapter.misfits, *self._find_misfits(adapter), *([_NO_HEAD] if headless else [])]
            if misfits:
                remedy = (
                    f": give the base that it was trained on ({adapter.base_name or 'its card names it'}), "
                    "or merge it with PEFT (merge_and_unload, save_pretrained) and export that folder"
                )
                raise CheckpointError(
                    f"{adapter.folder} cannot be merged into {checkpoint.folder}: "
                    f"{name_some(misfits, 8, '; ')}{'' if misfits == [_NO_HEAD] else remedy}"
                )
            self._saved = {name: adapter.tensors[given] for name, given in adapter.saved.items()}
        elif headless:
            raise CheckpointError(
                f"{checkpoint.folder} has no score head (no tensor {' or '.join(f'{head}*' for head in HEADS)}): "
                "it is no reranker yet, give the adapter that holds one"
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
            held = self._held
            if held is None or held[0] != name:  # a local name: another thread may be at another tensor
                held = self._held = (name, read_rows(sides["A"], tensors[sides["A"]], 0, self.adapter.rank))  # (r, in)
            change = read_rows(sides["B"], tensors[sides["B"]], start, stop) @ held[1]  # (rows, in)
            change *= np.float32(self.adapter.scale)
            block += change
        return block

    def _find_misfits(self, adapter: Adapter) -> list[str]:
        """What of the adapter's tensors has no place in the base, or a wrong shape."""
        shapes = {name: self.checkpoint.shape(given) for name, given in self._base.items()}
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
            wanted = {"A": (rank, *shape[1:]), "B": (*shape[:1], rank)}
            sides = {side: adapter.tensors[given].shape for side, given in adapter.lora[module].items()}
            if len(shape) != 2 or any(found != wanted[side] for side, found in sides.items()):
                given = " and ".join(f"lora_{side} {list(found)}" for side, found in sides.items())
                misfits.append(f"{module} has {given}, for r {rank} and a base of {list(shape)}")
        hidden = self.config.get("hidden_size")
        for name, given in adapter.saved.items():
            found = adapter.tensors[given].shape
            if name in shapes and found != shapes[name]:
                misfits.append(f"{name} is {list(found)}, the base's is {list(shapes[name])}")
            elif name not in shapes and not name.startswith(HEADS):
                misfits.append(
                    f"{name} is {'of an unsupported LoRA variant' if '.lora_' in name else 'not in the base'}"
                )
            elif name.endswith("weight") and name.startswith(HEADS) and hidden and found[1:] != (hidden,):
                misfits.append(f"{name} is {list(found)}, and the base's hidden_size is {hidden}")
        for listed in dict.fromkeys(_as_list(adapter.config.get("modules_to_save"))):
            # PEFT adds `score` and `classifier` unasked; only what the model has must have been saved.
            ends = re.compile(rf"(.+\.)?{re.escape(listed)}\..+")
            if any(map(ends.fullmatch, shapes)) and not any(map(ends.fullmatch, adapter.saved)):
                misfits.append(f"modules_to_save names {listed}, and no such tensor was saved")
        return misfits


def check_base(adapter_config: dict[str, Any], checkpoint: Checkpoint) -> str | None:
    """A warning when the adapter names another base than the checkpoint's folder and config do, else None.

    Only a warning: folders are renamed and repositories move. Whether the tensors fit is for `MergedCheckpoint` to say.
    """
    asked = str(adapter_config.get("base_model_name_or_path") or "")
    known = [checkpoint.folder.resolve().name, *_repositories(checkpoint)]
    if not asked or _last_part(asked) in map(_last_part, known):
        return None
    return (
        f"the adapter was trained on {asked} and is merged into {checkpoint.folder}, which goes by another name: "
        "make sure that it is the same model"
    )


def refuse_other_base(adapter_config: dict[str, Any], checkpoint: Checkpoint) -> None:
    """Raises CheckpointError where adapter and base each name a repository, and these differ.

    Tensors of a base and of its instruct version fit each other: merged all the same, it would be a model that runs
    and writes nonsense. A folder that names no repository is not refused; `check_base` has a note for it.
    """
    asked = str(adapter_config.get("base_model_name_or_path") or "")
    named = [name for name in _repositories(checkpoint) if _REPOSITORY.fullmatch(name)]
    if check_base(adapter_config, checkpoint) and _REPOSITORY.fullmatch(asked) and named:
        raise CheckpointError(
            f"the adapter was trained on {asked} and {checkpoint.folder} is {named[0]}: give the base that it was "
            "trained on (--force merges it all the same)"
        )


def _repositories(checkpoint: Checkpoint) -> list[str]:
    """What the base calls itself: by its place in the Hub's cache (models--owner--name), and in its config.json."""
    parts = checkpoint.folder.resolve().parts
    cached = [part.removeprefix("models--").replace("--", "/") for part in parts if part.startswith("models--")]
    return [*cached, str(checkpoint.config.get("_name_or_path") or "")]


def _as_list(value: Any) -> list[str]:
    """The items of a field that is a list, one value or null, as text."""
    return [str(item) for item in (value if isinstance(value, list) else [] if value is None else [value])]


def _last_part(name: str) -> str:
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1].lower()


def _spell(names: Iterable[str]) -> dict[str, str]:
    """Each name, to the classifier's spelling of it: decoders saved without their `model.` prefix get it.

    Example: layers.0.mlp.up_proj.weight -> model.layers.0.mlp.up_proj.weight, and score.weight stays.
    """
    parts = ("layers.", "embed_tokens.", "norm.")
    names = list(names)
    bare = not any(name.startswith("model.") for name in names) and any(name.startswith(parts[:2]) for name in names)
    return {name: f"model.{name}" if bare and name.startswith(parts) else name for name in names}
