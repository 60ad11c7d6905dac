"""The graph of a LLaMA-family scorer for a GPU: a rectangle of right-padded rows to one score for each row.

The weights are those of the CPU graph (graph.py). The arithmetic is fp16, because CUDA has neither the int8 products
nor an fp32 GroupQueryAttention. Values that can leave the range of fp16 are treated separately:

- The residual stream, its RMSNorm and the head are fp32: a few activations of real models are in the thousands.
- The down projection's input can exceed 65504, the largest fp16 number, and so can its output: both are kept at 1/16.
- The column scales of an int8 matrix can be below fp16's normal numbers where the norm's gain is folded in: they are
  multiplied by 16, and the normalised row by 1/16.

Padding needs no mask: it is on the right, where causal attention never looks, and the score is read at the last token.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from dearlite.export.decoders.graph import embed, head_norm, spec, split_heads, write_extended
from dearlite.export.numerics.leading_directions import DIRECTIONS, copy_counts
from dearlite.export.numerics.rotation import HADAMARD_BLOCK, hadamard
from dearlite.export.onnx.graph import CONTRIB, Graph
from dearlite.export.onnx.linear import LINEAR_WAYS, Linear, LinearWay
from dearlite.export.source.families import LlamaShape

_SCALE = 16.0  # a power of two, so that scaling is exact


def padded_llama_graph(shape: LlamaShape, way: str, *, block_hadamard: bool, leading: bool = False) -> Graph:
    """The graph from ids and mask, both (rows, longest) int64, to score (rows, 1), for the layout "padded".

    `way` is an entry of LINEAR_WAYS that works on inputs of any rank; it also sets the arithmetic, which must be fp16
    on CUDA. The other parameters and the weights are those of `llama_graph`.
    """
    return _PaddedWriter(shape, LINEAR_WAYS[way], block_hadamard, leading).write()


class _PaddedWriter:
    def __init__(self, shape: LlamaShape, way: LinearWay, block_hadamard: bool, leading: bool) -> None:
        self.shape, self.way, self.block_hadamard, self.leading = shape, way, block_hadamard, leading
        self.kind = np.float16 if way.half else np.float32
        self.input_scale = _SCALE if way.half and way.int8_weights else 1.0
        self.g = Graph()

    def write(self) -> Graph:
        g, s = self.g, self.shape
        ids, mask = (g.input(name, "rows", "longest") for name in ("ids", "mask"))
        counts = g.add("ReduceSum", mask, self.ints("token_axis", 1), keepdims=1)  # (rows, 1)
        self.last = g.add("Sub", counts, self.ints("one", 1))
        self.ends = g.add("Cast", g.add("Reshape", self.last, self.ints("flat", -1)), to=TensorProto.INT32)
        longest = g.add("Cast", g.add("Shape", ids, start=1, end=2), to=TensorProto.INT32)
        self.longest = g.add("Squeeze", longest)
        angles = np.outer(np.arange(s.max_tokens), np.array(s.frequencies))
        self.cos = self.cast(g.weight("rotary.cos", np.cos(angles).astype(np.float32)))
        self.sin = self.cast(g.weight("rotary.sin", np.sin(angles).astype(np.float32)))
        x = embed(g, s, self.way, ids)  # (rows, longest, hidden) float32
        for number in range(s.layers):
            x = self.layer(x, number, last=number == s.layers - 1)
        head = g.add("Reshape", g.weight("head", spec(np.float32, s.hidden, 1)), self.ints("flat", -1))
        # Not MatMul: CUDA's is TF32 by default, which has no more digits than fp16.
        products = g.add("Mul", self.norm(x, np.float32, 1.0), head)
        g.output = g.add("ReduceSum", products, self.ints("flat", -1), keepdims=1)
        return g

    def layer(self, x: str, number: int, *, last: bool) -> str:
        g, s, prefix = self.g, self.shape, f"layer.{number}"
        width = (s.heads + 2 * s.kv_heads) * s.head_dim
        (qkv,) = self.normed_linear(x, f"{prefix}.qkv", (f"{prefix}.qkv",), width)
        if s.qkv_bias:
            qkv = g.add("Add", qkv, self.cast(g.weight(f"{prefix}.qkv.bias", spec(np.float32, width))))
        attended = self.attention(qkv, prefix, number)
        if last:  # (rows, hidden) from here on
            attended, x = (g.add("GatherND", value, self.last, batch_dims=1) for value in (attended, x))
        x = g.add("Add", x, self.wide(self.linear(attended, f"{prefix}.o", s.heads * s.head_dim, s.hidden)))
        gate, up = self.normed_linear(x, f"{prefix}.gate_up", (f"{prefix}.gate", f"{prefix}.up"), s.ffn)
        up = g.add("Mul", up, g.const("one_over_shift", np.array(1 / _SCALE, self.kind)))
        product = g.add("Mul", g.add("QuickGelu", gate, domain=CONTRIB, alpha=1.0), up)  # SiLU(gate) * up
        if self.block_hadamard:
            product = self.hadamard(product, sides=1 if last else 2)
        down = self.wide(self.linear(product, f"{prefix}.down", s.ffn, s.hidden))
        return g.add("Add", x, g.add("Mul", down, g.const("shift", np.float32(_SCALE))))

    def attention(self, qkv: str, prefix: str, number: int) -> str:
        """Causal grouped-query attention within each row; the operator rotates q and k."""
        g, s = self.g, self.shape
        inputs = (qkv, "", "")
        if s.head_norms:
            q, k, v = split_heads(g, s, qkv)
            q, k = (
                head_norm(g, s, value, self.cast(g.weight(f"{prefix}.{name}", spec(np.float32, s.head_dim))), sides=2)
                for value, name in ((q, "q_norm"), (k, "k_norm"))
            )
            inputs = (q, k, v)
        names = (f"attended_{number}", f"keys_{number}", f"values_{number}")
        g.add_named(
            "GroupQueryAttention",
            (*inputs, "", "", self.ends, self.longest, self.cos, self.sin),
            names,
            domain=CONTRIB,
            num_heads=s.heads,
            kv_num_heads=s.kv_heads,
            do_rotary=1,
        )
        return names[0]

    def norm(self, x: str, kind: Any, gain: float) -> str:
        """RMSNorm of float32 rows in float32 arithmetic, times `gain`, cast to `kind`."""
        name = f"gain_{'half' if kind is np.float16 else 'full'}_{1 / gain:.0f}"
        values = self.g.const(name, np.full(self.shape.hidden, gain, kind))
        return self.g.add("SimplifiedLayerNormalization", x, values, axis=-1, epsilon=self.shape.epsilon)

    def normed_linear(self, x: str, group: str, names: tuple[str, ...], outputs: int) -> list[str]:
        """The products of RMSNorm(x) with matrices of `outputs` columns each, as in graph.py."""
        hidden = inputs = self.shape.hidden
        rows = self.norm(x, self.kind, 1 / self.input_scale)
        if self.leading:
            directions = self.cast(self.g.weight(f"{group}.leading", spec(np.float32, hidden, DIRECTIONS)))
            rows = write_extended(self.g, rows, directions, hidden, self.kind)
            inputs += sum(copy_counts(hidden))
        return [self.linear(rows, name, inputs, outputs, self.input_scale) for name in names]

    def linear(self, x: str, name: str, inputs: int, outputs: int, times: float = 1.0) -> str:
        scale = spec(np.float32, outputs) if self.way.int8_weights else None
        layer = Linear(name, spec(self.way.weights, inputs, outputs), scale, times=times)
        return self.way.write(self.g, x, "", layer)

    def hadamard(self, x: str, *, sides: int) -> str:
        g, n, kept = self.g, HADAMARD_BLOCK, [0] * sides
        blocks = g.add("Reshape", x, self.ints(f"in_blocks_{sides}", *kept, self.shape.ffn // n, n))
        mixed = g.add("MatMul", blocks, g.const("hadamard", hadamard(n).astype(self.kind)))
        return g.add("Reshape", mixed, self.ints(f"side_by_side_{sides}", *kept, self.shape.ffn))

    def cast(self, value: str) -> str:
        """A float32 weight in the graph's arithmetic; ONNX Runtime folds the Cast once, when it loads the graph."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.kind))
        return self.g.add("Cast", value, to=kind) if self.way.half else value

    def wide(self, value: str) -> str:
        return self.g.add("Cast", value, to=TensorProto.FLOAT) if self.way.half else value

    def ints(self, name: str, *values: int) -> str:
        return self.g.const(name, np.array(values, np.int64))
