"""A Hugging Face model folder, read a tensor or a block of rows at a time, always as float32.

This module knows files and numbers, not what a tensor is for. A read holds the rows that were asked for, nothing else:
rows are read, not mapped, since the touched pages of a mapping would count as memory of this process.
Format (https://github.com/huggingface/safetensors#format): 8 bytes, little endian, the header's length N; N bytes of
JSON, `{name: {"dtype", "shape", "data_offsets": [begin, end]}}` and perhaps `__metadata__`; then the data, row by row,
without gaps. Offsets count from the data's first byte. Every number of a header is checked before it is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite, prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dearlite.errors import CheckpointError

Floats = NDArray[np.float32]

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# What is read, and as what it lies in the file; bf16 is the upper half of a float32.
_STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
# Counters and tables that some models carry (position ids): listed, and refused only when they are read.
_NO_WEIGHTS = {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"}
# Converted in the cache: 1.5 times faster than at once for a block of 8 million values, 2.5 times for 32 million.
_VALUES_AT_ONCE = 2**18
_LARGEST_HEADER_BYTES = 100_000_000  # the limit of the reference implementation
_PICKLES = ("*model*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Where a tensor lies: `offset` is its first byte, counted from the start of `file`."""

    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int


class TensorSource(Protocol):
    """What an exporter reads from: names, shapes and float32 values of a model's tensors."""

    config: dict[str, Any]

    @property
    def names(self) -> Collection[str]:
        """Every tensor's name, in the order of the file."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape. Raises CheckpointError when there is none of that name."""
        ...

    def rows(self, name: str, start: int, stop: int) -> Floats:
        """The rows from `start` up to `stop`; a tensor without dimensions has one row."""
        ...

    def read(self, name: str) -> Floats:
        """The whole tensor."""
        shape = self.shape(name)
        return self.rows(name, 0, row_count(shape)).reshape(shape)

    def blocks(self, name: str, rows_per_block: int) -> Iterator[Floats]:
        """The tensor in order, `rows_per_block` rows at a time; the last block may be shorter."""
        count = row_count(self.shape(name))
        for start in range(0, count, rows_per_block):
            yield self.rows(name, start, min(start + rows_per_block, count))


class Checkpoint(TensorSource):
    """A folder with config.json and model.safetensors, or its shards with their index; the headers are checked."""

    def __init__(self, folder: str | Path) -> None:
        """Raises CheckpointError when the folder is no whole model. Values are checked when they are read."""
        self.folder = Path(folder)
        if not self.folder.is_dir():
            what = "is a file" if self.folder.exists() else "does not exist"
            raise CheckpointError(f"{folder} {what}: give the folder that holds config.json and {WEIGHTS}")
        has = {
            name for name in ("config.json", "adapter_config.json", WEIGHTS, INDEX) if (self.folder / name).is_file()
        }
        if "adapter_config.json" in has and not has & {WEIGHTS, INDEX}:
            raise CheckpointError(f"{folder} is a LoRA adapter: give it as the adapter, with the folder of its base")
        if "config.json" not in has:
            raise CheckpointError(f"{folder} has no config.json: fetch the model again, with all of its files")
        self.config = read_json(self.folder / "config.json")
        self._specs = self._locate()

    @property
    def names(self) -> Collection[str]:
        return self._specs.keys()

    def spec(self, name: str) -> TensorSpec:
        """Where the tensor lies. Raises CheckpointError with the nearest names."""
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
        """The text of the folder's licence file, empty when it has none."""
        for path in sorted(self.folder.iterdir()):
            if path.stem.lower() in {"license", "licence", "copying"} and path.is_file():
                return path.read_text(encoding="utf-8", errors="replace")
        return ""

    def sha256s(self) -> dict[str, str]:
        """The sha256 of each weight file by its name: where the model came from. Reads every byte."""
        found = {}
        for path in sorted({spec.file for spec in self._specs.values()}):
            with open(path, "rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
        return found

    def _locate(self) -> dict[str, TensorSpec]:
        if (self.folder / WEIGHTS).is_file():
            return read_header(self.folder / WEIGHTS)
        if (self.folder / INDEX).is_file():
            return _read_index(self.folder / INDEX)
        if any(self.folder.glob("model*.safetensors")):
            raise CheckpointError(f"{self.folder} has neither {WEIGHTS} nor {INDEX}: fetch the index with its shards")
        refuse_pickle(self.folder)
        raise CheckpointError(f"{self.folder} has no weights: fetch {WEIGHTS}, or {INDEX} and the shards that it names")


def _read_index(path: Path) -> dict[str, TensorSpec]:
    """The tensors that an index names, each looked up in its shard's own header."""
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise _damaged(path, "has no weight_map from tensors to files")
    files = sorted(set(places.values()))
    if outside := [file for file in files if Path(file).name != file]:
        raise CheckpointError(f"{path} names files outside its folder ({name_some(outside)}): do not use this model")
    if missing := [file for file in files if not (path.parent / file).is_file()]:
        raise CheckpointError(
            f"{path.parent} lacks {len(missing)} of the {len(files)} shards that {path.name} names "
            f"({name_some(missing)}): fetch what is missing"
        )
    headers = {file: read_header(path.parent / file) for file in files}
    if absent := [f"{name!r} in {file}" for name, file in places.items() if name not in headers[file]]:
        raise CheckpointError(
            f"{path} names {len(absent)} tensors that their shard does not hold ({name_some(absent)}): "
            "index and shards are of different revisions, fetch all of them again"
        )
    return {name: headers[file][name] for name, file in places.items()}


def read_header(path: Path) -> dict[str, TensorSpec]:
    """Where each tensor of a safetensors file lies. Raises CheckpointError unless the whole file is accounted for."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            head = file.read(8)
            length = int.from_bytes(head, "little")
            if head == b"version ":
                raise CheckpointError(f"{path} is a Git LFS pointer, not the weights: run `git lfs pull` in its folder")
            if size < 8 or 8 + length > size or length > _LARGEST_HEADER_BYTES:
                what = f"it has {size} bytes, and its header alone needs {8 + length}"
                raise _damaged(path, f"is truncated or no safetensors file ({what})")
            entries = json.loads(file.read(length))
            if not isinstance(entries, dict):
                raise ValueError("it lists no tensors")
    except OSError as err:
        raise _damaged(path, f"cannot be read ({err.strerror})") from None
    except (ValueError, RecursionError) as err:
        raise _damaged(path, f"has a damaged header ({err})") from None
    entries.pop("__metadata__", None)
    data = 8 + length
    found = {name: _parse_entry(path, name, entry, data, size - data) for name, entry in entries.items()}
    reached, last = 0, "the header"
    for name in sorted(entries, key=lambda name: tuple(entries[name]["data_offsets"])):
        begin, end = entries[name]["data_offsets"]
        if begin != reached:
            how = "overlap" if begin < reached else "leave a gap"
            raise _damaged(path, f"is damaged ({last} and tensor {name!r} {how} at byte {data + begin})")
        reached, last = end, f"tensor {name!r}"
    if reached != size - data:
        raise _damaged(path, f"has {size - data - reached} bytes that belong to no tensor")
    return found


def _parse_entry(path: Path, name: str, entry: Any, data: int, size: int) -> TensorSpec:
    """One tensor of a header whose `size` bytes of data begin at byte `data` of the file."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]} if all(
            type(number) is int and number >= 0 for number in (*shape, begin, end)
        ):
            pass
        case _:
            raise _damaged(path, f"has a damaged header (no valid dtype, shape and offsets for tensor {name!r})")
    if dtype not in _STORED and dtype not in _NO_WEIGHTS:
        raise CheckpointError(
            f"{path}: tensor {name!r} is stored as {dtype!r}, and only {', '.join(_STORED)} are read: "
            "use the model's bf16, fp16 or fp32 revision"
        )
    if end > size:
        raise _damaged(path, f"is truncated (tensor {name!r} ends at byte {data + end} of {data + size})")
    wanted = prod(shape) * np.dtype(_STORED[dtype]).itemsize if dtype in _STORED else end - begin
    if end - begin != wanted:
        what = f"{dtype} of shape {tuple(shape)} takes {wanted}"
        raise _damaged(path, f"is damaged (tensor {name!r} has {end - begin} bytes where {what})")
    return TensorSpec(dtype, tuple(shape), path, data + begin)


def read_rows(name: str, spec: TensorSpec, start: int, stop: int) -> Floats:
    """Rows from `start` up to `stop` as float32, (rows, *the other dimensions). Raises CheckpointError for NaN."""
    assert 0 <= start <= stop <= row_count(spec.shape), f"{name}: rows {start} to {stop} of {spec.shape}"
    if spec.dtype not in _STORED:
        raise CheckpointError(f"{spec.file}: tensor {name!r} is {spec.dtype}, not a float: use an unquantised revision")
    width = prod(spec.shape[1:])
    values = np.empty((stop - start) * width, np.float32)
    stored = np.empty(min(len(values), _VALUES_AT_ONCE), _STORED[spec.dtype])
    try:
        with open(spec.file, "rb") as file, np.errstate(invalid="ignore"):
            file.seek(spec.offset + start * width * stored.itemsize)
            for first in range(0, len(values), _VALUES_AT_ONCE):
                part = values[first : first + _VALUES_AT_ONCE]
                given = stored[: len(part)]
                if file.readinto(given.view(np.uint8).data) != given.nbytes:
                    raise _damaged(spec.file, f"became shorter while it was read, at tensor {name!r}")
                if spec.dtype == "BF16":
                    np.left_shift(given, 16, out=part.view(np.uint32), dtype=np.uint32)
                else:
                    part[:] = given
                # The extremes of anything that holds a NaN are NaN: no mask as large as the part is needed.
                if not (isfinite(part.min()) and isfinite(part.max())):
                    raise CheckpointError(
                        f"{spec.file}: tensor {name!r} holds NaN or infinite values (rows {start} to {stop - 1}): "
                        "its training diverged or the file is damaged: fetch it again or use another revision"
                    )
    except OSError as err:
        raise _damaged(spec.file, f"cannot be read ({err.strerror})") from None
    return values.reshape(stop - start, *spec.shape[1:])


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises CheckpointError for anything else."""
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError("no object in braces")
    except OSError as err:
        raise _damaged(path, f"cannot be read ({err.strerror})") from None
    except (ValueError, RecursionError) as err:
        raise _damaged(path, f"is not the JSON that belongs there ({err})") from None
    return found


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} {reason}: fetch it again")


def refuse_pickle(folder: Path) -> None:
    """Raises CheckpointError when the folder holds weights as pickle files."""
    if pickles := sorted({path.name for pattern in _PICKLES for path in folder.glob(pattern)}):
        raise CheckpointError(
            f"{folder} has its weights as pickle only ({name_some(pickles)}), which can run code and is never read: "
            "use a revision with safetensors, or load it with transformers (or PEFT) where you trust it and "
            "save_pretrained(FOLDER), which writes safetensors"
        )


def row_count(shape: tuple[int, ...]) -> int:
    """The number of rows; a tensor without dimensions has one."""
    return shape[0] if shape else 1


def name_some(items: Sequence[str], limit: int = 4, separator: str = ", ") -> str:
    """The first few items and how many more there are. Example: `a, b and 3 more` for five items and limit 2."""
    shown = separator.join(items[:limit])
    return f"{shown} and {len(items) - limit} more" if len(items) > limit else shown
