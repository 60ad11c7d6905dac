"""The facts about a model that its file records: one frozen record, filled by the export and written by the format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from dearlite.models.attention import AttentionReading
from dearlite.templates.template import Template

NOT_STATED = "not stated"  # the licence of a folder


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Facts that a model file records in every format.

    `prompt` names a prompt form; `max_tokens` counts the whole pair or prompt, special tokens included. `source` maps
    the origin of the weights (folder or repository, revision, adapter, sha256 of each file) to texts.
    """

    name: str
    prompt: str
    max_tokens: int
    licence: str
    source: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointwiseFacts(ModelFacts):
    """Facts of a `.dear` file: the fields of its manifest apart from builds, members and tensors."""

    kind: ClassVar[str] = "pointwise"
    architecture: str
    pooling: str  # where the score is read: "first-token", "mean", "last-token", "last-position"
    calibration: dict[str, Any] | None = None
    template: Template | None = None
    activation: dict[str, Any] | None = None
    attention: AttentionReading | None = None

    @property
    def form(self) -> str | Template:
        """The prompt form: the template, or the name of a form for pairs."""
        return self.template or self.prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionFacts(PointwiseFacts):
    """Facts of a `.dear` file that holds an attention reranker; `attention` is set, and the pooling is "attention"."""

    kind: ClassVar[str] = "attention"
    pooling: str = "attention"
