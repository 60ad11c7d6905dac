"""A plain encoder graph written anew as ours: its linear layers as int8 (or fp32) products, its weights outside.

Every product of all tokens with a constant matrix is a linear layer, and is computed by an entry of LINEAR_WAYS. Layers
that read the same value (query, key and value) become one product. What runs on a single row from the start, the head,
stays in fp32: it costs nothing. All else is taken over as it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from dearlite.export.encoders.bert import GELU_FLOOR
from dearlite.export.encoders.plain import IDS, TYPES, PlainGraph
from dearlite.export.onnx.graph import Graph
from dearlite.export.onnx.linear import LINEAR_WAYS, Linear
from dearlite.models.manifest import DTYPES

_LARGEST_CONSTANT = 64  # elements that still stand in the graph; what is larger goes to weights.bin


@dataclass(slots=True)
class _Product:
    """A MatMul of all tokens with a constant matrix, and the bias that is added to it, if one is."""

    node: Any
    weight: str
    bias: str | None
    output: str  # the value with the bias added


class Rewriter:
    """Writes graphs of one model over one set of weights: each is quantised once, whatever reads it."""

    def __init__(self, plain: PlainGraph, *, vocabulary: int) -> None:
        """`vocabulary` is the word table's count of rows: that table becomes int8 with one scale a row."""
        self.plain, self.vocabulary = plain, vocabulary
        self._groups = _groups(plain)
        self._layers: dict[tuple[Any, ...], Linear] = {}
        self._tables: dict[str, dict[str, Any]] = {}

    def write(self, way: str) -> Graph:
        """ids, and types where the model has them, (tokens,) -> score (1, 1): for the layout "one-document"."""
        return _Writer(self, way).write()

    def layer(self, group: list[_Product], dtype: Any) -> Linear:
        """The group's matrices side by side as one layer, its weight in `dtype`."""
        key = (*((product.weight, product.bias) for product in group), np.dtype(dtype).name)
        if key not in self._layers:
            values = self.plain.constants
            weight = np.concatenate([values[product.weight] for product in group], axis=1)
            floor = GELU_FLOOR if dtype is np.int8 and _comes_from_gelu(self.plain, group[0].node.input[0]) else None
            bias = None
            if floor is not None or any(product.bias for product in group):
                bias = np.concatenate([self._bias(product) for product in group])
            scale = None
            if dtype is np.int8:
                weight, scale = quantise(weight, axis=0)
            layer = Linear(_name(group), weight.astype(dtype, copy=False), scale, bias, floor)
            self._layers[key] = layer
        return self._layers[key]

    def _bias(self, product: _Product) -> Any:
        values = self.plain.constants
        return np.zeros(values[product.weight].shape[1], np.float32) if product.bias is None else values[product.bias]

    def table(self, name: str) -> dict[str, Any]:
        """The word table `name` as int8 rows and their scales (rows, 1), under their names."""
        if name not in self._tables:
            rows, scale = quantise(self.plain.constants[name], axis=1)
            self._tables[name] = {f"{name}.rows": rows, f"{name}.scale": scale[:, None]}
        return self._tables[name]


def quantise(values: Any, axis: int) -> tuple[Any, Any]:
    """int8 values and float32 scales of (in, out): one scale a column for axis 0, one a row for axis 1."""
    largest = np.maximum(values.max(axis=axis), -values.min(axis=axis))
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    quantised = np.empty(values.shape, np.int8)
    for start in range(0, len(values), 4096):  # in blocks: the rounding's temporary is fp32
        block = slice(start, start + 4096)
        quantised[block] = np.round(values[block] / (scale if axis == 0 else scale[block, None]))
    return quantised, scale


def _groups(plain: PlainGraph) -> dict[int, list[_Product]]:
    """Products by the id of their node; those of one input stand in one list, in their order."""
    users, values = plain.users(), plain.constants
    by_input: dict[str, list[_Product]] = {}
    for node in plain.nodes:
        if node.op_type != "MatMul" or not plain.is_rows(node.input[0]):
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
    return {id(product.node): group for group in by_input.values() for product in group}


def _name(group: list[_Product]) -> str:
    """Example: "bert.encoder.layer.0.attention.self.query+key+value", from the scopes that the exporter names."""
    scopes = [product.node.name.strip("/").replace("/", ".").removesuffix(".MatMul") for product in group]
    return "+".join([scopes[0], *(scope.rpartition(".")[2] for scope in scopes[1:])])


def _comes_from_gelu(plain: PlainGraph, name: str) -> bool:
    maker: Any = next((node for node in plain.nodes if name in node.output), None)
    if maker is None or maker.op_type != "Gelu":
        return False
    return not any(attribute.name == "approximate" and attribute.s != b"none" for attribute in maker.attribute)


class _Writer:
    def __init__(self, rewriter: Rewriter, way: str) -> None:
        self.rewriter, self.plain, self.way = rewriter, rewriter.plain, LINEAR_WAYS[way]
        self.g = Graph()
        self.names: dict[str, str] = {}  # values of the plain graph that have another name here
        self.done: set[str] = set()  # outputs that a group has written

    def write(self) -> Graph:
        g, read = self.g, {name for node in self.plain.nodes for name in node.input}
        batch = g.const("batch_axis", np.array([0], np.int64))
        self.tokens = g.add("Shape", g.input("ids", "tokens"))
        self.names[IDS] = g.add("Unsqueeze", "ids", batch)
        if TYPES in read and not any(TYPES in node.output for node in self.plain.nodes):
            self.names[TYPES] = g.add("Unsqueeze", g.input("types", "tokens"), batch)
        for node in self.plain.nodes:
            if node.output[0] in self.done:
                continue
            group = self.rewriter._groups.get(id(node))
            if group is not None:
                self.linear(group)
            elif self.is_word_table(node):
                self.words(node)
            else:
                self.copy(node)
        g.output = self.names.get(self.plain.output, self.plain.output)
        return g

    def linear(self, group: list[_Product]) -> None:
        g, source = self.g, group[0].node.input[0]
        layer = self.rewriter.layer(group, np.int8 if self.way.int8_weights else np.float32)
        count = g.const("one_row", np.array([1], np.int64)) if source in self.plain.first_token else self.tokens
        width = self.shape("rows", -1, layer.weight.shape[0])
        product = self.way.write(g, g.add("Reshape", self.value(source), width), count, layer)
        sides = [self.plain.constants[part.weight].shape[1] for part in group]
        parts = [product]
        if len(group) > 1:
            split = self.shape("split", *sides)
            parts = g.add_many("Split", product, split, outputs=len(group), axis=-1)
        for part, piece, side in zip(group, parts, sides, strict=True):
            self.names[part.output] = g.add("Reshape", piece, self.shape("batch", 1, -1, side))
            self.done |= {part.node.output[0], part.output}

    def is_word_table(self, node: Any) -> bool:
        table = self.plain.constants.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or table.ndim != 2 or len(table) != self.rewriter.vocabulary:
            return False
        return self.way.int8_weights and bool(table.dtype == np.float32)

    def words(self, node: Any) -> None:
        g, (name, ids) = self.g, node.input
        rows, scale = (g.weight(label, value) for label, value in self.rewriter.table(name).items())
        found = g.add("Cast", g.add("Gather", rows, self.value(ids)), to=TensorProto.FLOAT)
        self.names[node.output[0]] = g.add("Mul", found, g.add("Gather", scale, self.value(ids)))

    def copy(self, node: Any) -> None:
        new = type(node)()
        new.CopyFrom(node)
        new.ClearField("doc_string")
        new.name = f"{node.op_type}_{len(self.g.nodes)}"
        del new.input[:]
        new.input.extend(self.value(name) for name in node.input)
        self.g.nodes.append(new)

    def value(self, name: str) -> str:
        """The value's name in this graph; a constant is brought into it."""
        if name not in self.plain.constants:
            return self.names.get(name, name)
        value = self.plain.constants[name]
        small = value.size <= _LARGEST_CONSTANT or value.dtype.name not in DTYPES
        return self.g.const(name, value) if small else self.g.weight(name, value)

    def shape(self, what: str, *sides: int) -> str:
        return self.g.const("_".join([what, *map(str, sides)]), np.array(sides, np.int64))
