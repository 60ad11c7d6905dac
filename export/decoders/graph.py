"""The graph of a LLaMA-family scorer for a CPU: a document's token ids and its query's keys and values to one score.

The network is a pre-norm decoder (RMSNorm, rotary positions, grouped-query attention, SwiGLU) with the head `score` on
the last token's state. The graph differs from the usual form in three points, each exact in real arithmetic:

- The exporter folds RMSNorm's gain into the next matrix. Its 1/rms, one number per token, multiplies the output of that
  matrix: the int8 rounding of a row does not depend on the row's scale, so the normalised row is never computed.
- The query's tokens come first in every pair, so their keys and values are computed once and passed in as `past`.
- The last layer needs the last token only: apart from its keys and values it runs on one row.

`past` is (layers, 2, 1, kv_heads, prefix, head_dim) float32, [:, 0] keys and [:, 1] values. The outputs `keys_N` and
`values_N`, (1, kv_heads, prefix + tokens, head_dim), make up the `past` of the next call.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from dearlite.export.numerics.leading_directions import DIRECTIONS, copy_counts, sharing_matrix
from dearlite.export.numerics.rotation import HADAMARD_BLOCK, hadamard
from dearlite.export.onnx.graph import CONTRIB, Graph
from dearlite.export.onnx.linear import LINEAR_WAYS, Linear, LinearWay
from dearlite.export.source.families import LlamaShape


def llama_graph(shape: LlamaShape, way: str, last_way: str, *, block_hadamard: bool, leading: bool = False) -> Graph:
    """The graph from ids (tokens,) and past to score (1, 1), for the layout "shared-prefix".

    `way` and `last_way` are entries of LINEAR_WAYS, `last_way` for the single row of the last layer. With
    `block_hadamard` the down projection's input is multiplied by Hadamard matrices in blocks (its weights contain the
    inverse). With `leading` the leading directions of the residual stream have separate inputs
    (leading_directions.py). The graph holds no weights: `Graph.weights` maps their names to empty arrays of their dtype
    and shape.
    """
    return DecoderWriter(shape, LINEAR_WAYS[way], LINEAR_WAYS[last_way], block_hadamard, leading).write()


class DecoderWriter:
    """Writes the nodes of a decoder, layer by layer."""

    def __init__(
        self, shape: LlamaShape, way: LinearWay, last_way: LinearWay, block_hadamard: bool, leading: bool
    ) -> None:
        self.shape, self.way, self.last_way, self.block_hadamard = shape, way, last_way, block_hadamard
        self.leading = leading
        self.g = Graph()
        self.count = ""  # the value with the number of rows of the linear layers

    def write(self) -> Graph:
        g, s = self.g, self.shape
        ids = g.input("ids", "tokens")
        if not s.causal:
            return self.write_bidirectional(ids)
        past = g.input("past", s.layers, 2, 1, s.kv_heads, "prefix", s.head_dim, dtype=TensorProto.FLOAT)
        self.count = g.add("Shape", ids)
        total = g.add("Cast", g.add("Add", self.count, g.add("Shape", past, start=4, end=5)), to=TensorProto.INT32)
        self.total = g.add("Squeeze", total)
        self.last_position = g.add("Sub", total, g.const("one_int32", np.array([1], np.int32)))  # GQA's seqlens_k
        self.add_angles()
        x = embed(g, s, self.way, ids)
        for number in range(s.layers):
            x = self.layer(x, past, number, last=number == s.layers - 1)
        g.output = self.scores(x)
        return g

    def write_bidirectional(self, ids: str) -> Graph:
        """The graph from ids (tokens,) to score (1, 1), the mean of the tokens' scores, for the layout "one-document".

        Every token depends on the document, so that nothing is shared between documents.
        """
        g, s = self.g, self.shape
        self.count = g.add("Shape", ids)
        self.add_angles()
        x = embed(g, s, self.way, ids)
        for number in range(s.layers):
            x = self.layer(x, None, number, last=False)
        g.output = g.add("ReduceMean", self.scores(x), self.ints("batch_axis", 0), keepdims=1)
        return g

    def add_angles(self) -> None:
        angles = np.outer(np.arange(self.shape.max_tokens), np.array(self.shape.frequencies))
        self.cos = self.g.weight("rotary.cos", np.cos(angles).astype(np.float32))
        self.sin = self.g.weight("rotary.sin", np.sin(angles).astype(np.float32))

    def scores(self, x: str) -> str:
        """(rows, 1): the head on each row of `x`, normalised."""
        score = self.g.add("MatMul", x, self.g.weight("head", spec(np.float32, self.shape.hidden, 1)))
        return self.g.add("Mul", score, self.inverse_rms(x))

    def attention_inputs(self, x: str, number: int) -> list[str]:
        """q, k and v of a layer, each (tokens, heads * head_dim), or a single value with the three concatenated."""
        g, s, prefix = self.g, self.shape, f"layer.{number}"
        width = (s.heads + 2 * s.kv_heads) * s.head_dim
        (qkv,) = self.normed_linear(x, f"{prefix}.qkv", (f"{prefix}.qkv",), width, self.way)
        if s.qkv_bias:
            qkv = g.add("Add", qkv, g.weight(f"{prefix}.qkv.bias", spec(np.float32, width)))
        return self.normed_heads(qkv, prefix) if s.head_norms else [qkv]

    def layer(self, x: str, past: str | None, number: int, *, last: bool) -> str:
        g, s, prefix = self.g, self.shape, f"layer.{number}"
        inputs = self.attention_inputs(x, number)
        attended = self.full_attention(inputs) if past is None else self.attention(inputs, past, number)
        way = self.way
        if last:
            attended, x = (self.last_row(value) for value in (attended, x))
            self.count, way = self.ints("one_row", 1), self.last_way
        x = g.add("Add", x, self.linear(attended, f"{prefix}.o", s.heads * s.head_dim, s.hidden, way=way))
        gate, up = self.normed_linear(x, f"{prefix}.gate_up", (f"{prefix}.gate", f"{prefix}.up"), s.ffn, way)
        product = g.add("Mul", activated(g, s, gate), up)
        if self.block_hadamard:
            product = self.hadamard(product)
        return g.add("Add", x, self.linear(product, f"{prefix}.down", s.ffn, s.hidden, way=way))

    def normed_heads(self, qkv: str, prefix: str) -> list[str]:
        q, k, v = split_heads(self.g, self.shape, qkv)
        gains = [
            self.g.weight(f"{prefix}.{name}", spec(np.float32, self.shape.head_dim)) for name in ("q_norm", "k_norm")
        ]
        return [*(head_norm(self.g, self.shape, *pair, sides=1) for pair in zip((q, k), gains, strict=True)), v]

    def attention(self, inputs: list[str], past: str, number: int) -> str:
        """Causal grouped-query attention over the prefix and the row's own tokens; the operator rotates q and k.

        `inputs` are those of `attention_inputs`.
        """
        g, s = self.g, self.shape
        keys, values = self.cache(past, number)
        names = (f"attended_{number}", f"keys_{number}", f"values_{number}")
        batch = self.ints("batch_axis", 0)
        qkv = [g.add("Unsqueeze", value, batch) for value in inputs] + [""] * (3 - len(inputs))
        g.add_named(
            "GroupQueryAttention",
            (*qkv, keys, values, self.last_position, self.total, self.cos, self.sin),
            names,
            domain=CONTRIB,
            num_heads=s.heads,
            kv_num_heads=s.kv_heads,
            do_rotary=1,
        )
        g.extra_outputs += names[1:]
        return g.add("Squeeze", names[0], batch)

    def cache(self, past: str, number: int) -> tuple[str, str]:
        """The prefix's keys and values of a layer, each (1, kv_heads, prefix, head_dim)."""
        cache = self.g.add("Gather", past, self.index(number), axis=0)
        keys, values = (self.g.add("Gather", cache, self.index(i), axis=0) for i in (0, 1))
        return keys, values

    def full_attention(self, inputs: list[str]) -> str:
        """Grouped-query attention of all tokens to all; `inputs` as for `attention`."""
        g, s = self.g, self.shape
        q, k, v = inputs if len(inputs) == 3 else split_heads(g, s, inputs[0])
        batch, first = self.ints("batch_axis", 0), self.ints("first_position", 0)
        q, k, v = (g.add("Unsqueeze", value, batch) for value in (q, k, v))
        q, k = (g.add("RotaryEmbedding", value, first, self.cos, self.sin, domain=CONTRIB) for value in (q, k))
        k, v = (self.repeated(value) for value in (k, v))
        attended = g.add("MultiHeadAttention", q, k, v, domain=CONTRIB, num_heads=s.heads)
        return g.add("Squeeze", attended, batch)

    def repeated(self, heads: str) -> str:
        """(1, tokens, kv_heads * head_dim) as (1, tokens, heads * head_dim): each head for all of its group."""
        g, s = self.g, self.shape
        groups = s.heads // s.kv_heads
        if groups == 1:
            return heads
        apart = g.add("Reshape", heads, self.ints("heads_apart", 0, -1, s.kv_heads, 1, s.head_dim))
        copies = g.add("Expand", apart, self.ints("copies", 1, 1, 1, groups, 1))
        return g.add("Reshape", copies, self.ints("heads_together", 0, -1, s.heads * s.head_dim))

    def inverse_rms(self, x: str) -> str:
        """(tokens, 1): 1 / sqrt(mean(x^2) + epsilon)."""
        # The norm operator's second output; while its first is unused, it takes a third of ReduceSumSquare's time.
        ones = self.g.const("ones", np.ones(self.shape.hidden, np.float32))
        norm = "SimplifiedLayerNormalization"
        return self.g.add_many(norm, x, ones, outputs=2, axis=-1, epsilon=self.shape.epsilon)[1]

    def normed_linear(self, x: str, group: str, names: tuple[str, ...], outputs: int, way: LinearWay) -> list[str]:
        """The products of RMSNorm(x) with matrices of `outputs` columns each, which read the residual stream.

        The matrices share the rounding of x and its leading directions, the tensor `group`.leading.
        """
        s, factor, inputs = self.shape, self.inverse_rms(x), self.shape.hidden
        if self.leading:
            directions = self.g.weight(f"{group}.leading", spec(np.float32, s.hidden, DIRECTIONS))
            x = write_extended(self.g, x, directions, s.hidden, np.float32)
            inputs += sum(copy_counts(s.hidden))
        return [self.linear(x, name, inputs, outputs, factor, way) for name in names]

    def linear(
        self, x: str, name: str, inputs: int, outputs: int, factor: str | None = None, way: LinearWay | None = None
    ) -> str:
        way = way or self.way
        scale = spec(np.float32, outputs) if way.int8_weights else None
        layer = Linear(name, spec(way.weights, inputs, outputs), scale)
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


def activated(g: Graph, s: LlamaShape, gate: str) -> str:
    """The activation of the feed-forward gate."""
    if s.activation == "silu":
        return g.add("QuickGelu", gate, domain=CONTRIB, alpha=1.0)
    return g.add("Gelu", gate, approximate="tanh" if s.activation == "gelu_pytorch_tanh" else "none")


def embed(g: Graph, s: LlamaShape, way: LinearWay, ids: str) -> str:
    """(*ids, hidden) float32: the table's row of each id, times its scale if the weights are int8."""
    rows = g.add("Gather", g.weight("embedding", spec(way.weights, s.vocabulary, s.hidden)), ids)
    if way.weights is np.float32:
        return rows
    rows = g.add("Cast", rows, to=TensorProto.FLOAT)
    if not way.int8_weights:
        return rows
    scale = g.add("Gather", g.weight("embedding.scale", spec(np.float32, s.vocabulary, 1)), ids)
    return g.add("Mul", rows, scale)


def split_heads(g: Graph, s: LlamaShape, qkv: str) -> list[str]:
    """q, k and v from one value that has them concatenated on the last axis."""
    sizes = np.array([s.heads * s.head_dim, s.kv_heads * s.head_dim, s.kv_heads * s.head_dim], np.int64)
    return g.add_many("Split", qkv, g.const("qkv_sizes", sizes), outputs=3, axis=-1)


def head_norm(g: Graph, s: LlamaShape, x: str, gain: str, *, sides: int) -> str:
    """RMSNorm of every head; x is (heads * head_dim) on its last axis, after `sides` other axes."""
    kept = [0] * sides  # in Reshape, 0 keeps an axis
    heads = g.add("Reshape", x, g.const(f"in_heads_{sides}", np.array([*kept, -1, s.head_dim], np.int64)))
    normed = g.add("SimplifiedLayerNormalization", heads, gain, axis=-1, epsilon=s.epsilon)
    return g.add("Reshape", normed, g.const(f"heads_joined_{sides}", np.array([*kept, -1], np.int64)))


def spec(dtype: Any, *shape: int) -> Any:
    """An array of that dtype and shape without memory: the exporter streams the weights, a graph only names them."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def write_extended(g: Graph, x: str, directions: str, inputs: int, kind: Any) -> str:
    """extended(x) over the last axis, see leading_directions.py; `directions` names V, of the dtype `kind`."""
    components = g.add("MatMul", x, directions)
    rest = g.add("Sub", x, g.add("MatMul", components, g.once("Transpose", directions)))
    shared = g.add("MatMul", components, g.const(f"sharing_{inputs}", sharing_matrix(inputs).astype(kind)))
    return g.add("Concat", rest, shared, axis=-1)
