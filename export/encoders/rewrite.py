"""Converts a simplified encoder graph into the graph of the file: int8 or fp32 linear layers, external weights.

A product of all tokens with a constant matrix is a linear layer and is computed by an entry of LINEAR_WAYS, and so is a
product of the one token of a decoder. Layers that read the same value (query, key and value) become one product. The
head, which runs on one vector (1, width), stays in fp32, since it takes no time. All other nodes are copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from dearlite.export.encoders.bert import GELU_FLOOR
from dearlite.export.encoders.simplified_graph import IDS, TYPES, SimplifiedGraph
from dearlite.export.numerics.rounding import column_scales, pair_scales, round_pairs, round_to_nearest
from dearlite.export.onnx.graph import Graph
from dearlite.export.onnx.linear import LINEAR_WAYS, Linear
from dearlite.models.manifest import DTYPES

_LARGEST_CONSTANT = 64  # elements; larger constants are stored in weights.bin
_MOST_JOINED = 4  # products; all layers of a decoder read the encoder's output, and joined ones take memory


@dataclass(slots=True)
class _Product:
    """A MatMul of all tokens with a constant matrix, and the bias added to it, if any."""

    node: Any
    weight: str
    bias: str | None
    output: str  # the value with the bias added


class Rewriter:
    """Writes the graphs of one model over one set of weights: each matrix is quantised once for all graphs."""

    def __init__(self, graph: SimplifiedGraph, *, vocabulary: int) -> None:
        """`vocabulary` is the number of rows of the word table, which becomes int8 with one scale per row."""
        self.graph, self.vocabulary = graph, vocabulary
        self._groups = _groups(graph)
        self._layers: dict[tuple[Any, ...], Linear] = {}
        self._tables: dict[str, dict[str, Any]] = {}

    def write(self, way: str) -> Graph:
        """The graph from ids, and types if the model has them, (tokens,) to score (1, 1): layout "one-document"."""
        return _Writer(self, way).write()

    def layer(self, group: list[_Product], dtype: Any) -> Linear:
        """The group's matrices concatenated to one layer, its weight in `dtype`."""
        key = (*((product.weight, product.bias) for product in group), np.dtype(dtype).name)
        if key not in self._layers:
            values = self.graph.constants
            weight = np.concatenate([values[product.weight] for product in group], axis=1)
            floor = GELU_FLOOR if dtype is np.int8 and _comes_from_gelu(self.graph, group[0].node.input[0]) else None
            bias = None
            if floor is not None or any(product.bias for product in group):
                bias = np.concatenate([self._bias(product) for product in group])
            scale = None
            if dtype is np.int8:
                scale = pair_scales(weight)
                weight = round_pairs(weight, scale)
            layer = Linear(_name(group), weight.astype(dtype, copy=False), scale, bias, floor)
            self._layers[key] = layer
        return self._layers[key]

    def _bias(self, product: _Product) -> Any:
        values = self.graph.constants
        return np.zeros(values[product.weight].shape[1], np.float32) if product.bias is None else values[product.bias]

    def table(self, name: str) -> dict[str, Any]:
        """The word table `name` as int8 rows and their scales (rows, 1), by tensor name."""
        if name not in self._tables:
            table = self.graph.constants[name]
            scale = column_scales(table.T)[:, None]
            self._tables[name] = {f"{name}.rows": round_to_nearest(table, scale), f"{name}.scale": scale}
        return self._tables[name]


def _groups(graph: SimplifiedGraph) -> dict[int, list[_Product]]:
    """Id of a node -> the products that read the same input, in order, its own included."""
    users, values = graph.users(), graph.constants
    by_input: dict[str, list[_Product]] = {}
    for node in graph.nodes:
        if node.op_type != "MatMul" or not (graph.is_rows(node.input[0]) or graph.is_one_row(node.input[0])):
            continue
        weight = values.get(node.input[1])
        if weight is None or weight.ndim != 2 or weight.dtype != np.float32:
            continue
        product = _Product(node, node.input[1], None, node.output[0])
        readers = users.get(node.output[0], [])
        if len(readers) == 1 and readers[0].op_type == "Add":
            (other,) = [name for name in readers[0].input if name != node.output[0]] or [""]
            if other in values and values[other].shape == weight.shape[1:]:
                product.bias, product.output = other, readers[0].output[0]
        by_input.setdefault(node.input[0], []).append(product)
    groups = [g[n : n + _MOST_JOINED] for g in by_input.values() for n in range(0, len(g), _MOST_JOINED)]
    return {id(product.node): group for group in groups for product in group}


def _name(group: list[_Product]) -> str:
    """A name from the scopes of the exporter, as "bert.encoder.layer.0.attention.self.query+key+value"."""
    scopes = [product.node.name.strip("/").replace("/", ".").removesuffix(".MatMul") for product in group]
    return "+".join([scopes[0], *(scope.rpartition(".")[2] for scope in scopes[1:])])


def _comes_from_gelu(graph: SimplifiedGraph, name: str) -> bool:
    maker: Any = next((node for node in graph.nodes if name in node.output), None)
    if maker is None or maker.op_type != "Gelu":
        return False
    return not any(attribute.name == "approximate" and attribute.s != b"none" for attribute in maker.attribute)


class _Writer:
    def __init__(self, rewriter: Rewriter, way: str) -> None:
        self.rewriter, self.graph, self.way = rewriter, rewriter.graph, LINEAR_WAYS[way]
        self.g = Graph()
        self.names: dict[str, str] = {}  # value of the simplified graph -> its name in this graph, if another
        self.done: set[str] = set()  # outputs of the simplified graph that `linear` has computed

    def write(self) -> Graph:
        g, read = self.g, {name for node in self.graph.nodes for name in node.input}
        batch = g.const("batch_axis", np.array([0], np.int64))
        self.tokens = g.add("Shape", g.input("ids", "tokens"))
        self.names[IDS] = g.add("Unsqueeze", "ids", batch)
        if TYPES in read and not any(TYPES in node.output for node in self.graph.nodes):
            self.names[TYPES] = g.add("Unsqueeze", g.input("types", "tokens"), batch)
        for node in self.graph.nodes:
            if node.output[0] in self.done:
                continue
            group = self.rewriter._groups.get(id(node))
            if group is not None:
                self.linear(group)
            elif self.is_word_table(node):
                self.words(node)
            else:
                self.copy(node)
        g.output = self.names.get(self.graph.output, self.graph.output)
        return g

    def linear(self, group: list[_Product]) -> None:
        g, source = self.g, group[0].node.input[0]
        layer = self.rewriter.layer(group, np.int8 if self.way.int8_weights else np.float32)
        single = source in self.graph.first_token or self.graph.is_one_row(source)
        count = g.const("one_row", np.array([1], np.int64)) if single else self.tokens
        width = self.shape("rows", -1, layer.weight.shape[0])
        product = self.way.write(g, g.add("Reshape", self.value(source), width), count, layer)
        sides = [self.graph.constants[part.weight].shape[1] for part in group]
        outputs = [product]
        if len(group) > 1:
            split = self.shape("split", *sides)
            outputs = g.add_many("Split", product, split, outputs=len(group), axis=-1)
        for part, output, side in zip(group, outputs, sides, strict=True):
            self.names[part.output] = g.add("Reshape", output, self.shape("batch", 1, -1, side))
            self.done |= {part.node.output[0], part.output}

    def is_word_table(self, node: Any) -> bool:
        table = self.graph.constants.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or table.ndim != 2 or len(table) != self.rewriter.vocabulary:
            return False
        return self.way.int8_weights and bool(table.dtype == np.float32)

    def words(self, node: Any) -> None:
        g, (name, ids) = self.g, node.input
        rows, scale = (g.weight(label, value) for label, value in self.rewriter.table(name).items())
        values = g.add("Cast", g.add("Gather", rows, self.value(ids)), to=TensorProto.FLOAT)
        self.names[node.output[0]] = g.add("Mul", values, g.add("Gather", scale, self.value(ids)))

    def copy(self, node: Any) -> None:
        new = type(node)()
        new.CopyFrom(node)
        new.ClearField("doc_string")
        new.name = f"{node.op_type}_{len(self.g.nodes)}"
        del new.input[:]
        new.input.extend(self.value(name) for name in node.input)
        self.g.nodes.append(new)

    def value(self, name: str) -> str:
        """The value's name in this graph; a constant is added to it."""
        if name not in self.graph.constants:
            return self.names.get(name, name)
        value = self.graph.constants[name]
        small = value.size <= _LARGEST_CONSTANT or value.dtype.name not in DTYPES
        return self.g.const(name, value) if small else self.g.weight(name, value)

    def shape(self, prefix: str, *sides: int) -> str:
        return self.g.const("_".join([prefix, *map(str, sides)]), np.array(sides, np.int64))
