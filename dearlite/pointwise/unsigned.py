"""Int8 weights that become unsigned before ONNX Runtime sees them, for CPUs whose u8 x s8 product saturates.

Graphs for these CPUs have three nodes for each int8 matrix, Cast(int32), Add(128) and Cast(uint8). ONNX Runtime would
compute them once, when it loads the graph, with four bytes a weight. Without them, NumPy makes the same matrices in a
quarter of the memory and half the time. Files that state `pair_limited` have no such graph (models/pair_limit.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dearlite.models.protobuf import (
    ATTRIBUTE,
    ATTRIBUTE_INT,
    DATA_TYPE,
    GRAPH,
    INITIALIZER,
    INT8,
    INT32,
    NODE,
    NODE_INPUT,
    NODE_OUTPUT,
    OP_TYPE,
    OUTPUTS,
    RAW_DATA,
    TENSOR_NAME,
    UINT8,
    VALUE_NAME,
    Field,
    Message,
    bytes_field,
    varint_field,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OFFSET = 128


@dataclass(frozen=True, slots=True)
class _Chain:
    """Three nodes that make an int8 tensor unsigned: the tensor, the values inside, the output."""

    tensor: bytes
    inside: tuple[bytes, bytes]
    output: bytes


def unsigned(tensor: NDArray[np.int8]) -> NDArray[np.uint8]:
    """A new array of the tensor's values plus 128."""
    return np.bitwise_xor(tensor.view(np.uint8), np.uint8(_OFFSET))


def without_casts(model: bytes) -> tuple[bytes, frozenset[str]]:
    """The serialised graph without nodes that make int8 tensors unsigned, and the names of these tensors.

    The graph then reads them as uint8 (see `unsigned`). A tensor that is also used as int8 keeps its nodes. A graph
    without such nodes is returned as it is, and so is a damaged one, which ONNX Runtime reports.
    """
    try:
        return _rewritten(Message.parse(model)) or (model, frozenset())
    except (AttributeError, IndexError, TypeError, ValueError):
        return model, frozenset()


def _rewritten(model: Message) -> tuple[bytes, frozenset[str]] | None:
    """The result of `without_casts`, None if the graph has no such nodes."""
    graph = Message.parse(model.value(GRAPH))
    parsed = {index: Message.parse(f.value) for index, f in enumerate(graph.fields) if f.number in (NODE, INITIALIZER)}
    nodes = [message for index, message in parsed.items() if graph.fields[index].number == NODE]
    tensors = [message for index, message in parsed.items() if graph.fields[index].number == INITIALIZER]
    outputs = [Message.parse(value).value(VALUE_NAME) for value in graph.values(OUTPUTS)]
    chains = _chains(nodes, tensors, outputs)
    if not chains:
        return None
    renamed = {chain.output: chain.tensor for chain in chains}
    weights = set(renamed.values())
    made = {name for chain in chains for name in (*chain.inside, chain.output)}

    def rewritten(index: int, field: Field) -> list[Field]:
        message = parsed.get(index)
        if message is None:
            return [field]
        if field.number == INITIALIZER:
            if message.value(TENSOR_NAME) not in weights:
                return [field]
            parts = [varint_field(DATA_TYPE, UINT8) if f.number == DATA_TYPE else f for f in message.fields]
        elif message.value(NODE_OUTPUT) in made:
            return []
        else:
            parts = [
                bytes_field(NODE_INPUT, renamed.get(f.value, f.value)) if f.number == NODE_INPUT else f
                for f in message.fields
            ]
        return [bytes_field(field.number, Message(tuple(parts)).encode())]

    parts = [part for index, field in enumerate(graph.fields) for part in rewritten(index, field)]
    graph_field = bytes_field(GRAPH, Message(tuple(parts)).encode())
    fields = tuple(graph_field if field.number == GRAPH else field for field in model.fields)
    return Message(fields).encode(), frozenset(name.decode() for name in weights)


def _chains(nodes: Sequence[Message], tensors: Iterable[Message], outputs: Iterable[bytes]) -> list[_Chain]:
    """The chains whose inner values nothing else reads, of tensors that nothing but such chains reads."""
    types = {tensor.value(TENSOR_NAME): tensor for tensor in tensors}
    makers = {node.value(NODE_OUTPUT): node for node in nodes}
    readers = Counter(name for node in nodes for name in node.values(NODE_INPUT))
    readers.update(outputs)

    def casts(node: Message | None, to: int) -> bool:
        return node is not None and node.value(OP_TYPE) == b"Cast" and _attribute(node) == to

    chains = []
    for last in nodes:
        if not casts(last, UINT8):
            continue
        add = makers.get(last.value(NODE_INPUT))
        if add is None or add.value(OP_TYPE) != b"Add":
            continue
        wide, offset = add.values(NODE_INPUT)
        first = makers.get(wide)
        if first is None or not casts(first, INT32) or not _is_offset(types.get(offset)):
            continue
        tensor, inside = first.value(NODE_INPUT), (wide, add.value(NODE_OUTPUT))
        if tensor in types and types[tensor].value(DATA_TYPE) == INT8 and all(readers[name] == 1 for name in inside):
            chains.append(_Chain(tensor, inside, last.value(NODE_OUTPUT)))
    counts = Counter(chain.tensor for chain in chains)
    return [chain for chain in chains if counts[chain.tensor] == readers[chain.tensor]]


def _attribute(node: Message) -> int | None:
    """The number of a node's only attribute, None if there are none or more."""
    attributes = [Message.parse(value).value(ATTRIBUTE_INT) for value in node.values(ATTRIBUTE)]
    return attributes[0] if len(attributes) == 1 else None


def _is_offset(tensor: Message | None) -> bool:
    """True for the int32 constant 128."""
    if tensor is None or tensor.value(DATA_TYPE) != INT32:
        return False
    return bool(tensor.value(RAW_DATA) == _OFFSET.to_bytes(4, "little"))
