"""Int8 weights that become unsigned before ONNX Runtime sees them, for CPUs whose u8 x s8 product saturates.

Graphs for these CPUs have three nodes for each int8 matrix, Cast(int32), Add(128) and Cast(uint8). ONNX Runtime would
compute them once, when it loads the graph, with four bytes a weight. Without them, NumPy makes the same matrices in a
quarter of the memory and half the time. A graph is read and written here as protobuf fields (onnx.proto has their
numbers), because nothing else at run time needs the onnx package.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GRAPH = 7  # of ModelProto
_NODE, _INITIALIZER, _OUTPUTS = 1, 5, 12  # of GraphProto
_NODE_INPUT, _NODE_OUTPUT, _OP_TYPE, _ATTRIBUTE = 1, 2, 4, 5  # of NodeProto
_ATTRIBUTE_INT = 3  # of AttributeProto
_VALUE_NAME = 1  # of ValueInfoProto
_DATA_TYPE, _TENSOR_NAME, _RAW_DATA = 2, 8, 9  # of TensorProto
_UINT8, _INT8, _INT32 = 2, 3, 6  # values of TensorProto.DataType
_VARINT, _BYTES, _FIXED_BYTES = 0, 2, {1: 8, 5: 4}  # wire types, and the size of the fixed ones
_OFFSET = 128


@dataclass(frozen=True, slots=True)
class _Field:
    number: int
    value: Any  # bytes, or int for a varint
    encoded: bytes  # key, length and value


@dataclass(frozen=True, slots=True)
class _Message:
    """The fields of a protobuf message, in order."""

    fields: tuple[_Field, ...]

    @classmethod
    def parse(cls, data: bytes) -> _Message:
        return cls(tuple(_fields(data)))

    def values(self, number: int) -> list[Any]:
        return [field.value for field in self.fields if field.number == number]

    def value(self, number: int) -> Any:
        """The value of the field, None if the message has none."""
        return next(iter(self.values(number)), None)

    def encode(self) -> bytes:
        return b"".join(field.encoded for field in self.fields)


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
        return _rewritten(_Message.parse(model)) or (model, frozenset())
    except (AttributeError, IndexError, TypeError, ValueError):
        return model, frozenset()


def _rewritten(model: _Message) -> tuple[bytes, frozenset[str]] | None:
    """The result of `without_casts`, None if the graph has no such nodes."""
    graph = _Message.parse(model.value(_GRAPH))
    parsed = {
        index: _Message.parse(f.value) for index, f in enumerate(graph.fields) if f.number in (_NODE, _INITIALIZER)
    }
    nodes = [message for index, message in parsed.items() if graph.fields[index].number == _NODE]
    tensors = [message for index, message in parsed.items() if graph.fields[index].number == _INITIALIZER]
    outputs = [_Message.parse(value).value(_VALUE_NAME) for value in graph.values(_OUTPUTS)]
    chains = _chains(nodes, tensors, outputs)
    if not chains:
        return None
    renamed = {chain.output: chain.tensor for chain in chains}
    weights = set(renamed.values())
    made = {name for chain in chains for name in (*chain.inside, chain.output)}

    def rewritten(index: int, field: _Field) -> list[_Field]:
        message = parsed.get(index)
        if message is None:
            return [field]
        if field.number == _INITIALIZER:
            if message.value(_TENSOR_NAME) not in weights:
                return [field]
            parts = [_varint_field(_DATA_TYPE, _UINT8) if f.number == _DATA_TYPE else f for f in message.fields]
        elif message.value(_NODE_OUTPUT) in made:
            return []
        else:
            parts = [
                _bytes_field(_NODE_INPUT, renamed.get(f.value, f.value)) if f.number == _NODE_INPUT else f
                for f in message.fields
            ]
        return [_bytes_field(field.number, _Message(tuple(parts)).encode())]

    parts = [part for index, field in enumerate(graph.fields) for part in rewritten(index, field)]
    graph_field = _bytes_field(_GRAPH, _Message(tuple(parts)).encode())
    fields = tuple(graph_field if field.number == _GRAPH else field for field in model.fields)
    return _Message(fields).encode(), frozenset(name.decode() for name in weights)


def _chains(nodes: Sequence[_Message], tensors: Iterable[_Message], outputs: Iterable[bytes]) -> list[_Chain]:
    """The chains whose inner values nothing else reads, of tensors that nothing but such chains reads."""
    types = {tensor.value(_TENSOR_NAME): tensor for tensor in tensors}
    makers = {node.value(_NODE_OUTPUT): node for node in nodes}
    readers = Counter(name for node in nodes for name in node.values(_NODE_INPUT))
    readers.update(outputs)

    def casts(node: _Message | None, to: int) -> bool:
        return node is not None and node.value(_OP_TYPE) == b"Cast" and _attribute(node) == to

    chains = []
    for last in nodes:
        if not casts(last, _UINT8):
            continue
        add = makers.get(last.value(_NODE_INPUT))
        if add is None or add.value(_OP_TYPE) != b"Add":
            continue
        wide, offset = add.values(_NODE_INPUT)
        first = makers.get(wide)
        if first is None or not casts(first, _INT32) or not _is_offset(types.get(offset)):
            continue
        tensor, inside = first.value(_NODE_INPUT), (wide, add.value(_NODE_OUTPUT))
        if tensor in types and types[tensor].value(_DATA_TYPE) == _INT8 and all(readers[name] == 1 for name in inside):
            chains.append(_Chain(tensor, inside, last.value(_NODE_OUTPUT)))
    counts = Counter(chain.tensor for chain in chains)
    return [chain for chain in chains if counts[chain.tensor] == readers[chain.tensor]]


def _attribute(node: _Message) -> int | None:
    """The number of a node's only attribute, None if there are none or more."""
    attributes = [_Message.parse(value).value(_ATTRIBUTE_INT) for value in node.values(_ATTRIBUTE)]
    return attributes[0] if len(attributes) == 1 else None


def _is_offset(tensor: _Message | None) -> bool:
    """True for the int32 constant 128."""
    if tensor is None or tensor.value(_DATA_TYPE) != _INT32:
        return False
    return bool(tensor.value(_RAW_DATA) == _OFFSET.to_bytes(4, "little"))


def _fields(data: bytes) -> Iterator[_Field]:
    at = 0
    while at < len(data):
        start = at
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        value: int | bytes
        if kind == _VARINT:
            value, at = _varint(data, at)
        else:
            size = _FIXED_BYTES.get(kind)
            if kind == _BYTES:
                size, at = _varint(data, at)
            if size is None or at + size > len(data):
                raise ValueError("no protobuf message")
            value = data[at : at + size]
            at += size
        yield _Field(number, value, data[start:at])


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in seven bits a byte, lowest first, and the position after it."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at


def _encoded_varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


def _varint_field(number: int, value: int) -> _Field:
    return _Field(number, value, _encoded_varint(number << 3 | _VARINT) + _encoded_varint(value))


def _bytes_field(number: int, value: bytes) -> _Field:
    return _Field(number, value, _encoded_varint(number << 3 | _BYTES) + _encoded_varint(len(value)) + value)
