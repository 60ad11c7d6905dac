"""Writes a LLaMA-family scorer as a `.dear` file, one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dearlite.export.decoders.pooling import with_pooling
from dearlite.export.decoders.quantisations import QUANTISATIONS, Quantisation, graphs_of
from dearlite.export.decoders.tensors import DecoderTensors
from dearlite.export.numerics.forward import ForwardPass
from dearlite.export.source.checkpoint import TensorSource
from dearlite.export.source.families import check_tensors, shape_of
from dearlite.models.bundle_writer import BundleWriter
from dearlite.models.facts import PointwiseFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderModel:
    """A LLaMA-family scorer to export."""

    source: TensorSource
    tokenizer: bytes  # tokenizer.json
    facts: PointwiseFacts
    pad_id: int | None = None  # the token that pads rows; the pooling "last-position" needs it
    members: Mapping[str, bytes] = field(default_factory=dict)  # further files for the bundle, as LICENSE
    probes: Sequence[str] = ()  # texts that the written file must be able to score


def write_decoder(
    model: DecoderModel,
    path: Path,
    *,
    plan: Quantisation = QUANTISATIONS["int8"],
    devices: Sequence[str] = ("cpu",),
    forward: ForwardPass | None = None,
) -> None:
    """Writes `model` as a `.dear` file with a graph for each of `devices`.

    `forward` runs through the network while the tensors are written. Its calibration rows let int8 round by GPTQ
    instead of to the nearest; afterwards it has the fp32 scores of its other rows.

    Peak memory is a few copies of the largest matrix in fp32. For an unsupported model it raises UsageError or
    CheckpointError before anything is written. A later failure leaves no file.
    """
    source, facts = model.source, model.facts
    shape = shape_of(source.config, facts.max_tokens)
    check_tensors(source, shape)
    builds = list(graphs_of(plan, shape, devices))
    graphs = {build.graph: graph for build, graph in builds}
    with BundleWriter(path) as bundle:
        written = set()
        for tensor in DecoderTensors(source, shape, plan, forward):
            bundle.add_tensor(*tensor)
            written.add(tensor.name)
        for graph in graphs.values():
            for name in ("rotary.cos", "rotary.sin"):
                if name not in written:
                    value = graph.weights[name]
                    bundle.add_tensor(name, value.dtype.name, value.shape, [value.tobytes()])
                    written.add(name)
            missing = set(graph.weights) - written
            assert not missing, f"the graph has tensors that were not written: {sorted(missing)[:5]}"
        members = {"tokenizer.json": model.tokenizer, "config.json": config_json(source.config), **model.members}
        for name, graph in graphs.items():
            members[name] = with_pooling(facts.pooling, graph.to_bytes(), model.pad_id, shape.max_tokens)
        bundle.finish(members, facts, [build for build, _ in builds], pair_limited=plan.int8)


def config_json(config: dict[str, Any]) -> bytes:
    """The configuration that the graphs are written from, without the path under which it was saved."""
    kept = {name: value for name, value in config.items() if name != "_name_or_path"}
    return (json.dumps(kept, indent=1, sort_keys=True) + "\n").encode()
