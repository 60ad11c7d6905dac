"""The tensors of a decoder's file, computed one at a time from the model's: folded, rotated and rounded.

Every name is that of the graphs (graph.py, padded_graph.py). A source is read through `TensorSource` (a checkpoint, or
a checkpoint with a LoRA), and no more than a few copies of one matrix are in memory in fp32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from dearlite.errors import CheckpointError
from dearlite.export.decoders.quantisations import Quantisation
from dearlite.export.numerics.forward import ForwardPass
from dearlite.export.numerics.leading_directions import DIRECTIONS, extend_weight, leading_directions
from dearlite.export.numerics.rotation import HADAMARD_BLOCK, is_power_of_two, mix_rows_in_blocks, residual_rotation
from dearlite.export.numerics.rounding import (
    Moments,
    column_scales,
    pair_scales,
    round_pairs,
    round_to_nearest,
    round_with_moments,
)
from dearlite.export.source.checkpoint import TensorSource
from dearlite.export.source.families import LlamaShape

_ROWS = 4096  # rows of the embedding that are processed together


class TensorBlocks(NamedTuple):
    """A tensor of weights.bin; `blocks` are its bytes, little-endian, in C order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    blocks: Iterable[bytes]


class DecoderTensors:
    """Iterates over the tensors of a decoder's file, each computed when it is requested.

    With `forward` the calibration rows give the moments for GPTQ, and the fp32 scores of the other rows are ready after
    the last tensor. Without it int8 rounds to the nearest.
    """

    def __init__(
        self, source: TensorSource, shape: LlamaShape, plan: Quantisation, forward: ForwardPass | None = None
    ) -> None:
        self.source, self.shape, self.plan, self.forward = source, shape, plan, forward
        self.basis = residual_rotation(shape.hidden) if plan.rotated else None

    def __iter__(self) -> Iterator[TensorBlocks]:
        yield from self._embedding()
        for number in range(self.shape.layers):
            yield from self._attention(f"model.layers.{number}", f"layer.{number}")
            yield from self._feed_forward(f"model.layers.{number}", f"layer.{number}")
        read = self.source.read
        head = self._rotated(read("score.weight") * self._gain("model.norm")).T  # (hidden, 1)
        head = np.ascontiguousarray(head, np.float32)
        if self.forward is not None:
            self.forward.read_scores(head)
        yield _vector("head", head)

    def _embedding(self) -> Iterator[TensorBlocks]:
        """The embedding's rows in the rotated basis: int8 with one scale per row, or floats."""
        name, scales, scale_of_rows = "model.embed_tokens.weight", [], self.shape.embedding_scale

        def blocks() -> Iterator[bytes]:
            first = 0
            for block in self.source.blocks(name, _ROWS):
                rows = self._rotated(block * np.float32(scale_of_rows))
                if self.forward is not None:
                    self.forward.embed(first, rows)
                    first += len(rows)
                if self.plan.int8:
                    scale = column_scales(rows.T)[:, None]
                    scales.append(scale)
                    rows = round_to_nearest(rows, scale)
                yield (rows if self.plan.int8 else self._as_float(rows, name)).tobytes()

        yield TensorBlocks("embedding", self._dtype, (self.shape.vocabulary, self.shape.hidden), blocks())
        if self.plan.int8:
            yield _vector("embedding.scale", np.concatenate(scales))

    def _attention(self, module: str, layer: str, *, only_reads: bool = False) -> Iterator[TensorBlocks]:
        """The tensors of a layer's attention; with `only_reads` without those that write into the residual stream."""
        shape, read = self.shape, self.source.read
        gain = self._gain(f"{module}.input_layernorm")
        qkv = self._stream_reader([f"{module}.self_attn.{p}_proj" for p in "qkv"], gain)
        o = self._stream_writer(f"{module}.self_attn.o_proj")
        vectors = {}
        if shape.qkv_bias:
            vectors["qkv.bias"] = np.concatenate([read(f"{module}.self_attn.{p}_proj.bias") for p in "qkv"])
        if shape.head_norms:
            vectors |= {name: read(f"{module}.self_attn.{name}.weight") for name in ("q_norm", "k_norm")}
        if self.plan.rotated and is_power_of_two(shape.head_dim):
            # Attention averages whole value vectors, so each head's can be rotated in v and rotated back in o.
            start = (shape.heads + shape.kv_heads) * shape.head_dim  # first column of v
            qkv[:, start:] = mix_rows_in_blocks(qkv[:, start:].T, shape.head_dim).T
            o = mix_rows_in_blocks(o, shape.head_dim)
            if "qkv.bias" in vectors:
                bias = vectors["qkv.bias"]
                bias[start:] = mix_rows_in_blocks(bias[start:, None], shape.head_dim)[:, 0]
        moments = (None, None) if self.forward is None else self.forward.attend(qkv, o, vectors)
        yield from self._read_matrices(qkv, f"{layer}.qkv", [f"{layer}.qkv"], moments[0])
        for name, vector in vectors.items():
            yield _vector(f"{layer}.{name}", vector)
        if not only_reads:
            yield from self._matrices(o, [f"{layer}.o"], moments[1])

    def _feed_forward(self, module: str, layer: str) -> Iterator[TensorBlocks]:
        gain = self._gain(f"{module}.post_attention_layernorm")
        gate_up = self._stream_reader([f"{module}.mlp.{p}_proj" for p in ("gate", "up")], gain)
        down = None
        moments: tuple[Moments | None, Moments | None] = (None, None)
        if self.forward is not None:  # needs both matrices at once; without it only one of them is in memory
            down = self._down(module)
            moments = self.forward.feed(gate_up, down)
        yield from self._read_matrices(gate_up, f"{layer}.gate_up", [f"{layer}.gate", f"{layer}.up"], moments[0])
        del gate_up
        down = self._down(module) if down is None else down
        yield from self._matrices(down, [f"{layer}.down"], moments[1])

    def _down(self, module: str) -> Any:
        down = self._stream_writer(f"{module}.mlp.down_proj")
        return mix_rows_in_blocks(down, HADAMARD_BLOCK) if self.plan.uses_block_hadamard(self.shape) else down

    def _gain(self, norm: str) -> Any:
        """The factors of an RMSNorm, (hidden,)."""
        return self.source.read(f"{norm}.weight") + np.float32(self.shape.norm_offset)

    def _rotated(self, rows: Any) -> Any:
        """`rows`, (rows, hidden), in the basis of the file's residual stream."""
        return rows if self.basis is None else rows @ self.basis

    def _stream_reader(self, names: Sequence[str], gain: Any) -> Any:
        """Matrices that read the residual stream, concatenated to (in, out), with the norm's gain and the rotation."""
        return np.concatenate([self._rotated(self.source.read(f"{name}.weight") * gain) for name in names]).T

    def _stream_writer(self, name: str) -> Any:
        """A matrix that writes into the residual stream, as (in, out), in the rotated basis."""
        return self._rotated(self.source.read(f"{name}.weight").T)

    def _read_matrices(
        self, weight: Any, group: str, names: Sequence[str], moments: Moments | None
    ) -> Iterator[TensorBlocks]:
        """The tensors of matrices that read the residual stream, concatenated in `weight`.

        Without moments the leading directions are unknown: the tensor `group`.leading is zero.
        """
        if self.plan.leading:
            directions = np.zeros((len(weight), DIRECTIONS), np.float32)
            if moments is not None:
                directions = leading_directions(moments.sums[0])
                moments = moments.extended(directions)
            yield _vector(f"{group}.leading", directions)
            weight = extend_weight(weight, directions)
        yield from self._matrices(weight, names, moments)

    def _matrices(self, weight: Any, names: Sequence[str], moments: Moments | None) -> Iterator[TensorBlocks]:
        """The matrices (in, out) concatenated in `weight`: int8 with one scale per column, or floats."""
        if self.plan.int8:
            scale = pair_scales(weight)
            steps = round_pairs(weight, scale) if moments is None else round_with_moments(weight, scale, moments)
        width = weight.shape[1] // len(names)
        for number, name in enumerate(names):
            columns = slice(number * width, (number + 1) * width)
            if self.plan.int8:
                values = np.ascontiguousarray(steps[:, columns])
                yield _vector(f"{name}.scale", scale[columns])
            else:
                values = self._as_float(weight[:, columns], f"{name}.weight")
            yield TensorBlocks(f"{name}.weight", self._dtype, values.shape, [values.tobytes()])

    @property
    def _dtype(self) -> str:
        return "int8" if self.plan.int8 else "float16" if self.plan.half else "float32"

    def _as_float(self, values: Any, name: str) -> Any:
        """`values` in the file's float dtype, contiguous. Raises CheckpointError for a value beyond fp16's range."""
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(values, self._dtype)
        if self.plan.half and not np.isfinite(stored).all():
            raise CheckpointError(f"{name} has values beyond fp16's 65504: export it with --quant int8 or fp32")
        return stored


def _vector(name: str, values: Any) -> TensorBlocks:
    """A tensor that is stored as float32 in every quantisation."""
    return TensorBlocks(name, "float32", values.shape, [values.astype(np.float32).tobytes()])
