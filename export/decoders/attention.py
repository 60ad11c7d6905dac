"""Writes an attention reranker as a `.dear` file: the layers up to the last head that is read, without a score head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dearlite.errors import DearliteError
from dearlite.export.decoders.attention_graph import Heads, attention_graph
from dearlite.export.decoders.bundle import config_json
from dearlite.export.decoders.quantisations import QUANTISATIONS
from dearlite.export.decoders.tensors import DecoderTensors, TensorBlocks
from dearlite.export.numerics.forward import ForwardPass
from dearlite.export.source.checkpoint import TensorSource
from dearlite.export.source.families import LlamaShape
from dearlite.files.targets import reason_of
from dearlite.models.bundle_writer import BundleWriter
from dearlite.models.facts import AttentionFacts
from dearlite.models.manifest import Build

LAYOUT = "attention"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionModel:
    """A language model to export, of `shape`, and the heads that are read, per layer."""

    source: TensorSource
    shape: LlamaShape
    heads: Heads
    tokenizer: bytes  # tokenizer.json
    facts: AttentionFacts
    members: Mapping[str, bytes] = field(default_factory=dict)  # further files for the bundle, as LICENSE


def used_shape(shape: LlamaShape, heads: Heads) -> LlamaShape:
    """`shape` without the layers behind the last one of `heads`."""
    return replace(shape, layers=max(heads) + 1)


def write_attention(model: AttentionModel, path: Path, *, quant: str = "int8", calibration: Sequence[Any] = ()) -> None:
    """Writes `model` as a `.dear` file. `calibration` are (tokens,) int64 rows, with which int8 rounds by GPTQ.

    Peak memory is a few copies of the largest matrix in fp32. Raises DearliteError if the file cannot be written, and
    leaves none then.
    """
    plan, shape = QUANTISATIONS[quant], used_shape(model.shape, model.heads)
    block_hadamard = plan.uses_block_hadamard(shape)
    graph = attention_graph(shape, model.heads, plan.way, block_hadamard=block_hadamard, leading=plan.leading)
    rows = calibration if plan.int8 else ()
    forward = ForwardPass(shape, rows, [], block_hadamard=block_hadamard) if rows else None
    try:
        with BundleWriter(path) as bundle:
            for tensor in _AttentionTensors(model.source, shape, plan, forward):
                bundle.add_tensor(*tensor)
            for name in ("rotary.cos", "rotary.sin"):
                value = graph.weights[name]
                bundle.add_tensor(name, value.dtype.name, value.shape, [value.tobytes()])
            config = config_json(model.source.config)
            members = {"tokenizer.json": model.tokenizer, "config.json": config, **model.members}
            build = Build("cpu", "cpu.onnx", LAYOUT, plan.way, (), tuple(graph.weights))
            members[build.graph] = graph.to_bytes()
            bundle.finish(members, model.facts, [build], pair_limited=plan.int8)
    except OSError as err:
        raise DearliteError(f"cannot write {path}: {reason_of(err)}") from None


class _AttentionTensors(DecoderTensors):
    """The tensors of the layers that are run; of the last one, those that make q and k."""

    def __iter__(self) -> Iterator[TensorBlocks]:
        yield from self._embedding()
        end = self.shape.layers - 1
        for number in range(self.shape.layers):
            module, layer = f"model.layers.{number}", f"layer.{number}"
            yield from self._attention(module, layer, only_reads=number == end)
            if number < end:
                yield from self._feed_forward(module, layer)
