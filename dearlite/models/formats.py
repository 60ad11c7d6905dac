"""The formats of model files, recognised by their first bytes, and the class that runs each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dearlite.errors import ModelFileError, UsageError
from dearlite.models.bundle_kind import kind_of_bundle
from dearlite.models.gguf import GgufFile
from dearlite.models.gguf_kinds import scoring_kind


@dataclass(frozen=True, slots=True)
class Runner:
    """The class that runs a kind of model, as `module` and `name`, and the `packages` that it can compute with.

    The class is called with (path, open file or entry, device=, threads=) and those of `options` that the caller gives.
    `extra` is the extra of dearlite that installs the first of `packages`; one of them is enough.
    """

    kind: str
    module: str
    name: str
    packages: tuple[str, ...]
    extra: str
    options: tuple[str, ...]


_LLAMA = ("llama_cpp", "llama_cpp_py_sync")
DEAR = Runner(
    "pointwise", "dearlite.pointwise.reranker", "PointwiseReranker", ("onnxruntime",), "cpu", ("instruction",)
)
ATTENTION = Runner(
    "attention", "dearlite.attention.reranker", "AttentionReranker", ("onnxruntime",), "cpu", ("instruction",)
)
POINTWISE_GGUF = Runner(
    *("pointwise", "dearlite.pointwise.gguf_reranker", "GgufReranker", _LLAMA, "listwise"),
    options=("gpu_layers", "instruction", "prompt"),
)
LISTWISE_GGUF = Runner(
    *("listwise", "dearlite.listwise.reranker", "ListwiseReranker", _LLAMA, "listwise"),
    options=("gpu_layers", "adapter"),
)
LEXICAL = Runner("lexical", "dearlite.lexical.reranker", "LexicalReranker", ("bm25s",), "first-stage", ("language",))
DEAR_KINDS = {runner.kind: runner for runner in (DEAR, ATTENTION)}  # by the kind that a manifest states
CASCADE = ("dearlite.cascade", "CascadeReranker")  # (module, name) of the class that runs a chain of models


def runner_of(path: Path, prompt: str | None = None) -> tuple[Runner, GgufFile | None]:
    """The runner of the file at `path`, and the open file if it is a GGUF.

    A GGUF that states no pointwise score runs listwise, unless the caller names a `prompt` of `templates.families`.
    Raises UsageError if the file cannot be read, ModelFileError if it is no model.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(4)
    except OSError as err:
        raise UsageError(f"cannot read the model file {path}: {err.strerror}") from None
    if head.startswith(b"PK"):
        return DEAR_KINDS.get(kind_of_bundle(path), DEAR), None
    if head == b"GGUF":
        gguf = GgufFile(path)
        return (LISTWISE_GGUF if prompt is None and scoring_kind(gguf) is None else POINTWISE_GGUF), gguf
    raise ModelFileError(f"{path} is no model file (it begins with {head!r}): fetch or export it again")
