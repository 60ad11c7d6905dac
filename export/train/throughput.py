"""Throughput and memory of a training, for the lines that it reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from dearlite.machine import peak_memory_mb


class Throughput:
    """Counts the pairs or tokens of each step. The trainer adds to `count` in its loss function."""

    def __init__(self, steps: int, unit: str) -> None:
        """`steps` is the total number of optimiser steps, `unit` the plural of the items that are counted."""
        self.steps, self.unit = steps, unit
        self.count = 0.0
        self.first_step = 0  # the step that a resumed training starts from
        self._start = time.perf_counter()
        self._step_ends: list[tuple[float, float]] = []  # per step: time at its end, count by then

    def rate(self) -> float:
        """Items per second from the end of the first step, which is the warm-up, to the end of the last."""
        (start, count_before), (end, count_after) = self._step_ends[0], self._step_ends[-1]
        return (count_after - count_before) / (end - start)

    def line(self, step: int, logs: Mapping[str, Any]) -> str:
        """One line with step, loss, items per second and remaining time."""
        seconds = time.perf_counter() - self._start
        remaining = seconds / max(1, step - self.first_step) * (self.steps - step)
        loss = f"loss {logs['loss']:.4f}  " if "loss" in logs else ""
        rate = f"{self.count / seconds:,.1f} {self.unit}/s"
        return f"step {step:,} of {self.steps:,}  {loss}{rate}  {format_duration(remaining)} left"

    def callback(self, report: Callable[[str], None]) -> Any:
        """A TrainerCallback for transformers: reports `line` whenever the trainer logs the loss."""
        from transformers import TrainerCallback

        throughput = self

        class ReportThroughput(TrainerCallback):  # type: ignore[misc]
            def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                throughput.first_step = state.global_step

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                throughput._step_ends.append((time.perf_counter(), throughput.count))

            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
                if state.is_world_process_zero and logs and "loss" in logs:
                    report(throughput.line(state.global_step, logs))

        return ReportThroughput()


def peak_device_memory_mb() -> int | None:
    """Peak memory so far: allocated by torch on the GPU if there is one, else of the process; None if unknown."""
    import torch

    if torch.cuda.is_available():
        gpu_bytes: int = torch.cuda.max_memory_allocated()
        return round(gpu_bytes / 1e6)
    megabytes = peak_memory_mb()
    return None if megabytes is None else round(megabytes)


def format_duration(seconds: float) -> str:
    """`seconds` as h:mm:ss."""
    total = round(seconds)
    return f"{total // 3600}:{total // 60 % 60:02}:{total % 60:02}"
