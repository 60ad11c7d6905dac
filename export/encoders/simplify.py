"""Simplifies an exported encoder's graph for one document per call: no padding mask, no branches, no constant nodes.

This module handles ONNX nodes and shapes, never a model's name. It runs the graph at a few lengths: a value that
depends on shapes only and is equal at all lengths is a constant, and a branch that is never taken is removed. The
caller compares the result with the model itself, so that an error of this module is reported and never reaches a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo
from onnx.reference import ReferenceEvaluator

from dearlite.export.encoders.simplified_graph import IDS, MASK, SHORT, TYPES, SimplifiedGraph
from dearlite.export.onnx.graph import OPSET
from dearlite.pointwise.onnxruntime import onnxruntime

Feeds = Callable[[int], dict[str, Any]]  # tokens -> the exported graph's inputs, (1, tokens) int64 each


def simplify(path: Path, feeds: Feeds, *, longest: int, types_used: bool) -> SimplifiedGraph:
    """The graph of the ONNX file `path`, without its padding mask and without nodes of constant value.

    `longest` is a third length for the comparison of values, in tokens. With `types_used` False all token types are 0.
    Raises ValueError for a graph with branches that depend on the text.
    """
    graph = onnx.load(str(path), load_external_data=False).graph
    constants = {tensor.name: _value(tensor, path.parent) for tensor in graph.initializer}
    _load_external_values(graph.node, path.parent)
    names = [name for node in graph.node for name in node.output if name]
    runs = [_run(path, names, feeds(length)) for length in SHORT]
    shapes = {name: tuple(run[name].shape for run in runs) for name in names}
    shapes |= dict.fromkeys((IDS, TYPES, MASK), ((1, SHORT[0]), (1, SHORT[1])))
    first, second = runs
    stable = [
        name
        for name in _shape_values(graph.node, set(constants))
        if shapes[name][0] == shapes[name][1] and np.array_equal(first[name], second[name])
    ]
    long = _run(path, stable, feeds(longest)) if stable else {}
    known = {name: first[name] for name in stable if np.array_equal(first[name], long[name])}
    simplifier = _Simplifier(constants, known)
    simplifier.uniform[MASK] = np.array(1, np.int64)
    if not types_used:
        simplifier.uniform[TYPES] = np.array(0, np.int64)
    simplifier.visit(graph.node)
    output = simplifier.name(graph.output[0].name)
    simplified = SimplifiedGraph(
        [*_constant_inputs(simplifier.uniform), *simplifier.nodes], simplifier.constants, output, shapes
    )
    simplified.prune()
    return simplified


def move_weights_out(path: Path) -> None:
    """Moves the weights of an ONNX file into a separate file beside it, so that it can be opened without them."""
    model = onnx.load(str(path), load_external_data=False)
    if not any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
        onnx.save_model(model, str(path), save_as_external_data=True, location=f"{path.name}.weights")


def _value(tensor: Any, folder: Path) -> Any:
    if tensor.data_location != TensorProto.EXTERNAL:
        return numpy_helper.to_array(tensor)
    data, dtype = ExternalDataInfo(tensor), helper.tensor_dtype_to_np_dtype(tensor.data_type)
    count = prod(tensor.dims)
    return np.fromfile(folder / data.location, dtype, count, offset=data.offset or 0).reshape(tensor.dims)


def _load_external_values(nodes: Iterable[Any], folder: Path) -> None:
    """Copies values of constant nodes back into the nodes; exporters of large models store them in another file."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t") and attribute.t.data_location == TensorProto.EXTERNAL:
                attribute.t.CopyFrom(numpy_helper.from_array(_value(attribute.t, folder)))
        for branch in _branches(node).values():
            _load_external_values(branch.node, folder)


def _run(path: Path, names: Sequence[str], feeds: dict[str, Any]) -> dict[str, Any]:
    """Name -> value, for the values `names` of the graph when it is run on `feeds`."""
    ort = onnxruntime()
    model = onnx.load(str(path), load_external_data=False)
    del model.graph.output[:]
    model.graph.output.extend(ValueInfoProto(name=name) for name in names)
    probe = path.with_name("probe.onnx")  # in the same folder, because it refers to the weights by file name
    onnx.save(model, str(probe))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(str(probe), options, providers=["CPUExecutionProvider"])
    inputs = {node.name for node in session.get_inputs()}
    values = session.run(list(names), {name: value for name, value in feeds.items() if name in inputs})
    probe.unlink()
    return dict(zip(names, values, strict=True))


def _shape_values(nodes: Iterable[Any], constants: set[str]) -> list[str]:
    """The names of the values that depend only on constants and on the shapes of other values."""
    fixed, values = set(constants), []
    for node in nodes:
        if node.op_type == "Shape" or (not _branches(node) and all(name in fixed for name in node.input if name)):
            fixed.update(node.output)
            values += [name for name in node.output if name] if node.op_type != "Constant" else []
    return values


def _constant_inputs(uniform: dict[str, Any]) -> list[Any]:
    """Nodes in place of the inputs that the graph no longer has: ones for the mask, zeros for unused types."""
    shape = helper.make_node("Shape", [IDS], ["padding_shape"])
    fill = [
        helper.make_node("ConstantOfShape", ["padding_shape"], [name], value=numpy_helper.from_array(value.reshape(1)))
        for name in (MASK, TYPES)
        if (value := uniform.get(name)) is not None
    ]
    return [shape, *fill]


# Operators that move or repeat the values of their first input, whatever their other inputs are.
_CARRIERS = {"Unsqueeze", "Squeeze", "Expand", "Reshape", "Slice", "Transpose", "Tile", "Identity"}
_ELEMENTWISE = {
    *("Add", "Sub", "Mul", "Div", "Min", "Max", "Pow", "Neg", "Sqrt", "Cast", "Where"),
    *("Not", "And", "Or", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"),
}
# operator -> (position of the neutral operand, its value, position of the other operand)
_NEUTRAL: dict[str, tuple[tuple[int, float, int], ...]] = {
    "Add": ((0, 0, 1), (1, 0, 0)),
    "Sub": ((1, 0, 0),),
    "Mul": ((0, 1, 1), (1, 1, 0)),
    "Div": ((1, 1, 0),),
}


class _Simplifier:
    """A pass over the nodes: computes constants, tracks values whose elements are all equal, merges equal nodes."""

    def __init__(self, constants: dict[str, Any], known: dict[str, Any]) -> None:
        self.constants, self.known = dict(constants), known
        self.nodes: list[Any] = []
        self.uniform: dict[str, Any] = {}  # value -> the number that all of its elements equal
        self.renamed: dict[str, str] = {}
        self.seen: dict[tuple[Any, ...], list[str]] = {}

    def name(self, name: str) -> str:
        return self.renamed.get(name, name)

    def visit(self, nodes: Iterable[Any]) -> None:
        for original in nodes:
            if all(name in self.known for name in original.output):
                self.constants |= {name: self.known[name] for name in original.output}
                continue
            if branches := _branches(original):
                self._branch(original, branches)
                continue
            node = type(original)()
            node.CopyFrom(original)
            del node.input[:]
            node.input.extend(self.name(name) for name in original.input)
            if not self._drop(node):
                self._keep(node)

    def _branch(self, node: Any, branches: dict[str, Any]) -> None:
        condition = self.constants.get(self.name(node.input[0])) if node.op_type == "If" else None
        if condition is None:
            raise ValueError(f"a branch ({node.op_type}) whose condition depends on the text")
        taken = branches["then_branch" if condition.all() else "else_branch"]
        self.constants |= {tensor.name: numpy_helper.to_array(tensor) for tensor in taken.initializer}
        self.visit(taken.node)
        for outside, inside in zip(node.output, taken.output, strict=True):
            self.renamed[outside] = self.name(inside.name)

    def _drop(self, node: Any) -> bool:
        """True if the outputs of the node equal values that exist already; the node is then not needed."""
        op, inputs, output = node.op_type, list(node.input), node.output[0]
        if op == "Identity":
            self.renamed[output] = inputs[0]
            return True
        if all(name in self.constants for name in inputs if name):
            values = {name: self.constants[name] for name in inputs if name}
            for name, value in zip(node.output, _evaluate(node, values), strict=True):
                self.constants[name] = value
            return True
        for neutral, value, other in _NEUTRAL.get(op, ()):
            if self.uniform.get(inputs[neutral]) == value and inputs[other] not in self.uniform:
                self.renamed[output] = inputs[other]
                return True
        if op == "Where" and inputs[0] in self.uniform and not {*inputs[1:]} <= self.uniform.keys():
            chosen = inputs[1] if self.uniform[inputs[0]] else inputs[2]
            if chosen not in self.constants:  # a constant may be smaller than the result
                self.renamed[output] = chosen
                return True
        return False

    def _keep(self, node: Any) -> None:
        key = (
            *(node.op_type, node.domain, len(node.output)),
            *(self._identity(name) for name in node.input),
            *sorted(a.SerializeToString(deterministic=True) for a in node.attribute),
        )
        if key in self.seen:
            self.renamed.update(zip(node.output, self.seen[key], strict=True))
            return
        self.seen[key] = list(node.output)
        self.nodes.append(node)
        numbers = [self._number(name) for name in node.input]
        if node.op_type in _CARRIERS and node.input[0] in self.uniform:
            self.uniform[node.output[0]] = self.uniform[node.input[0]]
        elif node.op_type in _ELEMENTWISE and all(number is not None for number in numbers):
            values = dict(zip(node.input, numbers, strict=True))
            self.uniform[node.output[0]] = _evaluate(node, values)[0]

    def _number(self, name: str) -> Any:
        """The number that all elements of the value equal, if known, else None."""
        if name in self.uniform:
            return self.uniform[name]
        value = self.constants.get(name)
        return value.reshape(()) if value is not None and value.size == 1 else None

    def _identity(self, name: str) -> Any:
        """A key that is equal for equal values: the content of a small constant, otherwise the name."""
        value = self.constants.get(name)
        return name if value is None or value.size > 64 else (value.dtype.str, value.shape, value.tobytes())


def _evaluate(node: Any, values: dict[str, Any]) -> list[Any]:
    """The outputs of the node for the input `values`, computed by onnx's reference implementation."""
    with np.errstate(all="ignore"):
        return [np.asarray(value) for value in ReferenceEvaluator(node, opsets={"": OPSET}).run(None, values)]


def _branches(node: Any) -> dict[str, Any]:
    """The subgraphs of a node such as If or Loop, by attribute name."""
    return {a.name: a.g for a in node.attribute if a.HasField("g")}
