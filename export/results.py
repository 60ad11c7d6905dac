"""The records of a finished export: of its flow, and of `dearlite.export.export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dearlite.models.facts import ModelFacts

if TYPE_CHECKING:
    from dearlite.export.source.checkpoint import Checkpoint


class WrittenModel(NamedTuple):
    """A file that one of the flows (pointwise.py, listwise.py) has written."""

    path: Path
    facts: ModelFacts
    card: dict[str, Any]
    checkpoint: Checkpoint  # the base model that the weights were read from


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """A written model file, and the time and memory that writing it took.

    `card` is the quality card, empty without one; under "below_floor" it names the fault of a file that `force` kept.
    `published_scores` names the published scores of the model that `verify` compares the file with, "" if there are
    none. Memory is None where the system does not report it.
    """

    path: Path
    kind: str  # "pointwise", "listwise" or "attention"
    facts: ModelFacts
    card: dict[str, Any]
    size_bytes: int
    source_bytes: int  # the safetensors files of the base model
    seconds: float
    peak_rss_mb: float | None
    worker_peak_rss_mb: float | None  # the largest child process: the scorer of a .dear file, or llama.cpp
    published_scores: str = ""
