"""What both stages of training share: the base, the adapter around it, the output folder, progress, and its end.

Training itself is transformers' Trainer and PEFT. This says what goes in, stops at what cannot be right, and checks
that what comes out can be exported.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dearlite import __version__
from dearlite.errors import DearliteError, UsageError
from dearlite.export.train_config import TrainConfig
from dearlite.gguf_file import GgufFile
from dearlite.render.formats import whole_file

if TYPE_CHECKING:
    import torch

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "trl")
_FREE = ("output", "log_steps", "save_steps", "threads")  # settings that may change when a training goes on


@contextmanager
def open_output(config: TrainConfig) -> Iterator[tuple[Path, str | None]]:
    """The output folder, held against a second process, and its last checkpoint where this very training has one.

    Raises UsageError for a folder in use, or one with another training in it.
    """
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "training.lock", "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"{folder} is in use by another training: wait, or name another output") from None
        settings = {name: value for name, value in config.to_dict().items() if name not in _FREE}
        settings["files"] = {path: _sha256(Path(path)) for path in config.data}
        known = folder / "settings.json"
        if known.exists():
            before = json.loads(known.read_text(encoding="utf-8"))
            if changed := sorted(name for name in settings if settings[name] != before.get(name)):
                raise UsageError(f"{folder} holds another training ({', '.join(changed)} differ): name another output")
        elif any(one.name != "training.lock" for one in folder.iterdir()):
            raise UsageError(f"{folder} is not empty and holds no training: name another output")
        with whole_file(known) as stream:
            stream.write(json.dumps(settings, indent=1, ensure_ascii=False) + "\n")
        numbers = [int(one.name.rpartition("-")[2]) for one in folder.glob("checkpoint-*") if _whole(one)]
        yield folder, str(folder / f"checkpoint-{max(numbers)}") if numbers else None


def _whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end: the trainer's state is its last file."""
    return (checkpoint / "trainer_state.json").exists()


def unpack_base(base: str, folder: Path) -> str:
    """`base`, or FOLDER/base with the weights of a .gguf file in fp32, as a folder that Hugging Face's tools read."""
    if not base.endswith(".gguf"):
        return base
    source, target = Path(base), folder / "base"
    if not source.is_file():
        raise UsageError(f"base {base}: no such file")
    if not (target / "tokenizer.json").exists():
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(target)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        _as_the_file_says(tokenizer, GgufFile(source).metadata)
        tokenizer.save_pretrained(target)
    return str(target)


def _as_the_file_says(tokenizer: Any, metadata: Mapping[str, Any]) -> None:
    """Sets the special tokens by the GGUF's own ids: transformers takes SmolLM2's first token for its eos."""
    tokens = metadata["tokenizer.ggml.tokens"]
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        number = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if number is not None:
            setattr(tokenizer, f"{name}_token", tokens[number])
    if hasattr(tokenizer, "add_bos_token"):  # a SentencePiece vocabulary has one unless the file says no
        default = metadata.get("tokenizer.ggml.model") == "llama"
        tokenizer.add_bos_token = bool(metadata.get("tokenizer.ggml.add_bos_token", default))


def load_tokenizer(base: str) -> Any:
    """The base's fast tokenizer, its pad token set: eos where it has none, as DeAR has it."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base, use_fast=True, trust_remote_code=False)
    except (OSError, ValueError) as err:
        raise UsageError(f"base {base}: no tokenizer can be read there ({str(err).splitlines()[0]})") from None
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UsageError(f"base {base}: its tokenizer has neither a pad nor an eos token: give it one")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def choose_dtype(name: str) -> torch.dtype:
    """fp32 or bf16; "auto" is bf16 where the GPU, or the CPU's own instructions, have it."""
    import torch

    if name not in ("auto", "bf16", "fp32"):
        raise UsageError(f"dtype is {name!r}: it is auto, bf16 or fp32")
    if name != "auto":
        return torch.bfloat16 if name == "bf16" else torch.float32
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    has_bf16 = (
        getattr(torch.cpu, "_is_avx512_bf16_supported", bool)() or getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    )
    return torch.bfloat16 if has_bf16 else torch.float32


def load_base(kind: Any, base: str, config: TrainConfig, **more: Any) -> Any:
    """The frozen weights: in the training's dtype, or in four bits (NF4, QLoRA: Dettmers et al. 2023)."""
    dtype = choose_dtype(config.dtype)
    if config.load_in_4bit:
        from transformers import BitsAndBytesConfig

        more["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=["score", "lm_head"],
        )
    try:
        return kind.from_pretrained(base, dtype=dtype, trust_remote_code=False, **more)
    except (OSError, ValueError, ImportError) as err:
        raise UsageError(f"base {base} cannot be loaded: {str(err).splitlines()[0]}") from None


def with_lora(model: Any, config: TrainConfig, task: str, whole: Sequence[str] = ()) -> Any:
    """`model` in PEFT's wrapping: LoRA on the projections, the modules of `whole` trained and saved whole."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if config.load_in_4bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=config.gradient_checkpointing)
    elif config.gradient_checkpointing:
        model.enable_input_require_grads()
    lora = LoraConfig(
        task_type=task,
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(config.lora_targets),
        modules_to_save=list(whole) or None,
    )
    try:
        return get_peft_model(model, lora)
    except ValueError as err:
        raise UsageError(f"lora_targets do not fit {config.base}: {str(err).splitlines()[0]}") from None


def arguments(config: TrainConfig, steps: int) -> dict[str, Any]:
    """What transformers' TrainingArguments get, of both stages."""
    import torch

    dtype = choose_dtype(config.dtype)
    given: dict[str, Any] = {}
    if config.distributed:
        name = "deepspeed" if config.distributed.endswith(".json") else "fsdp_config"
        given = {name: config.distributed} | ({"fsdp": "full_shard auto_wrap"} if name == "fsdp_config" else {})
    return given | {
        "output_dir": config.output,
        "seed": config.seed,
        "max_steps": steps,
        "per_device_train_batch_size": config.batch,
        "gradient_accumulation_steps": config.accumulation,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.scheduler,
        "warmup_steps": round(config.warmup * steps),
        "weight_decay": config.weight_decay,
        "bf16": dtype == torch.bfloat16,
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": config.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if config.gradient_checkpointing else None,
        "logging_steps": config.log_steps,
        "logging_nan_inf_filter": False,
        "save_steps": config.save_steps,
        "save_total_limit": 2,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "remove_unused_columns": False,
    }


def count_steps(config: TrainConfig, records: int, processes: int = 1) -> int:
    """Optimiser steps: max_steps, or what the epochs take."""
    if config.max_steps:
        return config.max_steps
    return max(1, math.ceil(config.epochs * records / (config.batch * config.accumulation * processes)))


def stop_at_nan(loss: torch.Tensor, step: int, names: Sequence[str], folder: str) -> None:
    """Raises DearliteError for a loss that is not finite, before it reaches the weights."""
    import torch

    if not torch.isfinite(loss):
        shown = ", ".join(dict.fromkeys(names))
        raise DearliteError(
            f"the loss is {float(loss.detach())} at step {step} (records {shown}): nothing of it was learnt; the last "
            f"checkpoint in {folder} is whole. Lower learning_rate, or leave these records out"
        )


def check_adapter(folder: Path, *, head: bool) -> None:
    """Raises DearliteError where the adapter lacks its LoRA or, of a scorer, the trained head."""
    from safetensors import safe_open

    path = folder / "adapter_model.safetensors"
    if not path.exists():
        raise DearliteError(f"{folder} has no adapter_model.safetensors: the training did not end well")
    with safe_open(path, "np") as tensors:
        names = list(tensors.keys())
    if not any("lora_A" in name for name in names):
        raise DearliteError(f"{path} holds no LoRA: check lora_targets")
    if head and not any(name.endswith("score.weight") for name in names):
        raise DearliteError(f"{path} was saved without its score head: put score in modules_to_save")


def write_report(
    folder: Path, config: TrainConfig, facts: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> None:
    """training.json: the settings, the data's hashes, versions, time, and the loss curve."""
    versions = {"dearlite": __version__}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    report = {
        "settings": config.to_dict(),
        "data_sha256": {Path(path).name: _sha256(Path(path)) for path in config.data},
        "versions": versions,
        **facts,
        "curve": [dict(one) for one in history],
    }
    with whole_file(folder / "training.json") as stream:
        stream.write(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


class Clock:
    """Seconds of training and what they were spent on; tells a line at each log."""

    def __init__(self, total: int, what: str) -> None:
        self.total, self.what = total, what
        self.done = 0.0  # pairs or tokens so far
        self.first = 0  # the step that this training goes on from
        self._start = time.perf_counter()

    def line(self, step: int, logs: Mapping[str, Any]) -> str:
        """Step, loss, rate, time left."""
        seconds = time.perf_counter() - self._start
        left = seconds / max(1, step - self.first) * (self.total - step)
        loss = f"loss {logs['loss']:.4f}  " if "loss" in logs else ""
        return f"step {step:,} of {self.total:,}  {loss}{self.done / seconds:,.1f} {self.what}/s  {hours(left)} left"


def hours(seconds: float) -> str:
    """h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as err:
        raise UsageError(f"cannot read {path}: {err.strerror}") from None
