"""The keys and values in the head of a GGUF: those that llama.cpp reads, and the `dearlite.*` keys of the runtime.

`dearlite.card` and the hashes in `dearlite.source` are known only after the weights are written: placeholders of full
length reserve their bytes, and `fill_in` overwrites them. `dearlite.sha256` is the hash of the file itself, computed
with zeros in place of its digits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from dearlite.errors import DearliteError, need
from dearlite.export.gguf.architectures import Architecture
from dearlite.export.gguf.hyperparameters import hyperparameters
from dearlite.export.gguf.networks import Network
from dearlite.export.gguf.quants import F16, GGUF_QUANTS
from dearlite.export.gguf.weights import Weight
from dearlite.listwise.forms import FORMS
from dearlite.models.facts import NOT_STATED, ModelFacts
from dearlite.models.gguf import GgufFile
from dearlite.models.gguf_writer import seal

SCHEMA = 1
CARD_BYTES = 4096
UNSEALED = "0" * 64  # placeholder of a sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwiseFacts(ModelFacts):
    """Facts of a listwise `.gguf`; `prompt` is an entry of FORMS. `source` also maps packages to versions."""

    window: int
    stride: int


def listwise_values(facts: ListwiseFacts) -> Iterator[tuple[str, Any]]:
    """The `dearlite.*` keys in the file's order: int -> uint32, str."""
    form = FORMS[facts.prompt]
    yield "dearlite.schema", SCHEMA
    yield "dearlite.kind", "listwise"
    yield "dearlite.name", facts.name
    yield "dearlite.prompt", facts.prompt
    yield "dearlite.window", facts.window
    yield "dearlite.stride", facts.stride
    yield "dearlite.max_tokens", facts.max_tokens
    yield "dearlite.identifiers_from", form.identifiers_from
    yield "dearlite.reasoning", form.reasoning
    yield "dearlite.licence", facts.licence
    yield "dearlite.source", json.dumps(facts.source)
    yield "dearlite.card", " " * CARD_BYTES
    yield "dearlite.sha256", UNSEALED


def model_values(
    config: dict[str, Any],
    family: Architecture,
    network: Network,
    weights: list[Weight],
    facts: ModelFacts,
    own: Iterable[tuple[str, Any]],
) -> Iterator[tuple[str, Any]]:
    """Every key except the tokenizer's, in the file's order: int -> uint32, float -> float32, str, list.

    `own` are the `dearlite.*` keys of the kind of model.
    """
    gguf = need("gguf", extra="export")
    parameters = sum(prod(weight.shape) for weight in weights)
    yield "general.type", "model"
    yield "general.name", facts.name
    yield "general.size_label", gguf.size_label(parameters, parameters, 0, 0)
    if facts.licence != NOT_STATED:
        yield "general.license", facts.licence
    yield from hyperparameters(config, family, network)
    yield "general.file_type", GGUF_QUANTS[F16].file_type
    yield "general.quantization_version", gguf.GGML_QUANT_VERSION
    yield from own


def fill_in(path: Path, values: dict[str, str]) -> None:
    """Overwrites the strings of the keys in the file at `path`, then writes the file's sha256.

    A shorter string is padded with spaces. Raises DearliteError for a string longer than its placeholder.
    """
    file = GgufFile(path)
    with open(path, "r+b") as out:
        for key, value in values.items():
            start, size = file.value_span(key)
            data = value.encode()
            if len(data) > size:
                raise DearliteError(f"{key} takes {len(data)} bytes but {path} reserves {size}: shorten its names")
            out.seek(start)
            out.write(data.ljust(size))
    seal(path)
