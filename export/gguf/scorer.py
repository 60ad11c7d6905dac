"""A scorer's export to GGUF: the language model's weights, and its head of one label in the metadata.

llama.cpp has no place for the head of a LLaMA scorer; the runtime multiplies the last hidden state by it
(`pointwise/gguf_engine.py`). The fp32 scores of the quality card are computed while the weights are written.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dearlite.errors import CheckpointError, DearliteError, UsageError
from dearlite.export.gguf.metadata import CARD_BYTES, SCHEMA, UNSEALED, fill_in, model_values
from dearlite.export.gguf.networks import find_network
from dearlite.export.gguf.pipeline import check_disk
from dearlite.export.gguf.quants import F16, size_bytes
from dearlite.export.gguf.reference import Reference
from dearlite.export.gguf.vocabulary import read_vocabulary
from dearlite.export.gguf.weights import check_weights, weights_of
from dearlite.export.gguf.worker import call_llama
from dearlite.export.gguf.writer import write_head, write_weights
from dearlite.export.quality.check import check_probes, quality_card, tau_below_floor
from dearlite.export.quality.gate import QualityGate
from dearlite.export.quality.texts import card_pairs, pair_rows
from dearlite.export.source.answers import HEAD
from dearlite.export.source.checkpoint import Floats, TensorSource
from dearlite.export.source.families import macs_per_token
from dearlite.files.drafts import Draft
from dearlite.files.json_text import json_text
from dearlite.files.targets import reason_of
from dearlite.foreign import one_line_errors
from dearlite.llama.bindings import installed_engine
from dearlite.models.facts import PointwiseFacts
from dearlite.pointwise.tokens import PairEncoder, PairLayout

_POOLING = "last-token"


def export_scorer(
    source: TensorSource,
    facts: PointwiseFacts,
    output: Path,
    *,
    tokenizer: bytes,
    folders: tuple[Path, Path | None],
    quant: str,
    gate: QualityGate,
    probes: Sequence[str] = (),
) -> dict[str, Any]:
    """The quality card of the scorer written to `output` as a GGUF of type `quant`; empty if `gate` requests none.

    `folders` are those of the base and of the adapter, whose tokenizer files are read. Raises UsageError for a family
    or a reading that has no GGUF, and DearliteError, without a file, for a Kendall's tau below `gate.floor`.
    """
    config = source.config | {"tie_word_embeddings": True}  # without an output matrix: llama.cpp takes the embedding
    family, shape = find_network(config, facts.max_tokens)
    if facts.pooling != _POOLING:
        raise UsageError(f"a GGUF is read at the {_POOLING}, and this model at the {facts.pooling}: write a .dear file")
    weights = weights_of(config, family, shape)
    network = _WithoutHead(source)
    check_weights(network, weights, folders[0], family)
    head = source.rows(HEAD, 0, 1)[0].astype(np.float32)
    vocabulary = read_vocabulary(folders[0], config, family.tokenizers, folders[1])
    installed_engine()
    shapes = [weight.shape for weight in weights]
    check_disk(output, size_bytes(F16, shapes), 0 if quant == F16 else size_bytes(quant, shapes), carded=gate.card)
    layout = None if facts.template is not None else PairEncoder(tokenizer, max_tokens=facts.max_tokens).layout
    values = list(model_values(config, family, shape, weights, facts, list(_own_values(facts, head, layout))))
    factors, macs = shape.rotary.tensors, macs_per_token(shape)
    pairs = card_pairs(tokenizer, facts.form, facts.max_tokens, macs) if gate.card else None
    rows = [] if pairs is None else pair_rows(tokenizer, facts.form, facts.max_tokens, pairs)
    reference = Reference(shape, [row.ids for row in rows], [[len(row.ids) - 1] for row in rows]) if rows else None
    card: dict[str, Any] = {}
    try:
        with Draft(output, folder=True) as whole:
            draft = whole.path / "f16.gguf"
            with one_line_errors(
                f"{folders[0]}: its metadata cannot be written as GGUF", "fetch it again", CheckpointError
            ):
                write_head(draft, family.gguf, values, vocabulary, weights, factors)
            write_weights(draft, network, weights, factors, reference)
            if quant != F16:
                model = whole.path / "model.gguf"
                call_llama("quantise", {"path": str(draft), "output": str(model), "quant": quant})
                draft.unlink()
                draft = model
            fill_in(draft, {})  # its hash, which the runtime compares
            if pairs is None or reference is None:
                check_probes(draft, "cpu", probes)
            else:
                scores = [float(score) for score in reference.hidden_states() @ head]
                card = {"reference": "the merged weights in fp32"} | quality_card(draft, pairs, scores, "cpu", probes)
                remedy = "choose a wider --quant" if quant != F16 and "kendall_tau" in card else ""
                gate.apply(output, card, tau_below_floor(card, gate.floor), remedy)
            fill_in(draft, {"dearlite.card": json_text(card)})
            whole.commit(draft)
    except OSError as err:
        raise DearliteError(f"cannot write {output}: {reason_of(err)}") from None
    return card


def _own_values(facts: PointwiseFacts, head: Floats, layout: PairLayout | None) -> Iterator[tuple[str, Any]]:
    """The `dearlite.*` keys in the file's order. Placeholders are filled in when the weights are written."""
    yield "dearlite.schema", SCHEMA
    yield "dearlite.kind", "pointwise"
    yield "dearlite.name", facts.name
    yield "dearlite.prompt", facts.prompt
    yield "dearlite.max_tokens", facts.max_tokens
    if layout is not None:
        for part in ("before", "between", "after"):
            yield f"dearlite.pair.{part}", [int(token) for token in getattr(layout, part)]
    yield "dearlite.head", [float(value) for value in head]
    records = {"template": facts.template, "activation": facts.activation, "calibration": facts.calibration}
    for name, record in records.items():
        if record is not None:
            yield f"dearlite.{name}", json.dumps(record if isinstance(record, dict) else record.record())
    yield "dearlite.licence", facts.licence
    yield "dearlite.source", json.dumps(facts.source)
    yield "dearlite.card", " " * CARD_BYTES
    yield "dearlite.sha256", UNSEALED


class _WithoutHead(TensorSource):
    """The weights of a scorer but for its head."""

    def __init__(self, source: TensorSource) -> None:
        self._source, self.config = source, source.config

    @property
    def names(self) -> Collection[str]:
        return [name for name in self._source.names if name != HEAD]

    def shape(self, name: str) -> tuple[int, ...]:
        return self._source.shape(name)

    def rows(self, name: str, start: int, stop: int) -> Floats:
        return self._source.rows(name, start, stop)
