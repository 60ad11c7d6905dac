"""The training loop of both stages: the output folder, the Trainer's arguments, its run, and training.json.

Training itself is done by transformers' Trainer and PEFT. This module sets their arguments, and stops a training that
cannot succeed.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dearlite.errors import DearliteError, UsageError, first_line
from dearlite.export.train.base import check_adapter, choose_dtype
from dearlite.export.train.checkpoints import SAVING, keep_last, last_checkpoint, remove_older, save_adapter
from dearlite.export.train.config import TrainConfig
from dearlite.export.train.throughput import peak_device_memory_mb
from dearlite.files.hashing import sha256_of
from dearlite.files.json_text import json_text
from dearlite.files.locks import lock_alone
from dearlite.files.outputs import check_outputs, make_folder
from dearlite.files.targets import reason_of
from dearlite.files.writing import whole_file
from dearlite.foreign import one_line_errors
from dearlite.machine import versions_of
from dearlite.version import __version__

if TYPE_CHECKING:
    import torch

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "trl")
_DRY_RUN_FILES = ("training.lock", "settings.json", "base")  # files that a dry run leaves in the output folder
_FREE = ("output", "log_steps", "save_steps", "threads")  # settings that may change when a training resumes


def is_first_process() -> bool:
    """True in the process of rank 0, which writes and reports for all processes of torchrun, and without torchrun."""
    return os.environ.get("RANK", "0") == "0"


def first_process_only(report: Callable[[str], None] | None) -> Callable[[str], None]:
    """`report` in the first process; elsewhere, and for None, a function that does nothing."""
    return report if report is not None and is_first_process() else lambda _: None


@contextmanager
def open_output(config: TrainConfig) -> Iterator[tuple[Path, str | None]]:
    """The output folder, locked against other trainings, and the last checkpoint of this training, if there is one.

    Raises UsageError for a folder that is in use, that holds a training with other settings or data, or other files.
    """
    folder = Path(config.output)
    make_folder(folder)
    check_outputs({name: folder / name for name in ("settings.json", "training.json")}, {"data": config.data})
    if not is_first_process():  # the first process holds the lock for all
        yield folder, last_checkpoint(folder)
        return
    with open(folder / "training.lock", "ab") as lock:
        try:
            lock_alone(lock.fileno())
        except OSError:
            raise UsageError(f"{folder} is in use by another training: wait, or name another output") from None
        settings = {name: value for name, value in config.to_dict().items() if name not in _FREE}
        settings["files"] = {path: _sha256(Path(path)) for path in config.data}
        settings_path = folder / "settings.json"
        started = any(folder.glob("checkpoint-*")) or os.path.exists(folder / "adapter_model.safetensors")
        if started and os.path.exists(settings_path):
            previous = json.loads(settings_path.read_text(encoding="utf-8"))
            if changed := sorted(name for name in settings if settings[name] != previous.get(name)):
                raise UsageError(f"{folder} holds another training ({', '.join(changed)} differ): name another output")
        elif any(path.name not in {*_DRY_RUN_FILES, SAVING} for path in folder.iterdir()):
            raise UsageError(f"{folder} is not empty and holds no training: name another output")
        remove_older(folder)
        with whole_file(settings_path) as stream:
            stream.write(json_text(settings, indent=1) + "\n")
        yield folder, last_checkpoint(folder)


def trainer_arguments(config: TrainConfig, steps: int) -> dict[str, Any]:
    """Arguments of transformers' TrainingArguments, for both stages."""
    import torch

    dtype = choose_dtype(config.dtype)
    return distributed_arguments(config.distributed) | {
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
        "ddp_find_unused_parameters": False,
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": config.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if config.gradient_checkpointing else None,
        "logging_steps": config.log_steps,
        "logging_nan_inf_filter": False,
        "save_steps": config.save_steps,
        "save_total_limit": None,  # checkpoints.py removes the older ones
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "remove_unused_columns": False,
    }


def distributed_arguments(path: str) -> dict[str, Any]:
    """Arguments for DeepSpeed (its JSON file) or FSDP (a YAML file as accelerate writes it); {} for no path.

    Raises UsageError without a GPU and for a file that cannot be read.
    """
    if not path:
        return {}
    import torch
    import yaml

    if not torch.cuda.is_available():
        raise UsageError(f"distributed {path}: FSDP and DeepSpeed need a GPU, and torch sees none: leave it out")
    if path.endswith(".json"):
        return {"deepspeed": path}

    try:
        settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        raise UsageError(f"distributed {path}: it cannot be read as YAML ({first_line(err)})") from None
    if not isinstance(settings, dict):
        raise UsageError(f"distributed {path}: it holds no FSDP settings, such as fsdp_version: 2")
    return {"fsdp": "full_shard auto_wrap", "fsdp_config": settings.get("fsdp_config", settings)}


def count_steps(config: TrainConfig, records: int, processes: int = 1) -> int:
    """Number of optimiser steps: `max_steps`, or as many as the epochs take on `processes` processes."""
    if config.max_steps:
        return config.max_steps
    return max(1, math.ceil(config.epochs * records / (config.batch * config.accumulation * processes)))


def stop_at_nan(loss: torch.Tensor, step: int, names: Callable[[], Sequence[str]], folder: str) -> None:
    """Raises DearliteError for a loss that is not finite, before it reaches the weights.

    `names` returns the names of the batch's records, for the message; it is called only then.
    """
    import torch

    if not torch.isfinite(loss):
        shown = ", ".join(dict.fromkeys(names()))
        raise DearliteError(
            f"the loss is {float(loss.detach())} at step {step} (records {shown}) and did not reach the weights; the "
            f"last checkpoint in {folder} is intact. Lower learning_rate, or leave these records out"
        )


def run(
    trainer: Any,
    config: TrainConfig,
    checkpoint: str | None,
    facts: Mapping[str, Any],
    *,
    head: bool,
    report: Callable[[str], None],
) -> None:
    """Trains to the end, saves and checks the adapter, and writes training.json.

    `facts` are entries of training.json; `head` says that the adapter must hold a score head.
    """
    if checkpoint is not None:
        report(f"resuming from {checkpoint}")
    start, folder = time.perf_counter(), Path(config.output)
    try:
        run_trainer(trainer, checkpoint)
        with one_line_errors(f"the adapter cannot be saved in {folder}", "make room, and run the same command again"):
            save_adapter(trainer, folder)
    except OSError as err:
        raise DearliteError(
            f"cannot write in {folder}: {reason_of(err)} (the same command continues from the last checkpoint)"
        ) from err
    if trainer.is_world_process_zero():
        check_adapter(folder, head=head)
        result = {
            "seconds": round(time.perf_counter() - start, 1),
            "dtype": str(choose_dtype(config.dtype)).removeprefix("torch."),
            "peak_memory_mb": peak_device_memory_mb(),
        }
        write_training_json(
            folder, config, {**facts, **result}, [log for log in trainer.state.log_history if "loss" in log]
        )


def run_trainer(trainer: Any, checkpoint: str | None = None) -> None:
    """Trains to the end. Writes nothing but checkpoints; transformers prints nothing."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    keep_last(trainer)
    with one_line_errors("the training ended early", "the same command continues from the last checkpoint"):
        trainer.train(resume_from_checkpoint=checkpoint)


def write_training_json(
    folder: Path, config: TrainConfig, facts: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> None:
    """Writes training.json: settings, hashes of the data, versions, `facts`, and the loss curve."""
    versions = {"dearlite": __version__, **versions_of(*_PACKAGES)}
    report = {
        "settings": config.to_dict(),
        "data_sha256": {Path(path).name: _sha256(Path(path)) for path in config.data},
        "versions": versions,
        **facts,
        "curve": [dict(log) for log in history],
    }
    with whole_file(folder / "training.json") as stream:
        stream.write(json_text(report, indent=1) + "\n")


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as err:
        raise UsageError(f"cannot read {path}: {err.strerror}") from None
