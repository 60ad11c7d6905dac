"""The writer of the f16 GGUF: its head with the `gguf` package, then the weights in blocks of rows.

Matrices become f16 (rounded to nearest even, like llama.cpp's converter), vectors stay f32. Two threads read, merge
and convert the next blocks while the caller's thread writes; the model is never whole in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from dearlite.errors import CheckpointError, need
from dearlite.export.gguf.vocabulary import Vocabulary
from dearlite.export.gguf.weights import Weight
from dearlite.export.source.checkpoint import Floats, TensorSource, row_count

_ALIGNMENT = 32
_WORKERS = 2
_VALUES_AT_ONCE = 2**20  # 4 MB as float32, near the size of a core's cache
_F16_OVERFLOW = 65520  # from this value on, rounding to f16 gives infinity
_NONE: Mapping[str, Floats] = {}


class Watcher(Protocol):
    """A receiver of the merged float32 weights while they are written."""

    def see(self, weight: Weight, first: int, block: Floats) -> None:
        """Receives `block`, the rows of `weight` from `first` on."""
        ...


def write_head(
    path: Path,
    architecture: str,
    values: Sequence[tuple[str, Any]],
    vocabulary: Vocabulary,
    weights: Sequence[Weight] = (),
    factors: Mapping[str, Floats] = _NONE,
) -> None:
    """Writes everything before the data. Without `weights` the file is a complete GGUF of the vocabulary alone.

    `factors` are the float32 tensors of rotary positions, which come first.
    """
    gguf = need("gguf", extra="export")
    writer = gguf.GGUFWriter(path, architecture)
    kinds = {int: gguf.GGUFValueType.UINT32, float: gguf.GGUFValueType.FLOAT32, str: gguf.GGUFValueType.STRING}
    for key, value in values:
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            writer.add_key_value(key, value, kinds[type(value)])
    _add_vocabulary(writer, vocabulary)
    for name, factor in factors.items() if weights else ():
        writer.add_tensor_info(name, factor.shape, factor.dtype, factor.nbytes)
    for weight in weights:
        dtype = np.dtype(np.float16 if weight.is_matrix else np.float32)
        writer.add_tensor_info(weight.gguf, weight.shape, dtype, prod(weight.shape) * dtype.itemsize)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def _add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    if vocabulary.adds_space_prefix is not None:
        writer.add_add_space_prefix(vocabulary.adds_space_prefix)
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.types)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    for kind, number in vocabulary.special_ids.items():
        if add := getattr(writer, f"add_{kind}_token_id", None):
            add(number)
    for kind, added in vocabulary.adds.items():
        if add := getattr(writer, f"add_add_{kind}_token", None):
            add(added)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)
    for side, ids in vocabulary.strips.items():
        writer.add_array(f"dearlite.{side}", ids)


def write_weights(
    path: Path,
    source: TensorSource,
    weights: Sequence[Weight],
    factors: Mapping[str, Floats] = _NONE,
    watcher: Watcher | None = None,
) -> None:
    """Appends the data of the tensors that `write_head` listed, in the same order."""
    with open(path, "ab") as file, ThreadPoolExecutor(_WORKERS) as ahead:
        _pad(file)
        for values in factors.values():
            _write(file, values)
            _pad(file)
        for weight, first, block, data in _blocks(source, weights, ahead):
            if watcher is not None:
                watcher.see(weight, first, block)
            _write(file, data)
            if first + len(block) == row_count(weight.shape):
                _pad(file)


def _blocks(
    source: TensorSource, weights: Sequence[Weight], ahead: ThreadPoolExecutor
) -> Iterator[tuple[Weight, int, Floats, Any]]:
    """Blocks of rows of every weight: (weight, number of the first row, merged float32 rows, data to write)."""

    def make(weight: Weight, start: int, stop: int) -> tuple[Weight, int, Floats, Any]:
        block = source.rows(weight.name, start, stop)
        rows = _interleave_halves(block, weight.shape[0] // weight.permuted_heads) if weight.permuted_heads else block
        if weight.offset:
            rows = rows + np.float32(weight.offset)
        return weight, start, block, _as_f16(rows, weight) if weight.is_matrix else rows

    waiting: deque[Future[tuple[Weight, int, Floats, Any]]] = deque()
    try:
        for rows in _row_ranges(weights):
            waiting.append(ahead.submit(make, *rows))
            if len(waiting) > _WORKERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for job in waiting:
            job.cancel()


def _row_ranges(weights: Sequence[Weight]) -> Iterator[tuple[Weight, int, int]]:
    """(weight, start, stop) of each block of rows. A permuted weight is cut between heads."""
    for weight in weights:
        rows = row_count(weight.shape)
        step = max(1, _VALUES_AT_ONCE // (prod(weight.shape[1:]) or 1))
        if weight.permuted_heads:
            size = rows // weight.permuted_heads
            step = max(1, step // size) * size
        for start in range(0, rows, step):
            yield weight, start, min(start + step, rows)


def _interleave_halves(block: Floats, size: int) -> Floats:
    """The rows of each head of `size` rows in the order 0, size/2, 1, size/2 + 1, …: rotated pairs are neighbours."""
    halves = block.reshape(-1, 2, size // 2, block.shape[1])  # (heads, half, row of it, columns)
    return halves.swapaxes(1, 2).reshape(block.shape)


def _as_f16(block: Floats, weight: Weight) -> Any:
    if max(block.max(), -block.min()) >= _F16_OVERFLOW:
        raise CheckpointError(
            f"{weight.name} holds values beyond f16's range ({block.max():.3g}, {block.min():.3g}): its training "
            "diverged, or the file is damaged: fetch it again or choose another revision"
        )
    return block.astype(np.float16)


def _write(file: IO[bytes], values: Any) -> None:
    file.write(np.ascontiguousarray(values).view(np.uint8).data)


def _pad(file: IO[bytes]) -> None:
    file.write(bytes(-file.tell() % _ALIGNMENT))
