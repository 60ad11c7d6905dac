"""The graphs of a BERT cross-encoder from token ids to scores, in the two layouts that the runtime feeds.

The network is a post-LayerNorm encoder (Devlin et al., 2018), pooled at the first token: tanh(W h + b), then a linear
classifier. The last layer needs the first token only, so its query, output and feed-forward run on one row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from dearlite.export.onnx.graph import CONTRIB, Graph
from dearlite.export.onnx.linear import LINEAR_WAYS, Linear

GELU_FLOOR = -0.17  # below the minimum of GELU, -0.16997


@dataclass(frozen=True, slots=True)
class Norm:
    """LayerNorm's gain and bias, both float32 (hidden,)."""

    gain: Any
    bias: Any


@dataclass(frozen=True, slots=True)
class Embedding:
    """An embedding table of u8 rows (entries, hidden): value = (q - zero) * scale."""

    table: Any
    scale: float
    zero: int


@dataclass(frozen=True, slots=True)
class BertLayer:
    """The parameters of an encoder layer; matrices are int8 (in, out)."""

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    attention_norm: Norm
    up: Linear
    down: Linear
    norm: Norm


@dataclass(frozen=True, slots=True)
class BertModel:
    """The parameters of a classifier with one label."""

    words: Embedding
    positions: Embedding
    types: Embedding
    norm: Norm
    layers: tuple[BertLayer, ...]
    pooler: Linear
    classifier: Linear
    heads: int
    epsilon: float


def one_document_graph(model: BertModel, way: str) -> Graph:
    """The graph from ids and types, (tokens,), to score (1, 1): layout "one-document". `way` is from LINEAR_WAYS."""
    return _Writer(model, way, batched=False, half=False).write()


def padded_graph(model: BertModel, way: str) -> Graph:
    """The graph from ids, types and mask, (rows, tokens), to score (rows, 1): layout "padded".

    The way "dequantised-half" computes in fp16.
    """
    return _Writer(model, way, batched=True, half=way == "dequantised-half").write()


class _Writer:
    def __init__(self, model: BertModel, way: str, *, batched: bool, half: bool) -> None:
        self.model, self.way, self.batched, self.half = model, LINEAR_WAYS[way].write, batched, half
        self.g = Graph()
        self.count = ""  # the value with the number of rows of the linear layers
        self.float = np.float16 if half else np.float32

    def write(self) -> Graph:
        g, shape = self.g, ["rows", "tokens"] if self.batched else ["tokens"]
        ids, types = g.input("ids", *shape), g.input("types", *shape)
        if self.batched:
            self.mask = g.add("Cast", g.input("mask", *shape), to=TensorProto.INT32)
        x = self.embed(ids, types)
        for number, layer in enumerate(self.model.layers):
            x = self.layer(x, layer, f"layer.{number}", last=number == len(self.model.layers) - 1)
        g.output = self.head(x)
        return g

    def embed(self, ids: str, types: str) -> str:
        """(…, tokens, hidden): the normalised sum of the embeddings of word, position and type."""
        g = self.g
        self.count = length = g.add("Shape", ids, start=self.token_axis)  # (1,): tokens
        positions = g.add("Slice", self.table("positions", self.model.positions), self.ints("from_0", 0), length)
        x = g.add(
            "Add", self.rows("words", self.model.words, ids), self.unpack(positions, self.model.positions, "positions")
        )
        x = g.add("Add", x, self.rows("types", self.model.types, types))
        x = self.norm(x, self.model.norm, "embedding_norm", half=False)
        return g.add("Cast", x, to=TensorProto.FLOAT16) if self.half else x

    def layer(self, x: str, layer: BertLayer, name: str, *, last: bool) -> str:
        g = self.g
        q_bias, k_bias, v_bias = layer.query.bias, layer.key.bias, layer.value.bias
        bias = g.weight(f"{name}.qkv.bias" + self.suffix, np.concatenate([q_bias, k_bias, v_bias]).astype(self.float))
        if last:
            pair = self.linear(x, _joined(f"{name}.kv", layer.key, layer.value))
            k, v = self.split(pair, 2)
            x = g.add(
                "Slice", x, self.ints("from_0", 0), self.ints("to_1", 1), self.ints("token_axis", self.token_axis)
            )
            self.count = self.ints("to_1", 1)
            q = self.linear(x, _joined(f"{name}.q", layer.query))
        else:
            q, k, v = self.split(self.linear(x, _joined(f"{name}.qkv", layer.query, layer.key, layer.value)), 3)
        x = self.add_norm(
            self.linear(self.attention(q, k, v, bias), layer.output), x, layer.attention_norm, f"{name}.attention_norm"
        )
        wide = g.add("Gelu", self.linear(x, layer.up), domain=CONTRIB)
        return self.add_norm(self.linear(wide, layer.down), x, layer.norm, f"{name}.norm")

    def attention(self, q: str, k: str, v: str, bias: str) -> str:
        """Attention between all tokens of a document; the operator adds the biases of q, k and v."""
        g, heads = self.g, self.model.heads
        if self.batched:
            return g.add("MultiHeadAttention", q, k, v, bias, self.mask, domain=CONTRIB, num_heads=heads)
        axis = self.ints("batch_axis", 0)
        q, k, v = (g.add("Unsqueeze", each, axis) for each in (q, k, v))
        out = g.add("MultiHeadAttention", q, k, v, bias, domain=CONTRIB, num_heads=heads)
        return g.add("Squeeze", out, axis)

    def head(self, x: str) -> str:
        """First tokens (rows, hidden) -> scores (rows, 1), in fp32, since a single row takes no time."""
        g = self.g
        if self.batched:
            x = g.add("Squeeze", x, self.ints("token_axis", 1))
        if self.half:
            x = g.add("Cast", x, to=TensorProto.FLOAT)
        fp32 = LINEAR_WAYS["dequantised"].write
        pooled = g.add("Tanh", fp32(g, x, self.count, self.model.pooler))
        return fp32(g, pooled, self.count, self.model.classifier)

    def linear(self, x: str, layer: Linear) -> str:
        return self.way(self.g, x, self.count, layer)

    def add_norm(self, x: str, residual: str, norm: Norm, name: str) -> str:
        # Not SkipLayerNormalization: on the CPU it takes eight times as long as these two.
        return self.norm(self.g.add("Add", x, residual), norm, name, half=self.half)

    def norm(self, x: str, norm: Norm, name: str, *, half: bool) -> str:
        kind, suffix = (np.float16, self.suffix) if half else (np.float32, "")
        gain = self.g.weight(f"{name}.gain{suffix}", norm.gain.astype(kind))
        bias = self.g.weight(f"{name}.bias{suffix}", norm.bias.astype(kind))
        return self.g.add("LayerNormalization", x, gain, bias, axis=-1, epsilon=self.model.epsilon)

    def rows(self, name: str, embedding: Embedding, ids: str) -> str:
        return self.unpack(self.g.add("Gather", self.table(name, embedding), ids), embedding, name)

    def unpack(self, rows: str, embedding: Embedding, name: str) -> str:
        scale = self.g.const(f"{name}.scale", np.float32(embedding.scale))
        return self.g.add("DequantizeLinear", rows, scale, self.g.const(f"{name}.zero", np.uint8(embedding.zero)))

    def table(self, name: str, embedding: Embedding) -> str:
        return self.g.weight(f"{name}.table", embedding.table)

    def split(self, x: str, parts: int) -> list[str]:
        return self.g.add_many("Split", x, outputs=parts, axis=-1, num_outputs=parts)

    def ints(self, name: str, *values: int) -> str:
        return self.g.const(name, np.array(values, np.int64))

    @property
    def token_axis(self) -> int:
        return 1 if self.batched else 0

    @property
    def suffix(self) -> str:
        return ".half" if self.half else ""


def _joined(name: str, *parts: Linear) -> Linear:
    """Layers with the same input as one product; attention adds their biases."""
    weight = np.concatenate([p.weight for p in parts], axis=1)
    return Linear(name, weight, np.concatenate([p.scale for p in parts]))
