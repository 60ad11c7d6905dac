"""An encoder's graph for one document per call, as a list of nodes and a dictionary of constants.

This module handles ONNX nodes and shapes, never a model's name. simplify.py builds the graph, `cut_to_first_token`
reduces its last layer, and rewrite.py converts it into the graph of the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import helper

SHORT = (5, 12)  # lengths, in tokens, at which all values are computed for comparison
IDS, TYPES, MASK = "input_ids", "token_type_ids", "attention_mask"  # the names of a model's inputs in transformers


@dataclass(slots=True)
class SimplifiedGraph:
    """Nodes in order of execution. The inputs are IDS and TYPES, (1, tokens); `output` is the logit, (1, 1)."""

    nodes: list[Any]
    constants: dict[str, Any]
    output: str
    shapes: dict[str, tuple[tuple[int, ...], ...]]  # value -> its shape at each length of SHORT
    first_token: set[str] = field(default_factory=set)  # values reduced to the first token: (1, 1, width)

    def is_rows(self, name: str) -> bool:
        """True if the value is (1, tokens, width), a row per token."""
        known = self.shapes.get(name, ())
        return bool(known) and all(len(s) == 3 and s[:2] == (1, n) for s, n in zip(known, SHORT, strict=True))

    def is_one_row(self, name: str) -> bool:
        """True if the value is (1, 1, width), the one token of a decoder."""
        known = self.shapes.get(name, ())
        return bool(known) and all(len(s) == 3 and s[:2] == (1, 1) for s in known)

    def users(self) -> dict[str, list[Any]]:
        """Value -> the nodes that read it."""
        users: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                users.setdefault(name, []).append(node)
        return users

    def prune(self) -> None:
        """Removes the nodes and constants that the output does not depend on."""
        needed, kept = {self.output}, []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                kept.append(node)
                needed.update(name for name in node.input if name)
        self.nodes = kept[::-1]
        self.constants = {name: value for name, value in self.constants.items() if name in needed}


def cut_to_first_token(graph: SimplifiedGraph) -> None:
    """Reduces the end of the graph to the first token, if the head reads only the first token of the last layer.

    Starting at that read it goes backwards through operators that treat each token separately, up to the attention,
    which needs all tokens.
    """
    users = graph.users()
    reads = [n for n in graph.nodes if n.op_type == "Gather" and _axis(n, 0) == 1 and graph.is_rows(n.input[0])]
    reads = [n for n in reads if n.input[1] in graph.constants and np.array_equal(graph.constants[n.input[1]], 0)]
    narrow = {id(node) for node in reads}
    cut: set[str] = set()
    for node in reversed(graph.nodes):
        if all(graph.is_rows(name) for name in node.output) and _by_token(node, graph):
            readers = [user for name in node.output for user in users.get(name, ())]
            if readers and all(id(user) in narrow for user in readers):
                narrow.add(id(node))
                cut.update(node.output)
    edges = {n: None for node in graph.nodes if id(node) in narrow for n in node.input if graph.is_rows(n)}
    outside = [name for name in edges if name not in cut]
    ends = {"first_from": 0, "first_to": 1, "first_axis": 1}
    graph.constants |= {name: np.array([value], np.int64) for name, value in ends.items()}
    nodes, sliced = [], set[str]()
    for node in graph.nodes:
        for position, name in enumerate(node.input if id(node) in narrow else ()):
            if name in outside:
                if name not in sliced:
                    nodes.append(helper.make_node("Slice", [name, *ends], [f"{name}.first"]))
                    sliced.add(name)
                node.input[position] = f"{name}.first"
        nodes.append(node)
    graph.nodes, graph.first_token = nodes, cut | {f"{name}.first" for name in sliced}
    graph.shapes |= {f"{name}.first": graph.shapes[name] for name in sliced}


_BY_TOKEN = {"Add", "Sub", "Mul", "Div", "Gelu", "Relu", "Tanh", "Erf", "Sigmoid", "Pow", "Cast"}


def _by_token(node: Any, graph: SimplifiedGraph) -> bool:
    """True if each token's row of the output depends only on the same token's rows of the inputs."""
    if node.op_type in ("LayerNormalization", "Split"):
        return _axis(node, -1) == -1 and all(name in graph.constants for name in node.input[1:])
    if node.op_type == "MatMul":
        return node.input[1] in graph.constants and graph.constants[node.input[1]].ndim == 2
    small = (n for n in node.input if not graph.is_rows(n))
    return node.op_type in _BY_TOKEN and all(n in graph.constants and graph.constants[n].ndim <= 1 for n in small)


def _axis(node: Any, default: int) -> int:
    return next((a.i for a in node.attribute if a.name == "axis"), default)
