"""The graph of an attention reranker for a CPU: token ids to the attention that positions get from the last tokens.

The network is that of graph.py without a head, up to the last layer of which a head is read. Of this layer only q and k
are computed: no values, no output, no feed-forward part. A prompt is read in several calls, each with the keys and
values of the calls before as `past_keys_N` and `past_values_N`, (1, kv_heads, prefix, head_dim) float32; `keys_N` and
`values_N` are those of the next call. So the documents are computed once for all queries after them.

`score`, (prefix + tokens, 1), is the sum of the attention weights over the chosen heads and the last `rows` tokens, for
each position. In exact arithmetic it does not depend on the cut into calls.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import TensorProto

from dearlite.export.decoders.graph import DecoderWriter, embed, split_heads
from dearlite.export.onnx.graph import CONTRIB, Graph
from dearlite.export.onnx.linear import LINEAR_WAYS
from dearlite.export.source.families import LlamaShape

_UNSEEN = np.float32(-1e30)  # added to the logit of a later position: its weight is 0

Heads = Mapping[int, tuple[int, ...]]  # layer -> heads of it


def attention_graph(shape: LlamaShape, heads: Heads, way: str, *, block_hadamard: bool, leading: bool = False) -> Graph:
    """The graph from ids (tokens,), rows (1,) and the past to score, for the layout "attention".

    The layers of `shape` end with the last one of `heads`. The other arguments are those of `llama_graph`.
    """
    return _AttentionWriter(shape, heads, way, block_hadamard, leading).write()


class _AttentionWriter(DecoderWriter):
    def __init__(self, shape: LlamaShape, heads: Heads, way: str, block_hadamard: bool, leading: bool) -> None:
        assert shape.causal and max(heads) == shape.layers - 1, "the last layer has a head that is read"
        super().__init__(shape, LINEAR_WAYS[way], LINEAR_WAYS[way], block_hadamard, leading)
        self.heads = heads
        self.sums: list[str] = []  # of the weights, (prefix + tokens,) for each layer

    def write(self) -> Graph:
        g, s = self.g, self.shape
        ids, self.rows = g.input("ids", "tokens"), g.input("rows", 1)
        for number in range(s.layers):
            for name in self.past_names(number):
                g.input(name, 1, s.kv_heads, "prefix", s.head_dim, dtype=TensorProto.FLOAT)
        self.count = g.add("Shape", ids)
        self.first = g.add("Shape", "past_keys_0", start=2, end=3)
        self.positions = g.add("Add", self.count, self.first)
        total = g.add("Cast", self.positions, to=TensorProto.INT32)
        self.total = g.add("Squeeze", total)
        self.last_position = g.add("Sub", total, g.const("one_int32", np.array([1], np.int32)))  # GQA's seqlens_k
        self.add_angles()
        self.add_mask()
        x = embed(g, s, self.way, ids)
        for number in range(s.layers - 1):
            x = self.layer(x, "past", number, last=False)
        self.end(x, s.layers - 1)
        sums = self.sums[0] if len(self.sums) == 1 else g.add("Sum", *self.sums)
        g.output = g.add("Unsqueeze", sums, self.ints("column", 1))
        return g

    def past_names(self, number: int) -> tuple[str, ...]:
        """The inputs of a layer; the last one has no values."""
        return (f"past_keys_{number}", f"past_values_{number}")[: 1 if number == self.shape.layers - 1 else 2]

    def cache(self, past: str, number: int) -> tuple[str, str]:
        keys, values = self.past_names(number)
        return keys, values

    def add_mask(self) -> None:
        """(rows, prefix + tokens) float32: 0 where a row's token sees the position, `_UNSEEN` behind it."""
        g = self.g
        self.first_row = g.add("Sub", self.positions, self.rows)
        zero, step, end = g.const("zero", np.int64(0)), g.const("step", np.int64(1)), g.add("Squeeze", self.positions)
        keys = g.add("Range", zero, end, step)
        rows = g.add("Unsqueeze", g.add("Range", g.add("Squeeze", self.first_row), end, step), self.ints("column", 1))
        seen = g.add("LessOrEqual", keys, rows)
        self.mask = g.add("Where", seen, g.const("seen", np.float32(0)), g.const("unseen", _UNSEEN))

    def attention(self, inputs: list[str], past: str, number: int) -> str:
        attended = super().attention(inputs, past, number)
        if number in self.heads:
            self.sums.append(self.weight_sums(inputs, f"keys_{number}", number))
        return attended

    def end(self, x: str, number: int) -> None:
        """The last layer, of which only the keys and the weights are needed."""
        g, s = self.g, self.shape
        inputs = self.attention_inputs(x, number)
        k = (inputs if len(inputs) == 3 else split_heads(g, s, inputs[0]))[1]
        k = self.rotated(k, self.first, s.kv_heads)  # (kv_heads, tokens, head_dim)
        k = g.add("Unsqueeze", k, self.ints("batch_axis", 0))
        g.add_named("Concat", (self.past_names(number)[0], k), [f"keys_{number}"], axis=2)
        g.extra_outputs.append(f"keys_{number}")
        self.sums.append(self.weight_sums(inputs, f"keys_{number}", number))

    def rotated(self, value: str, first: str, heads: int) -> str:
        """(tokens, heads * head_dim) as (heads, tokens, head_dim), rotated from position `first` on."""
        g = self.g
        value = g.add("Unsqueeze", value, self.ints("batch_axis", 0))
        value = g.add("RotaryEmbedding", value, first, self.cos, self.sin, domain=CONTRIB)
        apart = g.add("Reshape", value, self.ints(f"apart_{heads}", -1, heads, self.shape.head_dim))
        return g.add("Transpose", apart, perm=[1, 0, 2])

    def weight_sums(self, inputs: list[str], keys: str, number: int) -> str:
        """(prefix + tokens,): the weights of the layer's chosen heads for the last rows, summed."""
        g, s, chosen = self.g, self.shape, self.heads[number]
        start = g.once("Neg", self.rows)
        to_end, axis = self.ints("to_end", 2**31), self.ints("batch_axis", 0)
        q = g.add("Slice", inputs[0], start, to_end, axis)
        if len(inputs) == 1:
            q = split_heads(g, s, q)[0]
        q = self.rotated(q, self.first_row, s.heads)
        k = g.add("Squeeze", keys, axis)  # (kv_heads, positions, head_dim)
        if len(chosen) == s.heads:  # the heads of a group are rows beside each other: no copy of the keys
            q = g.add("Reshape", q, self.ints("in_groups", s.kv_heads, -1, s.head_dim))
        else:
            groups = s.heads // s.kv_heads
            q = g.add("Gather", q, self.ints(f"heads_{number}", *chosen), axis=0)
            k = g.add("Gather", k, self.ints(f"groups_{number}", *(head // groups for head in chosen)), axis=0)
        scale = float(s.head_dim**-0.5)
        logits = g.add("FusedMatMul", q, k, domain=CONTRIB, transB=1, alpha=scale)
        logits = g.add("Reshape", logits, self.ints(f"heads_apart_{len(chosen)}", len(chosen), -1, 0))
        weights = g.add("Softmax", g.add("Add", logits, self.mask), axis=-1)
        return g.add("ReduceSum", weights, self.ints("heads_and_rows", 0, 1), keepdims=0)
