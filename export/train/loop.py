"""What both stages of training share: the output folder, the Trainer's arguments, progress, and what is left behind.

Training itself is transformers' Trainer and PEFT. This says what goes in, and stops at what cannot be right.
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
from dearlite.export.train.config import TrainConfig
from dearlite.files.hashing import sha256_of
from dearlite.files.writing import whole_file
from dearlite.machine import peak_memory_mb, versions_of
from dearlite.offline.run.journal import lock_alone
from dearlite.version import __version__

if TYPE_CHECKING:
    import torch

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "trl")
_OURS = ("training.lock", "settings.json", "base")  # what a dry run leaves
_FREE = ("output", "log_steps", "save_steps", "threads")  # settings that may change when a training goes on


def is_first_process() -> bool:
    """True in the process of rank 0, which writes and reports for all processes of torchrun, and without torchrun."""
    return os.environ.get("RANK", "0") == "0"


def reporter(on_message: Callable[[str], None] | None) -> Callable[[str], None]:
    """`on_message` in the first process; elsewhere, and for None, a function that does nothing."""
    return on_message if on_message is not None and is_first_process() else lambda _: None


@contextmanager
def open_output(config: TrainConfig) -> Iterator[tuple[Path, str | None]]:
    """The output folder, held against a second process, and its last checkpoint where this very training has one.

    Raises UsageError for a folder in use, or one with another training in it.
    """
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    if not is_first_process():  # the first process holds the folder for all
        yield folder, _last_checkpoint(folder)
        return
    with open(folder / "training.lock", "ab") as lock:
        try:
            lock_alone(lock.fileno())
        except OSError:
            raise UsageError(f"{folder} is in use by another training: wait, or name another output") from None
        settings = {name: value for name, value in config.to_dict().items() if name not in _FREE}
        settings["files"] = {path: _sha256(Path(path)) for path in config.data}
        known = folder / "settings.json"
        begun = any(folder.glob("checkpoint-*")) or (folder / "adapter_model.safetensors").exists()
        if begun and known.exists():
            before = json.loads(known.read_text(encoding="utf-8"))
            if changed := sorted(name for name in settings if settings[name] != before.get(name)):
                raise UsageError(f"{folder} holds another training ({', '.join(changed)} differ): name another output")
        elif any(one.name not in _OURS for one in folder.iterdir()):
            raise UsageError(f"{folder} is not empty and holds no training: name another output")
        with whole_file(known) as stream:
            stream.write(json.dumps(settings, indent=1, ensure_ascii=False) + "\n")
        yield folder, _last_checkpoint(folder)


def _last_checkpoint(folder: Path) -> str | None:
    """The last one that was written to its end: the trainer's state is its last file."""
    whole = [one for one in folder.glob("checkpoint-*") if (one / "trainer_state.json").exists()]
    return str(max(whole, key=lambda one: int(one.name.rpartition("-")[2]))) if whole else None


def arguments(config: TrainConfig, steps: int) -> dict[str, Any]:
    """What transformers' TrainingArguments get, of both stages."""
    import torch

    dtype = choose_dtype(config.dtype)
    return distributed(config.distributed) | {
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
        "save_total_limit": 2,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "remove_unused_columns": False,
    }


def distributed(path: str) -> dict[str, Any]:
    """DeepSpeed's own JSON, or FSDP's settings in YAML, as accelerate writes them; raises UsageError."""
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
        raise UsageError(f"distributed {path}: it holds no FSDP settings (fsdp_version: 2 is one)")
    return {"fsdp": "full_shard auto_wrap", "fsdp_config": settings.get("fsdp_config", settings)}


def count_steps(config: TrainConfig, records: int, processes: int = 1) -> int:
    """Optimiser steps: max_steps, or what the epochs take."""
    if config.max_steps:
        return config.max_steps
    return max(1, math.ceil(config.epochs * records / (config.batch * config.accumulation * processes)))


def stop_at_nan(loss: torch.Tensor, step: int, names: Callable[[], Sequence[str]], folder: str) -> None:
    """Raises DearliteError, naming the records of `names`, for a loss that is not finite: before it is learnt from."""
    import torch

    if not torch.isfinite(loss):
        shown = ", ".join(dict.fromkeys(names()))
        raise DearliteError(
            f"the loss is {float(loss.detach())} at step {step} (records {shown}): nothing of it was learnt; the last "
            f"checkpoint in {folder} is whole. Lower learning_rate, or leave these records out"
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
    """Trains to the end, saves the adapter, checks it (`head`: that of a scorer), and leaves training.json."""
    if checkpoint is not None:
        report(f"going on from {checkpoint}")
    start, folder = time.perf_counter(), Path(config.output)
    run_only(trainer, checkpoint)
    trainer.save_model(config.output)
    if trainer.is_world_process_zero():
        check_adapter(folder, head=head)
        more = {
            "seconds": round(time.perf_counter() - start, 1),
            "dtype": str(choose_dtype(config.dtype)).removeprefix("torch."),
            "peak_memory_mb": peak_mb(),
        }
        write_report(folder, config, {**facts, **more}, [one for one in trainer.state.log_history if "loss" in one])


def run_only(trainer: Any, checkpoint: str | None = None) -> None:
    """Trains and leaves nothing behind but checkpoints; nothing of transformers' own is printed."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=checkpoint)


def write_report(
    folder: Path, config: TrainConfig, facts: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> None:
    """training.json: the settings, the data's hashes, versions, time, and the loss curve."""
    versions = {"dearlite": __version__, **versions_of(*_PACKAGES)}
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
        self._ends: list[tuple[float, float]] = []  # of each step: when, and what was done by then

    def rate(self) -> float:
        """So much a second, from the end of the first step, which warms up, to the end of the last."""
        (start, before), (end, done) = self._ends[0], self._ends[-1]
        return (done - before) / (end - start)

    def line(self, step: int, logs: Mapping[str, Any]) -> str:
        """Step, loss, rate, time left."""
        seconds = time.perf_counter() - self._start
        left = seconds / max(1, step - self.first) * (self.total - step)
        loss = f"loss {logs['loss']:.4f}  " if "loss" in logs else ""
        return f"step {step:,} of {self.total:,}  {loss}{self.done / seconds:,.1f} {self.what}/s  {hours(left)} left"

    def callback(self, report: Callable[[str], None]) -> Any:
        """A callback for transformers' Trainer: reports one line at each log of the loss."""
        from transformers import TrainerCallback

        clock = self

        class Tell(TrainerCallback):  # type: ignore[misc]
            def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                clock.first = state.global_step

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                clock._ends.append((time.perf_counter(), clock.done))

            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
                if state.is_world_process_zero and logs and "loss" in logs:
                    report(clock.line(state.global_step, logs))

        return Tell()


def peak_mb() -> int | None:
    """The most memory so far, of the GPU where there is one; None where the system does not tell."""
    import torch

    if torch.cuda.is_available():
        gpu_bytes: int = torch.cuda.max_memory_allocated()
        return round(gpu_bytes / 1e6)
    megabytes = peak_memory_mb()
    return None if megabytes is None else round(megabytes)


def hours(seconds: float) -> str:
    """h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as err:
        raise UsageError(f"cannot read {path}: {err.strerror}") from None
