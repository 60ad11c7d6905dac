"""Pointwise LLaMA-family models to a `.dear` file, one tensor at a time: fold, rotate, quantise, write.

Reads tensors through `TensorSource` (a checkpoint, or a checkpoint with a LoRA merged on the way) and never holds more
than one of them in fp32. families.py has the families, quantisations.py what is stored and the graphs over it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dearlite.errors import CheckpointError
from dearlite.export.decoders.pooling import with_pooling
from dearlite.export.decoders.quantisations import QUANTISATIONS, Quantisation, graphs_of
from dearlite.export.numerics.forward import ForwardPass
from dearlite.export.numerics.leading_directions import DIRECTIONS, extend_weight, leading_directions
from dearlite.export.numerics.rotation import HADAMARD_BLOCK, is_power_of_two, mix_rows_in_blocks, residual_rotation
from dearlite.export.numerics.rounding import Moments, column_scales, round_to_nearest, round_with_moments
from dearlite.export.source.checkpoint import TensorSource
from dearlite.export.source.families import LlamaShape, check_tensors, shape_of
from dearlite.models.bundle import BundleWriter
from dearlite.models.facts import PointwiseFacts

_ROWS = 4096  # of the embedding, at a time


def write_bundle(
    source: TensorSource,
    tokenizer: bytes,
    facts: PointwiseFacts,
    path: Path,
    *,
    plan: Quantisation = QUANTISATIONS["int8"],
    members: dict[str, bytes] | None = None,
    pad_id: int | None = None,
    devices: Sequence[str] = ("cpu",),
    forward: ForwardPass | None = None,
) -> None:
    """Writes `source` as a `.dear` file.

    `forward` goes through the network beside the writing: with its calibration rows int8 is rounded by GPTQ, without
    them to the nearest, and afterwards it has the fp32 scores of its other rows.

    `pad_id` is wanted for the pooling "last-position" only: the token that rows are padded with.

    Peak memory is a few copies of the largest matrix in fp32. Raises UsageError or CheckpointError before anything is
    written where the model is not covered, and leaves nothing behind when it fails later.
    """
    shape = shape_of(source.config, facts.max_tokens)
    check_tensors(source, shape)
    block_hadamard = plan.uses_block_hadamard(shape)
    built = list(graphs_of(plan, shape, devices))
    graphs = {build.graph: graph for build, graph in built}
    with BundleWriter(path) as bundle:
        written = set()
        for name, dtype, value_shape, blocks in _tensors(source, shape, plan, block_hadamard, forward):
            bundle.add_tensor(name, dtype, value_shape, blocks)
            written.add(name)
        for graph in graphs.values():
            for name in ("rotary.cos", "rotary.sin"):
                if name not in written:
                    value = graph.weights[name]
                    bundle.add_tensor(name, value.dtype.name, value.shape, [value.tobytes()])
                    written.add(name)
            missing = set(graph.weights) - written
            assert not missing, f"the graph wants tensors that were not written: {sorted(missing)[:5]}"
        parts = {"tokenizer.json": tokenizer, "config.json": _config_json(source.config), **(members or {})}
        parts |= {n: with_pooling(facts.pooling, g.to_bytes(), pad_id, shape.max_tokens) for n, g in graphs.items()}
        bundle.finish(parts, facts, [build for build, _ in built])


def _config_json(config: dict[str, Any]) -> bytes:
    """The configuration that the graphs were written from, without the path that its maker saved it under."""
    kept = {name: value for name, value in config.items() if name != "_name_or_path"}
    return (json.dumps(kept, indent=1, sort_keys=True) + "\n").encode()


Written = tuple[str, str, tuple[int, ...], Iterator[bytes]]


def _tensors(
    source: TensorSource,
    shape: LlamaShape,
    plan: Quantisation,
    block_hadamard: bool,
    forward: ForwardPass | None = None,
) -> Iterator[Written]:
    """Every weight under the graph's names, made as it is asked for."""
    basis = residual_rotation(shape.hidden) if plan.rotated else None
    yield from _embedding(source, shape, plan, basis, forward)
    for number in range(shape.layers):
        at, layer = f"model.layers.{number}", f"layer.{number}"
        yield from _attention(source, shape, plan, basis, forward, at, layer)
        yield from _feed_forward(source, plan, basis, block_hadamard, forward, at, layer)
    head = (source.read("score.weight") * source.read("model.norm.weight")).astype(np.float32)  # (1, hidden)
    head = np.ascontiguousarray((head if basis is None else head @ basis).T)
    if forward is not None:
        forward.read_scores(head)
    yield "head", "float32", (shape.hidden, 1), iter([head.tobytes()])


def _attention(
    source: TensorSource,
    shape: LlamaShape,
    plan: Quantisation,
    basis: Any,
    forward: ForwardPass | None,
    at: str,
    layer: str,
) -> Iterator[Written]:
    gain = source.read(f"{at}.input_layernorm.weight")
    qkv = _reading(source, [f"{at}.self_attn.{p}_proj" for p in "qkv"], gain, basis)
    o = _writing(source, f"{at}.self_attn.o_proj", basis)
    vectors = {}
    if shape.qkv_bias:
        vectors["qkv.bias"] = np.concatenate([source.read(f"{at}.self_attn.{p}_proj.bias") for p in "qkv"])
    if shape.head_norms:
        vectors |= {name: source.read(f"{at}.self_attn.{name}.weight") for name in ("q_norm", "k_norm")}
    if plan.rotated and is_power_of_two(shape.head_dim):
        # Attention mixes whole values, so each head's may be rotated where they are made and back where they are read.
        start = (shape.heads + shape.kv_heads) * shape.head_dim  # of the values' columns
        qkv[:, start:] = mix_rows_in_blocks(qkv[:, start:].T, shape.head_dim).T
        o = mix_rows_in_blocks(o, shape.head_dim)
        if "qkv.bias" in vectors:
            vectors["qkv.bias"][start:] = mix_rows_in_blocks(vectors["qkv.bias"][start:, None], shape.head_dim)[:, 0]
    moments = (None, None) if forward is None else forward.attend(qkv, o, vectors)
    yield from _reading_matrix(qkv, f"{layer}.qkv", [f"{layer}.qkv"], plan, moments[0])
    for name, vector in vectors.items():
        yield f"{layer}.{name}", "float32", vector.shape, iter([vector.astype(np.float32).tobytes()])
    yield from _matrices(o, [f"{layer}.o"], plan, moments[1])


def _feed_forward(
    source: TensorSource,
    plan: Quantisation,
    basis: Any,
    block_hadamard: bool,
    forward: ForwardPass | None,
    at: str,
    layer: str,
) -> Iterator[Written]:
    gain = source.read(f"{at}.post_attention_layernorm.weight")
    gate_up = _reading(source, [f"{at}.mlp.{p}_proj" for p in ("gate", "up")], gain, basis)
    down = None
    moments: tuple[Moments | None, Moments | None] = (None, None)
    if forward is not None:  # it needs both at once; a file without it is made with one of them in memory
        down = _down(source, basis, block_hadamard, at)
        moments = forward.feed(gate_up, down)
    yield from _reading_matrix(gate_up, f"{layer}.gate_up", [f"{layer}.gate", f"{layer}.up"], plan, moments[0])
    del gate_up
    down = _down(source, basis, block_hadamard, at) if down is None else down
    yield from _matrices(down, [f"{layer}.down"], plan, moments[1])


def _down(source: TensorSource, basis: Any, block_hadamard: bool, at: str) -> Any:
    down = _writing(source, f"{at}.mlp.down_proj", basis)
    return mix_rows_in_blocks(down, HADAMARD_BLOCK) if block_hadamard else down


def _embedding(
    source: TensorSource, shape: LlamaShape, plan: Quantisation, basis: Any, forward: ForwardPass | None
) -> Iterator[Written]:
    """The embedding's rows in the rotated basis: int8 with one scale a row, or as they are."""
    name, sides = "model.embed_tokens.weight", (shape.vocabulary, shape.hidden)
    scales = []

    def blocks() -> Iterator[bytes]:
        first = 0
        for block in source.blocks(name, _ROWS):
            rows = block if basis is None else block @ basis
            if forward is not None:
                forward.embed(first, rows)
                first += len(rows)
            if plan.int8:
                scale = column_scales(rows.T)
                scales.append(scale)
                rows = round_to_nearest(rows, scale[:, None])
            yield (rows if plan.int8 else _as_stored(rows, name, plan)).tobytes()

    yield "embedding", _dtype(plan), sides, blocks()
    if plan.int8:
        scale = np.concatenate(scales)
        yield "embedding.scale", "float32", (len(scale), 1), iter([scale.tobytes()])


def _reading(source: TensorSource, names: list[str], gain: Any, basis: Any) -> Any:
    """Matrices that read the residual stream, side by side as (in, out): the norm's gain and the rotation folded in."""
    parts = []
    for name in names:
        rows = source.read(f"{name}.weight") * gain  # (out, in)
        parts.append(rows if basis is None else rows @ basis)
    return np.concatenate(parts).T


def _writing(source: TensorSource, name: str, basis: Any) -> Any:
    """A matrix that writes into the residual stream, as (in, out), in the rotated basis."""
    columns = source.read(f"{name}.weight").T
    return columns if basis is None else columns @ basis


def _reading_matrix(
    weight: Any, together: str, names: Sequence[str], plan: Quantisation, moments: Moments | None
) -> Iterator[Written]:
    """Matrices side by side that read the residual stream, each written under its name.

    Without moments no direction is known to lead, and none is apart.
    """
    if plan.leading:
        directions = np.zeros((len(weight), DIRECTIONS), np.float32)
        if moments is not None:
            directions = leading_directions(moments.sums[0])
            moments = moments.extended(directions)
        yield f"{together}.leading", "float32", directions.shape, iter([directions.tobytes()])
        weight = extend_weight(weight, directions)
    yield from _matrices(weight, names, plan, moments)


def _matrices(weight: Any, names: Sequence[str], plan: Quantisation, moments: Moments | None) -> Iterator[Written]:
    """(in, out) of each name, side by side in `weight`, as int8 with one scale a column, or as it is."""
    if plan.int8:
        scale = column_scales(weight)
        steps = round_to_nearest(weight, scale) if moments is None else round_with_moments(weight, scale, moments)
    width = weight.shape[1] // len(names)
    for number, name in enumerate(names):
        part = slice(number * width, (number + 1) * width)
        if plan.int8:
            values, its_scale = np.ascontiguousarray(steps[:, part]), scale[part]
            yield f"{name}.scale", "float32", its_scale.shape, iter([its_scale.tobytes()])
        else:
            values = _as_stored(weight[:, part], f"{name}.weight", plan)
        yield f"{name}.weight", _dtype(plan), values.shape, iter([values.tobytes()])


def _dtype(plan: Quantisation) -> str:
    return "int8" if plan.int8 else "float16" if plan.half else "float32"


def _as_stored(values: Any, name: str, plan: Quantisation) -> Any:
    """`values` in the file's float dtype, contiguous. Raises CheckpointError where fp16 cannot hold one of them."""
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(values, _dtype(plan))
    if plan.half and not np.isfinite(stored).all():
        raise CheckpointError(f"{name} has values beyond fp16's 65504: export it with --quant int8 or fp32")
    return stored
