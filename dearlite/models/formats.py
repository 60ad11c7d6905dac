"""What runs a model file, by the file's first bytes: one entry a format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dearlite.errors import ModelFileError, UsageError


@dataclass(frozen=True, slots=True)
class Runner:
    """A kind of model: its class, which takes (path, device=, threads=), and the package that it computes with."""

    kind: str
    module: str
    name: str
    package: str
    extra: str


RUNNERS = {
    b"PK": Runner("pointwise", "dearlite.pointwise.reranker", "PointwiseReranker", "onnxruntime", "cpu"),
    b"GGUF": Runner("listwise", "dearlite.listwise.reranker", "ListwiseReranker", "llama_cpp", "listwise"),
}
CASCADE = ("dearlite.cascade", "CascadeReranker")  # what runs a chain of models


def runner_of(path: Path) -> Runner:
    """The entry for the file at `path`. Raises UsageError where it cannot be read, ModelFileError for no model file."""
    try:
        with open(path, "rb") as file:
            head = file.read(4)
    except OSError as err:
        raise UsageError(f"cannot read the model file {path}: {err.strerror}") from None
    for magic, runner in RUNNERS.items():
        if head.startswith(magic):
            return runner
    raise ModelFileError(f"{path} is no model file (it begins with {head!r}): fetch or export it again")
