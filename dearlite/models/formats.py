"""The formats of model files, recognised by their first bytes, and the class that runs each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dearlite.errors import ModelFileError, UsageError


@dataclass(frozen=True, slots=True)
class Runner:
    """The class that runs a kind of model, as `module` and `name`, and the `packages` that it can compute with.

    The class is called with (path, device=, threads=). `extra` is the extra of dearlite that installs the first of
    `packages`; one of them is enough.
    """

    kind: str
    module: str
    name: str
    packages: tuple[str, ...]
    extra: str


# magic bytes -> runner
RUNNERS = {
    b"PK": Runner("pointwise", "dearlite.pointwise.reranker", "PointwiseReranker", ("onnxruntime",), "cpu"),
    b"GGUF": Runner(
        "listwise", "dearlite.listwise.reranker", "ListwiseReranker", ("llama_cpp", "llama_cpp_py_sync"), "listwise"
    ),
}
CASCADE = ("dearlite.cascade", "CascadeReranker")  # (module, name) of the class that runs a chain of models


def runner_of(path: Path) -> Runner:
    """The runner of the file at `path`. Raises UsageError if it cannot be read, ModelFileError if it is no model."""
    try:
        with open(path, "rb") as file:
            head = file.read(4)
    except OSError as err:
        raise UsageError(f"cannot read the model file {path}: {err.strerror}") from None
    for magic, runner in RUNNERS.items():
        if head.startswith(magic):
            return runner
    raise ModelFileError(f"{path} is no model file (it begins with {head!r}): fetch or export it again")
