"""Training settings as frozen records, read from a TOML file. The defaults are the published values."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from types import GenericAlias
from typing import Any, TypeVar, get_origin, get_type_hints

from dearlite.errors import UsageError, first_line

Config = TypeVar("Config", bound="TrainConfig")
PROJECTIONS = ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Settings of both stages. The defaults are DeAR's (arXiv 2508.16998) unless a comment says otherwise."""

    base: str  # a folder in Hugging Face's layout, a name on the Hub, or a .gguf file, which is unpacked first
    data: tuple[str, ...]  # files of training records
    output: str  # a folder for the adapter, the checkpoints and training.json
    adapter: str = ""  # a folder with a PEFT adapter to continue with its own LoRA settings; empty: a new adapter
    seed: int = 42
    lora_r: int = 32
    lora_alpha: int = 64
    lora_dropout: float = 0.1
    lora_targets: tuple[str, ...] = PROJECTIONS
    learning_rate: float = 1e-4
    scheduler: str = "linear"  # not published for stage 1: transformers' default
    warmup: float = 0.0  # as a share of the steps
    weight_decay: float = 0.0
    epochs: float = 2.0
    max_steps: int = 0  # 0: computed from the epochs
    batch: int = 2  # queries or records per device and step
    accumulation: int = 2
    dtype: str = "auto"  # auto, bf16 or fp32; auto: bf16 if the device supports it, else fp32
    gradient_checkpointing: bool = False
    load_in_4bit: bool = False  # QLoRA (needs bitsandbytes and CUDA)
    threads: int = 0  # on a CPU; 0: torch's default
    log_steps: int = 20
    save_steps: int = 200
    skip_bad: bool = False
    distributed: str = ""  # a YAML or JSON file for FSDP or DeepSpeed; DDP needs none

    def __post_init__(self) -> None:
        for name in ("data", "lora_targets"):
            if isinstance(getattr(self, name), str):  # a str is a sequence of letters: each would be read as a path
                raise UsageError(f"{name} is {getattr(self, name)!r}: it must be a tuple of strings")

    def to_dict(self) -> dict[str, Any]:
        """The settings in types of JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PointwiseConfig(TrainConfig):
    """Settings of stage 1. With alpha 1 only the teacher is learnt from; without teacher scores, only the labels."""

    rank_loss: str = "ranknet"  # a key of losses.RANK_LOSSES
    alpha: float = 0.1  # weight of the distillation loss
    temperature: float = 2.0  # of the distillation loss
    passages: int = 2  # per query, one of them a positive
    max_tokens: int = 228  # of the pair (query 32 + passage 196), truncated longest first
    prompt: str = "dear"  # a key of pointwise.prompts.PAIR_FORMS


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwiseConfig(TrainConfig):
    """Settings of stage 2: supervised fine-tuning on prompts and answers."""

    lora_r: int = 16
    lora_alpha: int = 32  # not published: twice r, as in stage 1
    scheduler: str = "cosine"
    warmup: float = 0.1
    accumulation: int = 4
    max_tokens: int = 5000  # of prompt and answer
    prompt: str = "chat"  # a key of listwise.prompts.LIST_FORMS
    passage_tokens: int = 0  # 0: the prompt form's own limit


def read_config(path: Path, kind: type[Config], overrides: Sequence[str] = ()) -> Config:
    """The settings of the TOML file at `path`, with `overrides` applied (key=value, a TOML value or a bare word).

    Relative paths in the file are relative to its folder. Raises UsageError for an unknown key (with the nearest known
    key), a value of the wrong type, and a missing base, data or output.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as err:
        raise UsageError(f"cannot read {path}: {err.strerror}") from None
    except (ValueError, RecursionError) as err:  # TOMLDecodeError, UnicodeDecodeError, a number of too many digits
        raise UsageError(f"{path.name} is not TOML ({first_line(err)})") from None
    settings = {name: _resolve_paths(path.parent, name, value) for name, value in table.items()}
    replaced = list(map(_parse_override, overrides))
    names = [name for name, _ in replaced]
    if repeated := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise UsageError(f"--set {repeated[0]}=… is given {names.count(repeated[0])} times: give it once")
    settings |= dict(replaced)
    hints = get_type_hints(kind)
    values = {}
    for name, value in settings.items():
        if name not in hints:
            near = get_close_matches(name, hints, n=1)
            raise UsageError(f"{path.name}: no setting {name!r}" + (f" (nearest: {near[0]})" if near else ""))
        values[name] = _convert(path.name, name, value, hints[name])
    required = [field.name for field in fields(kind) if field.name in ("base", "data", "output")]
    if missing := [name for name in required if not values.get(name)]:
        raise UsageError(f"{path.name} names no {missing[0]}: add it, or pass --set {missing[0]}=…")
    return kind(**values)


def _resolve_paths(folder: Path, name: str, value: Any) -> Any:
    """`value` with relative paths joined to `folder`. A `base` that is no file there is a name on the Hub."""
    if isinstance(value, list):
        return [_resolve_paths(folder, name, item) for item in value]
    if not isinstance(value, str) or not value:
        return value
    if name in ("data", "output", "adapter", "distributed") or (name == "base" and os.path.exists(folder / value)):
        return str(folder / value)
    return value


def _parse_override(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text}: it must be key=value")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value  # a bare word: --set output=here


def _convert(file: str, name: str, value: Any, hint: type | GenericAlias) -> Any:
    """`value` as the type `hint`: an int may become a float, a str a tuple. Raises UsageError for another type."""
    if get_origin(hint) is tuple:
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
            raise UsageError(f"{file}: {name} is {value!r}: it must be a list of strings")
        return tuple(values)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > 2**63:
            raise UsageError(f"{file}: {name} is {str(value)[:20]}…: it must be a smaller number")
        return float(value)
    if type(value) is not hint:
        kinds = {"int": "a whole number", "float": "a number", "str": "a string", "bool": "true or false"}
        raise UsageError(f"{file}: {name} is {value!r}: it must be {kinds[getattr(hint, '__name__', 'str')]}")
    return value
