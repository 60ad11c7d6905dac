"""The records of models.toml: a model, and a cascade of models. Facts only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One table of models.toml.

    `max_tokens` limits the whole pair or prompt, `max_query_tokens` the query's share of it where its authors state
    one. `base` is the repository of the model under a LoRA. `embedded` is the file inside this package, None for a
    model whose file is made by `dearlite export`. `download_mb` is the size of the download that this needs, base
    included; `size_mb` and `memory_mb` are those of the file and of the process that runs it. `golden` names the
    published scores that `dearlite models verify` compares the file with; `known_difference` is how far these are
    known to lie from the scores of a file whose weights its publisher rounded. `file` is a file of the repository that
    is used as it is published; without it the model's file is made by an export.

    `aliases` are other names: a former name here, or another of the repository at the Hub. `parameters` counts all
    parameters; `matrix_parameters` those of the matrices that every token passes through: no
    embedding, and no output matrix of the vocabulary where only a score is read. `quality` maps benchmarks (see
    registry_values.QUALITY) to published nDCG@10. `commercial` is False for a licence that forbids commercial use, or
    that could not be read.
    """

    name: str
    kind: str
    repository: str
    architecture: str
    prompt: str
    pooling: str
    max_tokens: int
    licence: str
    size_mb: int
    memory_mb: int
    revision: str = "main"
    base: str = ""
    max_query_tokens: int | None = None
    download_mb: int | None = None
    embedded: str | None = None
    golden: str = ""
    known_difference: float | None = None
    about: str = ""
    file: str = ""
    aliases: tuple[str, ...] = ()
    commercial: bool = True
    parameters: int | None = None
    matrix_parameters: int | None = None
    layers: int | None = None
    hidden: int | None = None
    quality: Mapping[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class CascadeEntry:
    """A table of models.toml of kind "cascade": a chain of models, each `NAME` or `NAME:DEPTH`."""

    name: str
    kind: str
    stages: tuple[str, ...]
    about: str = ""


@dataclass(frozen=True, slots=True)
class LexicalEntry:
    """A table of models.toml of kind "lexical": BM25 with parameters `k1` and `b`, and the language of its words."""

    name: str
    kind: str
    k1: float
    b: float
    language: str
    about: str = ""
