"""A Hugging Face model folder: its tensors, read whole or in blocks of rows, always as float32.

This module handles files and numbers and does not know the purpose of a tensor. A read allocates the requested rows
and nothing else. Rows are read, not memory-mapped, because the touched pages of a mapping count as memory of this
process. Format (https://github.com/huggingface/safetensors#format): 8 bytes, little endian, the header's length N;
N bytes of JSON, `{name: {"dtype", "shape", "data_offsets": [begin, end]}}` and optionally `__metadata__`; then the
data, row by row, without gaps. Offsets count from the first byte of the data. Every number of a header is checked
before it is used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite, prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dearlite.errors import CheckpointError
from dearlite.files.hashing import sha256_of

Floats = NDArray[np.float32]

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# safetensors dtype -> NumPy dtype of the stored bytes; bf16 is the upper half of a float32.
_STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
# Counters and tables that some models carry (position ids): listed, and refused only when they are read.
_NO_WEIGHTS = {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"}
# Values converted in one step. Steps that fit the CPU cache are 1.5 times faster than a single conversion for a block
# of 8 million values, 2.5 times for 32 million.
_VALUES_PER_STEP = 2**18
_LARGEST_HEADER_BYTES = 100_000_000  # the limit of the reference implementation
_PICKLES = ("*model*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Type, shape and position of a stored tensor: `offset` is its first byte, counted from the start of `file`."""

    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int


class TensorSource(Protocol):
    """The interface that exporters read from: names, shapes and float32 values of a model's tensors."""

    config: dict[str, Any]

    @property
    def names(self) -> Collection[str]:
        """The names of all tensors, in the order of the file."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape. Raises CheckpointError for an unknown name."""
        ...

    def rows(self, name: str, start: int, stop: int) -> Floats:
        """The rows from `start` up to `stop`, without `stop`; a tensor without dimensions has one row."""
        ...

    def read(self, name: str) -> Floats:
        """All values of the tensor, in its own shape."""
        shape = self.shape(name)
        return self.rows(name, 0, row_count(shape)).reshape(shape)

    def blocks(self, name: str, rows_per_block: int) -> Iterator[Floats]:
        """Blocks of `rows_per_block` rows, in order; the last block may be shorter."""
        count = row_count(self.shape(name))
        for start in range(0, count, rows_per_block):
            yield self.rows(name, start, min(start + rows_per_block, count))


class Checkpoint(TensorSource):
    """A folder with config.json and model.safetensors, or with an index and its shards; all headers are checked."""

    def __init__(self, folder: str | Path) -> None:
        """Raises CheckpointError when the folder is not a complete model. Values are checked when they are read."""
        self.folder = Path(folder)
        if not os.path.isdir(self.folder):
            reason = "is a file" if os.path.exists(self.folder) else "does not exist"
            raise CheckpointError(f"{folder} {reason}: give the folder that holds config.json and {WEIGHTS}")
        present = {
            name
            for name in ("config.json", "adapter_config.json", WEIGHTS, INDEX)
            if os.path.isfile(self.folder / name)
        }
        if "adapter_config.json" in present and not present & {WEIGHTS, INDEX}:
            raise CheckpointError(f"{folder} is a LoRA adapter: give it as the adapter, with the folder of its base")
        if "config.json" not in present:
            raise CheckpointError(f"{folder} has no config.json: fetch the model again, with all of its files")
        self.config = read_json(self.folder / "config.json")
        self._specs = self._locate()

    @property
    def names(self) -> Collection[str]:
        return self._specs.keys()

    def spec(self, name: str) -> TensorSpec:
        """The tensor's type, shape and position. Raises CheckpointError with the nearest names."""
        if name not in self._specs:
            near = ", ".join(get_close_matches(name, self._specs)) or "none close"
            raise _damaged(self.folder, f"has no tensor {name!r} (nearest: {near})")
        return self._specs[name]

    def shape(self, name: str) -> tuple[int, ...]:
        return self.spec(name).shape

    def rows(self, name: str, start: int, stop: int) -> Floats:
        return read_rows(name, self.spec(name), start, stop)

    @property
    def license_text(self) -> str:
        """The text of the folder's licence file; empty without such a file."""
        for path in sorted(self.folder.iterdir()):
            if path.stem.lower() in {"license", "licence", "copying"} and os.path.isfile(path):
                return path.read_text(encoding="utf-8", errors="replace")
        return ""

    def sha256s(self) -> dict[str, str]:
        """The sha256 of each weight file, by file name, as a record of the model's origin. Reads every byte."""
        return {path.name: sha256_of(path) for path in sorted({spec.file for spec in self._specs.values()})}

    def _locate(self) -> dict[str, TensorSpec]:
        if os.path.isfile(self.folder / WEIGHTS):
            return read_header(self.folder / WEIGHTS)
        if os.path.isfile(self.folder / INDEX):
            return _read_index(self.folder / INDEX)
        if any(self.folder.glob("model*.safetensors")):
            raise CheckpointError(f"{self.folder} has neither {WEIGHTS} nor {INDEX}: fetch the index with its shards")
        refuse_pickle(self.folder)
        raise CheckpointError(f"{self.folder} has no weights: fetch {WEIGHTS}, or {INDEX} and the shards that it names")


def _read_index(path: Path) -> dict[str, TensorSpec]:
    """The tensors listed in an index file, each with the entry of its shard's header."""
    shards = read_json(path).get("weight_map")  # tensor name -> file name
    if not isinstance(shards, dict) or not all(isinstance(file, str) for file in shards.values()):
        raise _damaged(path, "has no weight_map from tensors to files")
    files = sorted(set(shards.values()))
    if outside := [file for file in files if Path(file).name != file]:
        raise CheckpointError(f"{path} names files outside its folder ({name_some(outside)}): do not use this model")
    if missing := [file for file in files if not os.path.isfile(path.parent / file)]:
        raise CheckpointError(
            f"{path.parent} lacks {len(missing)} of the {len(files)} shards that {path.name} names "
            f"({name_some(missing)}): fetch the missing files"
        )
    headers = {file: read_header(path.parent / file) for file in files}
    if absent := [f"{name!r} in {file}" for name, file in shards.items() if name not in headers[file]]:
        raise CheckpointError(
            f"{path} names {len(absent)} tensors that their shard does not hold ({name_some(absent)}): "
            "index and shards are of different revisions, fetch all of them again"
        )
    return {name: headers[file][name] for name, file in shards.items()}


def read_header(path: Path) -> dict[str, TensorSpec]:
    """The tensors of a safetensors file, by name. Raises CheckpointError unless every byte belongs to a tensor."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            head = file.read(8)
            length = int.from_bytes(head, "little")
            if head == b"version ":
                raise CheckpointError(f"{path} is a Git LFS pointer, not the weights: run `git lfs pull` in its folder")
            if size < 8 or 8 + length > size or length > _LARGEST_HEADER_BYTES:
                sizes = f"it has {size} bytes, and its header alone needs {8 + length}"
                raise _damaged(path, f"is truncated or no safetensors file ({sizes})")
            entries = json.loads(file.read(length))
            if not isinstance(entries, dict):
                raise ValueError("it lists no tensors")
    except OSError as err:
        raise _damaged(path, f"cannot be read ({err.strerror})") from None
    except (ValueError, RecursionError) as err:
        raise _damaged(path, f"has a damaged header ({err})") from None
    entries.pop("__metadata__", None)
    data = 8 + length
    specs = {name: _parse_entry(path, name, entry, data, size - data) for name, entry in entries.items()}
    reached, last = 0, "the header"
    for name in sorted(entries, key=lambda name: tuple(entries[name]["data_offsets"])):
        begin, end = entries[name]["data_offsets"]
        if begin != reached:
            fault = "overlap" if begin < reached else "leave a gap"
            raise _damaged(path, f"is damaged ({last} and tensor {name!r} {fault} at byte {data + begin})")
        reached, last = end, f"tensor {name!r}"
    if reached != size - data:
        raise _damaged(path, f"has {size - data - reached} bytes that belong to no tensor")
    return specs


def _parse_entry(path: Path, name: str, entry: Any, data: int, size: int) -> TensorSpec:
    """The position of one header entry, in a file whose `size` bytes of data begin at byte `data`."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]} if all(
            type(number) is int and number >= 0 for number in (*shape, begin, end)
        ):
            pass
        case _:
            raise _damaged(path, f"has a damaged header (no valid dtype, shape and offsets for tensor {name!r})")
    if dtype not in _STORED and dtype not in _NO_WEIGHTS:
        raise CheckpointError(
            f"{path}: tensor {name!r} is stored as {dtype!r}, and only {', '.join(_STORED)} can be read: "
            "use the model's bf16, fp16 or fp32 revision"
        )
    if end > size:
        raise _damaged(path, f"is truncated (tensor {name!r} ends at byte {data + end} of {data + size})")
    expected = prod(shape) * np.dtype(_STORED[dtype]).itemsize if dtype in _STORED else end - begin
    if end - begin != expected:
        sizes = f"{end - begin} bytes where {dtype} of shape {tuple(shape)} takes {expected}"
        raise _damaged(path, f"is damaged (tensor {name!r} has {sizes})")
    return TensorSpec(dtype, tuple(shape), path, data + begin)


def read_rows(name: str, spec: TensorSpec, start: int, stop: int) -> Floats:
    """The rows from `start` up to `stop`, (rows, *other dimensions). Raises CheckpointError for NaN and infinity."""
    assert 0 <= start <= stop <= row_count(spec.shape), f"{name}: rows {start} to {stop} of {spec.shape}"
    if spec.dtype not in _STORED:
        raise CheckpointError(f"{spec.file}: tensor {name!r} is {spec.dtype}, not a float: use an unquantised revision")
    width = prod(spec.shape[1:])
    values = np.empty((stop - start) * width, np.float32)
    buffer = np.empty(min(len(values), _VALUES_PER_STEP), _STORED[spec.dtype])
    try:
        with open(spec.file, "rb") as file, np.errstate(invalid="ignore"):
            file.seek(spec.offset + start * width * buffer.itemsize)
            for first in range(0, len(values), _VALUES_PER_STEP):
                part = values[first : first + _VALUES_PER_STEP]
                stored = buffer[: len(part)]
                if file.readinto(stored.view(np.uint8).data) != stored.nbytes:
                    raise _damaged(spec.file, f"became shorter while it was read, at tensor {name!r}")
                if spec.dtype == "BF16":
                    np.left_shift(stored, 16, out=part.view(np.uint32), dtype=np.uint32)
                else:
                    part[:] = stored
                # The minimum and the maximum of values with a NaN are NaN: no mask as large as the part is needed.
                if not (isfinite(part.min()) and isfinite(part.max())):
                    raise CheckpointError(
                        f"{spec.file}: tensor {name!r} holds NaN or infinite values (rows {start} to {stop - 1}): "
                        "its training diverged or the file is damaged: fetch it again or use another revision"
                    )
    except OSError as err:
        raise _damaged(spec.file, f"cannot be read ({err.strerror})") from None
    return values.reshape(stop - start, *spec.shape[1:])


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises CheckpointError when the file holds anything else."""
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("no object in braces")
    except OSError as err:
        raise _damaged(path, f"cannot be read ({err.strerror})") from None
    except (ValueError, RecursionError) as err:
        raise _damaged(path, f"does not hold a JSON object ({err})") from None
    return content


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} {reason}: fetch it again")


def refuse_pickle(folder: Path) -> None:
    """Raises CheckpointError when the folder holds weights as pickle files."""
    if pickles := sorted({path.name for pattern in _PICKLES for path in folder.glob(pattern)}):
        raise CheckpointError(
            f"{folder} has its weights as pickle only ({name_some(pickles)}), which can run code and is never read: "
            "use a revision with safetensors, or load the model with transformers (or PEFT) where you trust it and "
            "call save_pretrained(FOLDER), which writes safetensors"
        )


def row_count(shape: tuple[int, ...]) -> int:
    """The number of rows; a tensor without dimensions has one."""
    return shape[0] if shape else 1


def name_some(items: Sequence[str], limit: int = 4, separator: str = ", ") -> str:
    """The first `limit` items and a count of the others. Example: `a, b and 3 more` for five items and limit 2."""
    shown = separator.join(items[:limit])
    return f"{shown} and {len(items) - limit} more" if len(items) > limit else shown
