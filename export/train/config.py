"""The settings of a training, read from a TOML file: the published values where it says nothing."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from types import GenericAlias
from typing import Any, TypeVar, get_origin, get_type_hints

from dearlite.errors import UsageError

Config = TypeVar("Config", bound="TrainConfig")
PROJECTIONS = ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """What both stages have. The values are DeAR's (arXiv 2508.16998) unless a line says more."""

    base: str  # a folder in Hugging Face's layout, a name of the Hub, or a .gguf file, which is unpacked first
    data: tuple[str, ...]  # files of training records
    output: str  # a folder: the adapter, checkpoints, training.json
    adapter: str = ""  # a folder with a PEFT adapter to go on from, whose own LoRA settings count; a new one else
    seed: int = 42
    lora_r: int = 32
    lora_alpha: int = 64
    lora_dropout: float = 0.1
    lora_targets: tuple[str, ...] = PROJECTIONS
    learning_rate: float = 1e-4
    scheduler: str = "linear"  # not published for stage 1: transformers' default
    warmup: float = 0.0  # share of the steps
    weight_decay: float = 0.0
    epochs: float = 2.0
    max_steps: int = 0  # 0: as many as the epochs take
    batch: int = 2  # queries or records a device and step
    accumulation: int = 2
    dtype: str = "auto"  # bf16 where the device has it, else fp32
    gradient_checkpointing: bool = False
    load_in_4bit: bool = False  # QLoRA (needs bitsandbytes and CUDA)
    threads: int = 0  # on a CPU; 0: torch's own choice
    log_steps: int = 20
    save_steps: int = 200
    skip_bad: bool = False
    distributed: str = ""  # a YAML or JSON file for FSDP or DeepSpeed; DDP needs none

    def __post_init__(self) -> None:
        for name in ("data", "lora_targets"):
            if isinstance(getattr(self, name), str):  # a str is a sequence of letters: each would be read as a path
                raise UsageError(f"{name} is {getattr(self, name)!r}: it is a tuple of strings")

    def to_dict(self) -> dict[str, Any]:
        """The settings in types of JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PointwiseConfig(TrainConfig):
    """Stage 1. With an alpha of 1 the teacher alone is learnt from; without its scores, the labels alone."""

    rank_loss: str = "ranknet"  # losses.RANK_LOSSES
    alpha: float = 0.1
    temperature: float = 2.0
    passages: int = 2  # of each query, one of them a positive
    max_tokens: int = 228  # query 32 and passage 196 together, cut longest first
    prompt: str = "dear"  # prompts.PAIR_FORMS


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwiseConfig(TrainConfig):
    """Stage 2: supervised fine-tuning on prompts and answers."""

    lora_r: int = 16
    lora_alpha: int = 32  # not published: twice r, as in stage 1
    scheduler: str = "cosine"
    warmup: float = 0.1
    accumulation: int = 4
    max_tokens: int = 5000
    prompt: str = "chat"  # list_prompts' table
    passage_tokens: int = 0  # 0: the prompt form's own limit


def read_config(path: Path, kind: type[Config], overrides: Sequence[str] = ()) -> Config:
    """The settings of the file, then `overrides` (key=value, a TOML value or a bare word). Files are relative to it.

    Raises UsageError for a key that is none (with the nearest), a value of another type, and a missing base or data.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise UsageError(f"cannot read {path}: {err.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise UsageError(f"{path.name} is not TOML ({err})") from None
    given = {name: _beside(path, name, value) for name, value in given.items()}
    given |= dict(map(_override, overrides))
    hints = get_type_hints(kind)
    values = {}
    for name, value in given.items():
        if name not in hints:
            near = get_close_matches(name, hints, n=1)
            raise UsageError(f"{path.name}: no setting {name!r}" + (f" (nearest: {near[0]})" if near else ""))
        values[name] = _typed(path.name, name, value, hints[name])
    required = [field.name for field in fields(kind) if field.name in ("base", "data", "output")]
    if missing := [name for name in required if not values.get(name)]:
        raise UsageError(f"{path.name} names no {missing[0]}: add it, or give --set {missing[0]}=…")
    return kind(**values)


def _beside(path: Path, name: str, value: Any) -> Any:
    """A file or folder of the config stands beside it, unless its path is whole or it is a name of the Hub."""
    if isinstance(value, list):
        return [_beside(path, name, one) for one in value]
    if not isinstance(value, str) or not value:
        return value
    if name in ("data", "output", "adapter", "distributed") or (name == "base" and (path.parent / value).exists()):
        return str(path.parent / value)
    return value


def _override(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text}: it is key=value")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value  # a bare word: --set output=here


def _typed(file: str, name: str, value: Any, hint: type | GenericAlias) -> Any:
    if get_origin(hint) is tuple:
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
            raise UsageError(f"{file}: {name} is {value!r}: it is a list of strings")
        return tuple(values)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        kinds = {"int": "a whole number", "float": "a number", "str": "a string", "bool": "true or false"}
        raise UsageError(f"{file}: {name} is {value!r}: it is {kinds[getattr(hint, '__name__', 'str')]}")
    return value
