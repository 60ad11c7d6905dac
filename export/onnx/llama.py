"""LLaMA-family scorers: the graph from one document's token ids, and its query's keys and values, to one score.

Pre-norm decoder (RMSNorm, rotary positions, grouped queries, SwiGLU) with a `score` head on the last token's state.
Three things differ from how such a graph is usually written; each is exact in real numbers:

- RMSNorm's gain is folded into the next matrix by the exporter, and its 1/rms, one number a token, multiplies that
  matrix's output: a row's int8 rounding does not change with the row's scale, so the normalised row is never written.
- The query's tokens come first in every pair, so their keys and values are computed once and given as `past`.
- In the last layer only the last token is needed; all but its keys and values run on one row.

`past` is (layers, 2, 1, kv_heads, prefix, head_dim) float32, [:, 0] keys and [:, 1] values; the outputs `keys_N` and
`values_N`, (1, kv_heads, prefix + tokens, head_dim), are what the next call's `past` is made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from dearlite.export.onnx.graph import CONTRIB, Graph
from dearlite.export.onnx.linear import LINEAR_WAYS, Linear, LinearWay
from dearlite.export.onnx.rotation import HADAMARD_BLOCK, hadamard


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """What of a model's configuration the graph depends on."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    epsilon: float
    frequencies: tuple[float, ...]  # rotary angle a position, for each pair of a head's dimensions
    max_tokens: int
    qkv_bias: bool = False


def llama_graph(shape: LlamaShape, way: str, last_way: str, *, block_hadamard: bool) -> Graph:
    """From ids (tokens,) and past to score (1, 1), for the layout "shared-prefix".

    `way` and `last_way` are entries of LINEAR_WAYS, the latter for the last layer's single row. With `block_hadamard`
    the down projection's input is multiplied by a Hadamard matrix in blocks (its weights have taken the inverse). The
    graph's weights are named only: `Graph.weights` maps them to their dtype and shape.
    """
    return _Writer(shape, LINEAR_WAYS[way], LINEAR_WAYS[last_way], block_hadamard).write()


class _Writer:
    def __init__(self, shape: LlamaShape, way: LinearWay, last_way: LinearWay, block_hadamard: bool) -> None:
        self.shape, self.way, self.last_way, self.block_hadamard = shape, way, last_way, block_hadamard
        self.g = Graph()
        self.count = ""  # names the number of rows that the linear layers see

    def write(self) -> Graph:
        g, s = self.g, self.shape
        ids = g.input("ids", "tokens")
        past = g.input("past", s.layers, 2, 1, s.kv_heads, "prefix", s.head_dim, dtype=TensorProto.FLOAT)
        self.count = g.add("Shape", ids)
        total = g.add("Cast", g.add("Add", self.count, g.add("Shape", past, start=4, end=5)), to=TensorProto.INT32)
        self.total = g.add("Squeeze", total)
        self.last_position = g.add("Sub", total, g.const("one_int32", np.array([1], np.int32)))  # GQA's seqlens_k
        angles = np.outer(np.arange(s.max_tokens), np.array(s.frequencies))
        self.cos = g.weight("rotary.cos", np.cos(angles).astype(np.float32))
        self.sin = g.weight("rotary.sin", np.sin(angles).astype(np.float32))
        x = self.embed(ids)
        for number in range(s.layers):
            x = self.layer(x, past, number, last=number == s.layers - 1)
        score = g.add("MatMul", x, g.weight("head", _spec(np.float32, s.hidden, 1)))
        g.output = g.add("Mul", score, self.inverse_rms(x))
        return g

    def embed(self, ids: str) -> str:
        """(tokens, hidden): a row of the table for each id, int8 rows times their scale where the weights are int8."""
        g, s = self.g, self.shape
        if not self.way.int8_weights:
            return g.add("Gather", g.weight("embedding", _spec(np.float32, s.vocabulary, s.hidden)), ids)
        rows = g.add("Gather", g.weight("embedding", _spec(np.int8, s.vocabulary, s.hidden)), ids)
        scale = g.add("Gather", g.weight("embedding.scale", _spec(np.float32, s.vocabulary, 1)), ids)
        return g.add("Mul", g.add("Cast", rows, to=TensorProto.FLOAT), scale)

    def layer(self, x: str, past: str, number: int, *, last: bool) -> str:
        g, s, at = self.g, self.shape, f"layer.{number}"
        width = (s.heads + 2 * s.kv_heads) * s.head_dim
        qkv = self.linear(x, f"{at}.qkv", s.hidden, width, self.inverse_rms(x))
        if s.qkv_bias:
            qkv = g.add("Add", qkv, g.weight(f"{at}.qkv.bias", _spec(np.float32, width)))
        attended = self.attention(qkv, past, number)
        way = self.way
        if last:
            attended, x = (self.last_row(value) for value in (attended, x))
            self.count, way = self.ints("one_row", 1), self.last_way
        x = g.add("Add", x, self.linear(attended, f"{at}.o", s.heads * s.head_dim, s.hidden, way=way))
        both = self.linear(x, f"{at}.gate_up", s.hidden, 2 * s.ffn, self.inverse_rms(x), way=way)
        gate, up = g.add_many("Split", both, outputs=2, axis=-1, num_outputs=2)
        product = g.add("Mul", g.add("QuickGelu", gate, domain=CONTRIB, alpha=1.0), up)  # SiLU(gate) * up
        if self.block_hadamard:
            product = self.hadamard(product)
        return g.add("Add", x, self.linear(product, f"{at}.down", s.ffn, s.hidden, way=way))

    def attention(self, qkv: str, past: str, number: int) -> str:
        """Causal grouped-query attention over the prefix and the row's own tokens; the operator rotates q and k."""
        g, s = self.g, self.shape
        both = g.add("Gather", past, self.index(number), axis=0)
        keys, values = (g.add("Gather", both, self.index(i), axis=0) for i in (0, 1))
        names = (f"attended_{number}", f"keys_{number}", f"values_{number}")
        batch = self.ints("batch_axis", 0)
        g.add_named(
            "GroupQueryAttention",
            (g.add("Unsqueeze", qkv, batch), "", "", keys, values, self.last_position, self.total, self.cos, self.sin),
            names,
            domain=CONTRIB,
            num_heads=s.heads,
            kv_num_heads=s.kv_heads,
            do_rotary=1,
        )
        g.extra_outputs += names[1:]
        return g.add("Squeeze", names[0], batch)

    def inverse_rms(self, x: str) -> str:
        """(tokens, 1): 1 / sqrt(mean(x^2) + epsilon)."""
        g = self.g
        squares = g.add("ReduceSumSquare", x, self.ints("last_axis", -1), keepdims=1)
        mean = g.add("Mul", squares, g.const("one_over_hidden", np.float32(1 / self.shape.hidden)))
        return g.add(
            "Reciprocal", g.add("Sqrt", g.add("Add", mean, g.const("epsilon", np.float32(self.shape.epsilon))))
        )

    def linear(
        self, x: str, name: str, inputs: int, outputs: int, factor: str | None = None, way: LinearWay | None = None
    ) -> str:
        way = way or self.way
        dtype = np.int8 if way.int8_weights else np.float32
        scale = _spec(np.float32, outputs) if way.int8_weights else None
        layer = Linear(name, _spec(dtype, inputs, outputs), scale)
        return way.write(self.g, x, self.count, layer, factor)

    def hadamard(self, x: str) -> str:
        g, n = self.g, HADAMARD_BLOCK
        blocks = g.add("Reshape", x, self.ints("in_blocks", -1, self.shape.ffn // n, n))
        mixed = g.add("MatMul", blocks, g.const("hadamard", hadamard(n).astype(np.float32)))
        return g.add("Reshape", mixed, self.ints("flat", -1, self.shape.ffn))

    def last_row(self, x: str) -> str:
        axis = self.ints("batch_axis", 0)
        return self.g.add("Slice", x, self.ints("last_axis", -1), self.ints("to_end", 2**31), axis)

    def index(self, value: int) -> str:
        return self.g.const(f"index_{value}", np.int64(value))

    def ints(self, name: str, *values: int) -> str:
        return self.g.const(name, np.array(values, np.int64))


def _spec(dtype: Any, *shape: int) -> Any:
    """An array of that dtype and shape without memory of its own: the weights are streamed, and only named here."""
    return np.broadcast_to(np.zeros((), dtype), shape)
