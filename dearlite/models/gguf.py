"""The header of a GGUF file, read and checked against the file's size before llama.cpp maps the file.

llama.cpp checks little of a file: a truncated or edited one ends the process. This module knows the format, not the
models. Format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), version 2 and 3, little-endian: "GGUF",
version u32, tensor count u64, metadata count u64; per metadata entry a string key, a type u32 and a value; per tensor
its name, number of dimensions u32, dimensions u64, type u32, and offset u64 from the start of the data, which is
aligned.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import IO, Any

from dearlite.errors import ModelFileError, UsageError
from dearlite.models.held import HeldFile, hold, state_of

SHA256 = "dearlite.sha256"  # metadata key: 64 hex digits, the hash of the file with these digits set to zero
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, _ARRAY = 8, 9  # types of metadata values
# ggml type -> (name, weights per block, bytes per block), from ggml-common.h, without types that ggml has removed.
TENSOR_TYPES = {
    0: ("f32", 1, 4), 1: ("f16", 1, 2), 2: ("q4_0", 32, 18), 3: ("q4_1", 32, 20), 6: ("q5_0", 32, 22),
    7: ("q5_1", 32, 24), 8: ("q8_0", 32, 34), 9: ("q8_1", 32, 36), 10: ("q2_k", 256, 84), 11: ("q3_k", 256, 110),
    12: ("q4_k", 256, 144), 13: ("q5_k", 256, 176), 14: ("q6_k", 256, 210), 15: ("q8_k", 256, 292),
    16: ("iq2_xxs", 256, 66), 17: ("iq2_xs", 256, 74), 18: ("iq3_xxs", 256, 98), 19: ("iq1_s", 256, 50),
    20: ("iq4_nl", 32, 18), 21: ("iq3_s", 256, 110), 22: ("iq2_s", 256, 82), 23: ("iq4_xs", 256, 136),
    24: ("i8", 1, 1), 25: ("i16", 1, 2), 26: ("i32", 1, 4), 27: ("i64", 1, 8), 28: ("f64", 1, 8),
    29: ("iq1_m", 256, 56), 30: ("bf16", 1, 2), 34: ("tq1_0", 256, 54), 35: ("tq2_0", 256, 66),
    39: ("mxfp4", 32, 17),
}  # fmt: skip
_LARGEST_STRING_BYTES = 2**26
_LARGEST_ARRAY = 2**24
_MOST_TENSORS = _MOST_KEYS = 2**16
_DEEPEST_ARRAY = 4
# Larger files are hashed by `dearlite models verify` only: hashing them would take longer than loading them.
HASH_ON_OPEN_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor: dimensions, fastest first as in the file, ggml type, and `offset` in bytes from the file's start."""

    shape: tuple[int, ...]
    type: str
    offset: int
    size_bytes: int


class GgufFile:
    """A GGUF file with a checked header: magic, version, counts, types, and that all tensors are inside the file.

    `metadata` maps a key to its value (number, string, bool or list), `tensors` a name to its GgufTensor. Offsets in
    bytes from the file's start: `metadata_end` of the byte after the metadata, `tensors_end` of that after the tensors'
    names, `data_start` of the data, which is aligned.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises UsageError if the file cannot be read, ModelFileError if it is incomplete, damaged or no GGUF."""
        self.path = Path(path)
        self._file = self.path.absolute()  # the process may change its working folder
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, GgufTensor] = {}
        self._spans: dict[str, tuple[int, int]] = {}
        self.metadata_end = self.tensors_end = self.data_start = 0
        try:
            file = open(self.path, "rb")
        except OSError as err:
            raise UsageError(f"cannot read the model file {self.path}: {err.strerror}") from None
        with file:
            self._state = state_of(os.fstat(file.fileno()))
            self.size_bytes = file.seek(0, 2)
            file.seek(0)
            try:
                self._read(file)
            except _HeaderError as err:
                raise ModelFileError(
                    f"{self.path} is not a complete GGUF file ({err}): fetch or export it again"
                ) from None

    def hold(self) -> HeldFile | None:
        """The file, held open for a library that maps it. Raises ModelFileError if it is not what was read here."""
        return hold(self._file, self._state)

    def value_span(self, key: str) -> tuple[int, int]:
        """(offset, size) in bytes of the string value of `key` in the file. A string of equal size may replace it."""
        return self._spans[key]

    @property
    def main_type(self) -> str:
        """The tensor type with the most bytes, for example "q4_k"; "none" for a file without tensors."""
        sizes: dict[str, int] = {}
        for tensor in self.tensors.values():
            sizes[tensor.type] = sizes.get(tensor.type, 0) + tensor.size_bytes
        return max(sizes, key=lambda name: sizes[name], default="none")

    def read_tensor(self, name: str, dtype: Any) -> Any:
        """The values of a tensor of a plain type, of which `dtype` is NumPy's, slowest dimension first."""
        import numpy as np

        tensor = self.tensors[name]
        with open(self._file, "rb") as file:
            file.seek(tensor.offset)
            data = file.read(tensor.size_bytes)
        return np.frombuffer(data, dtype).reshape(tensor.shape[::-1])

    def sha256(self) -> str:
        """The sha256 of the file. The digits of its own `dearlite.sha256`, if it has them, are hashed as zeros.

        Raises ModelFileError for another file than was opened: its hash would name weights that are not in use.
        """
        digest, (start, size) = hashlib.sha256(), self._spans.get(SHA256, (self.size_bytes, 0))
        with open(self._file, "rb") as file:
            _hash_up_to(file, start, digest)
            if size:
                digest.update(b"0" * len(file.read(size)))
                _hash_up_to(file, self.size_bytes, digest)
            if state_of(os.fstat(file.fileno())) != self._state:
                raise ModelFileError(f"{self.path} was changed or replaced since it was opened: load it again")
        return digest.hexdigest()

    @property
    def recorded_sha256(self) -> str | None:
        """The value of `sha256()` when dearlite wrote the file, None for a file of another program."""
        value = self.metadata.get(SHA256)
        return value if isinstance(value, str) else None

    def verify(self, *, largest_bytes: int | None = None) -> bool:
        """True if the file matches its recorded hash; False, without reading it, if it has none or is too large.

        `largest_bytes` is the maximum size in bytes of a file that is hashed, None for no limit. Raises ModelFileError
        if the hashes differ.
        """
        recorded = self.recorded_sha256
        if recorded is None or (largest_bytes is not None and self.size_bytes > largest_bytes):
            return False
        if self.sha256() != recorded:
            raise ModelFileError(f"{self.path} does not match its sha256: it is damaged, fetch or export it again")
        return True

    def _read(self, file: IO[bytes]) -> None:
        """Fills `metadata` and `tensors`. Raises _HeaderError."""
        magic = file.read(4)
        if magic != b"GGUF":
            raise _HeaderError(f"it begins with {magic!r}")
        version = self._scalar(file, "<I")
        if version not in (2, 3):
            raise _HeaderError(f"its version is {version}, and dearlite reads 2 and 3")
        tensors, keys = self._scalar(file, "<Q"), self._scalar(file, "<Q")
        if tensors > _MOST_TENSORS or keys > _MOST_KEYS:
            raise _HeaderError(f"it claims {tensors} tensors and {keys} metadata entries")
        for _ in range(keys):
            key = self._string(file)
            kind = self._scalar(file, "<I")
            if key in self.metadata:
                raise _HeaderError(f"its metadata has {key!r} twice")
            if kind == STRING:
                start = file.tell() + 8
                self.metadata[key] = self._string(file)
                self._spans[key] = (start, file.tell() - start)
            else:
                self.metadata[key] = self._value(file, kind)
        self.metadata_end = file.tell()
        tensor_entries = [self._tensor(file) for _ in range(tensors)]
        self.tensors_end = file.tell()
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise _HeaderError(f"general.alignment is {alignment!r}")
        data = self.data_start = -(-self.tensors_end // alignment) * alignment
        for name, shape, kind, offset, size in tensor_entries:
            if name in self.tensors:
                raise _HeaderError(f"two tensors are named {name!r}")
            if offset % alignment or data + offset + size > self.size_bytes:
                raise _HeaderError(
                    f"tensor {name!r} ends at byte {data + offset + size} of {self.size_bytes}, or is not aligned"
                )
            self.tensors[name] = GgufTensor(shape, kind, data + offset, size)
        ends = sorted((t.offset, t.offset + t.size_bytes) for t in self.tensors.values())
        if any(end > start for (_, end), (start, _) in pairwise(ends)):
            raise _HeaderError("two of its tensors overlap")

    def _tensor(self, file: IO[bytes]) -> tuple[str, tuple[int, ...], str, int, int]:
        name, dimensions = self._string(file), self._scalar(file, "<I")
        if not 1 <= dimensions <= 4:
            raise _HeaderError(f"tensor {name!r} has {dimensions} dimensions")
        shape = tuple(self._scalar(file, "<Q") for _ in range(dimensions))
        kind, offset = self._scalar(file, "<I"), self._scalar(file, "<Q")
        if kind not in TENSOR_TYPES:
            raise _HeaderError(f"tensor {name!r} has type {kind}, which is unknown")
        type_name, block, block_bytes = TENSOR_TYPES[kind]
        if not all(1 <= side < 2**40 for side in shape) or shape[0] % block:
            raise _HeaderError(f"tensor {name!r} of type {type_name} has the shape {shape}")
        return name, shape, type_name, offset, prod(shape) // block * block_bytes

    def _value(self, file: IO[bytes], kind: int, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self._scalar(file, _SCALARS[kind])
        if kind == STRING:
            return self._string(file)
        if kind != _ARRAY or depth >= _DEEPEST_ARRAY:
            raise _HeaderError(f"a metadata value has type {kind}")
        inner, count = self._scalar(file, "<I"), self._scalar(file, "<Q")
        if count > _LARGEST_ARRAY:
            raise _HeaderError(f"a metadata list has {count} items")
        if inner in _SCALARS:
            form = _SCALARS[inner]
            data = self._exactly(file, count * struct.calcsize(form))
            return list(struct.unpack(f"<{count}{form[1:]}", data))
        return [self._value(file, inner, depth + 1) for _ in range(count)]

    def _scalar(self, file: IO[bytes], form: str) -> Any:
        return struct.unpack(form, self._exactly(file, struct.calcsize(form)))[0]

    def _string(self, file: IO[bytes]) -> str:
        size = self._scalar(file, "<Q")
        if size > _LARGEST_STRING_BYTES:
            raise _HeaderError(f"its header has a string of {size} bytes")
        return self._exactly(file, size).decode("utf-8", "replace")

    def _exactly(self, file: IO[bytes], size: int) -> bytes:
        data = file.read(size) if size <= self.size_bytes else b""
        if len(data) != size:
            raise _HeaderError(f"the file ends at byte {self.size_bytes}, inside its header")
        return data


def is_gguf(path: Path) -> bool:
    """True if the file begins with the magic of GGUF. Raises UsageError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"GGUF"
    except OSError as err:
        raise UsageError(f"cannot read the model file {path}: {err.strerror}") from None


class _HeaderError(Exception):
    """A fault of the header; `GgufFile` raises it as a ModelFileError that names the file."""


def _hash_up_to(file: IO[bytes], end: int, digest: Any) -> None:
    """Adds the bytes of `file` from its position to `end` to `digest`."""
    while (left := end - file.tell()) > 0 and (block := file.read(min(left, 2**20))):
        digest.update(block)
