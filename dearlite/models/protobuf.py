"""Protobuf messages as fields, for reading and rewriting an ONNX graph without the onnx package, which export has only.

onnx.proto has the numbers of the fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

GRAPH = 7  # of ModelProto
NODE, INITIALIZER, OUTPUTS = 1, 5, 12  # of GraphProto
NODE_INPUT, NODE_OUTPUT, OP_TYPE, ATTRIBUTE = 1, 2, 4, 5  # of NodeProto
ATTRIBUTE_INT = 3  # of AttributeProto
VALUE_NAME = 1  # of ValueInfoProto
DATA_TYPE, TENSOR_NAME, RAW_DATA = 2, 8, 9  # of TensorProto
UINT8, INT8, INT32 = 2, 3, 6  # values of TensorProto.DataType
_VARINT, _BYTES, _FIXED_BYTES = 0, 2, {1: 8, 5: 4}  # wire types, and the size of the fixed ones


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message: its number, its value, and both as they are encoded."""

    number: int
    value: Any  # bytes, or int for a varint
    encoded: bytes  # key, length and value


@dataclass(frozen=True, slots=True)
class Message:
    """The fields of a protobuf message, in order."""

    fields: tuple[Field, ...]

    @classmethod
    def parse(cls, data: bytes) -> Message:
        return cls(tuple(_fields(data)))

    def values(self, number: int) -> list[Any]:
        return [field.value for field in self.fields if field.number == number]

    def value(self, number: int) -> Any:
        """The value of the field, None if the message has none."""
        return next(iter(self.values(number)), None)

    def encode(self) -> bytes:
        return b"".join(field.encoded for field in self.fields)


def _fields(data: bytes) -> Iterator[Field]:
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
        yield Field(number, value, data[start:at])


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


def varint_field(number: int, value: int) -> Field:
    """A field with a number."""
    return Field(number, value, _encoded_varint(number << 3 | _VARINT) + _encoded_varint(value))


def bytes_field(number: int, value: bytes) -> Field:
    """A field with bytes: a text or a message."""
    return Field(number, value, _encoded_varint(number << 3 | _BYTES) + _encoded_varint(len(value)) + value)
