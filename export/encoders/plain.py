"""An encoder's graph as nodes over constants, for one document a call, its last layer cut to the token that is read.

This module sees ONNX nodes and shapes, never a model's name. simplify.py makes it, rewrite.py makes our graph of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import helper

SHORT = (5, 12)  # the lengths, in tokens, at which every value is looked at
IDS, TYPES, MASK = "input_ids", "token_type_ids", "attention_mask"  # as transformers names a model's inputs


@dataclass(slots=True)
class PlainGraph:
    """Nodes in their order over constants. Inputs are IDS and TYPES, (1, tokens); `output` is the logit, (1, 1)."""

    nodes: list[Any]
    constants: dict[str, Any]
    output: str
    shapes: dict[str, tuple[tuple[int, ...], ...]]  # of a value, at each length of SHORT
    first_token: set[str] = field(default_factory=set)  # values whose tokens are cut to the first: (1, 1, width)

    def is_rows(self, name: str) -> bool:
        """Whether the value is (1, tokens, width): one row a token."""
        known = self.shapes.get(name, ())
        return bool(known) and all(len(s) == 3 and s[:2] == (1, n) for s, n in zip(known, SHORT, strict=True))

    def users(self) -> dict[str, list[Any]]:
        """The nodes that read each value."""
        found: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                found.setdefault(name, []).append(node)
        return found

    def prune(self) -> None:
        """Drops the nodes and constants that the output does not need."""
        wanted, kept = {self.output}, []
        for node in reversed(self.nodes):
            if wanted & set(node.output):
                kept.append(node)
                wanted.update(name for name in node.input if name)
        self.nodes = kept[::-1]
        self.constants = {name: value for name, value in self.constants.items() if name in wanted}


def cut_to_first_token(plain: PlainGraph) -> None:
    """Where only the first token of the last layer is read, lets what leads there see that token alone.

    Goes from the read backwards through operators that work on each token by itself, up to the attention, which needs
    them all.
    """
    users = plain.users()
    reads = [n for n in plain.nodes if n.op_type == "Gather" and _axis(n, 0) == 1 and plain.is_rows(n.input[0])]
    reads = [n for n in reads if n.input[1] in plain.constants and np.array_equal(plain.constants[n.input[1]], 0)]
    narrow = {id(node) for node in reads}
    cut: set[str] = set()
    for node in reversed(plain.nodes):
        if all(plain.is_rows(name) for name in node.output) and _by_token(node, plain):
            readers = [user for name in node.output for user in users.get(name, ())]
            if readers and all(id(user) in narrow for user in readers):
                narrow.add(id(node))
                cut.update(node.output)
    edges = {n: None for node in plain.nodes if id(node) in narrow for n in node.input if plain.is_rows(n)}
    outside = [name for name in edges if name not in cut]
    ends = {"first_from": 0, "first_to": 1, "first_axis": 1}
    plain.constants |= {name: np.array([value], np.int64) for name, value in ends.items()}
    new, sliced = [], set[str]()
    for node in plain.nodes:
        for place, name in enumerate(node.input if id(node) in narrow else ()):
            if name in outside:
                if name not in sliced:
                    new.append(helper.make_node("Slice", [name, *ends], [f"{name}.first"]))
                    sliced.add(name)
                node.input[place] = f"{name}.first"
        new.append(node)
    plain.nodes, plain.first_token = new, cut | {f"{name}.first" for name in sliced}
    plain.shapes |= {f"{name}.first": plain.shapes[name] for name in sliced}


_BY_TOKEN = {"Add", "Sub", "Mul", "Div", "Gelu", "Relu", "Tanh", "Erf", "Sigmoid", "Pow", "Cast"}


def _by_token(node: Any, plain: PlainGraph) -> bool:
    """Whether each token's row of the output depends on that token's rows alone."""
    if node.op_type in ("LayerNormalization", "Split"):
        return _axis(node, -1) == -1 and all(name in plain.constants for name in node.input[1:])
    if node.op_type == "MatMul":
        return node.input[1] in plain.constants and plain.constants[node.input[1]].ndim == 2
    small = (n for n in node.input if not plain.is_rows(n))
    return node.op_type in _BY_TOKEN and all(n in plain.constants and plain.constants[n].ndim <= 1 for n in small)


def _axis(node: Any, default: int) -> int:
    return next((a.i for a in node.attribute if a.name == "axis"), default)
