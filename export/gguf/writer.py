"""The f16 GGUF: its head by the `gguf` package, then the weights in blocks of rows, never a whole model in memory.

Matrices become f16 (rounded to nearest even, as llama.cpp's converter has them), vectors stay f32. Two
threads read, merge and convert the blocks that come next while this one writes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from dearlite.errors import CheckpointError, need
from dearlite.export.gguf.architectures import ROPE_FACTORS, Weight
from dearlite.export.gguf.vocabulary import Vocabulary
from dearlite.export.source.checkpoint import Floats, TensorSource, row_count

_ALIGNMENT = 32
_WORKERS = 2
_VALUES_AT_ONCE = 2**20  # 4 MB as float32: near a core's cache
_LARGEST_F16 = 65520  # from here on rounding gives infinity


class Watcher(Protocol):
    """Someone who looks at the merged float32 weights while they pass."""

    def see(self, weight: Weight, first: int, block: Floats) -> None:
        """`block` holds the rows of `weight` from `first` on."""
        ...


def write_head(
    path: Path,
    architecture: str,
    values: Sequence[tuple[str, Any]],
    vocabulary: Vocabulary,
    weights: Sequence[Weight] = (),
    factors: Floats | None = None,
) -> None:
    """Writes everything but the data; without `weights` that is a whole GGUF, of a vocabulary."""
    gguf = need("gguf", extra="export")
    writer = gguf.GGUFWriter(path, architecture)
    kinds = {int: gguf.GGUFValueType.UINT32, float: gguf.GGUFValueType.FLOAT32, str: gguf.GGUFValueType.STRING}
    for key, value in values:
        writer.add_key_value(key, value, kinds[type(value)])
    _add_vocabulary(writer, vocabulary)
    if factors is not None and weights:
        writer.add_tensor_info(ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
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


def write_weights(
    path: Path,
    source: TensorSource,
    weights: Sequence[Weight],
    factors: Floats | None = None,
    watcher: Watcher | None = None,
) -> None:
    """Appends the data of the tensors that `write_head` announced, in its order."""
    with open(path, "ab") as file, ThreadPoolExecutor(_WORKERS) as ahead:
        _pad(file)
        if factors is not None:
            _write(file, factors)
            _pad(file)
        for weight, first, block, data in _made(source, weights, ahead):
            if watcher is not None:
                watcher.see(weight, first, block)
            _write(file, data)
            if first + len(block) == row_count(weight.shape):
                _pad(file)


def _made(
    source: TensorSource, weights: Sequence[Weight], ahead: ThreadPoolExecutor
) -> Iterator[tuple[Weight, int, Floats, Any]]:
    """Every weight in blocks of rows: its first row's number, the merged float32 rows, and what is written of them."""

    def make(weight: Weight, start: int, stop: int) -> tuple[Weight, int, Floats, Any]:
        block = source.rows(weight.name, start, stop)
        rows = _neighbours(block, weight.shape[0] // weight.permuted_heads) if weight.permuted_heads else block
        return weight, start, block, _as_f16(rows, weight) if weight.is_matrix else rows

    waiting: deque[Future[tuple[Weight, int, Floats, Any]]] = deque()
    try:
        for part in _parts(weights):
            waiting.append(ahead.submit(make, *part))
            if len(waiting) > _WORKERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for job in waiting:
            job.cancel()


def _parts(weights: Sequence[Weight]) -> Iterator[tuple[Weight, int, int]]:
    """Every weight with the rows of each of its blocks: from, up to. A permuted one is cut between heads."""
    for weight in weights:
        rows = row_count(weight.shape)
        step = max(1, _VALUES_AT_ONCE // (prod(weight.shape[1:]) or 1))
        if weight.permuted_heads:
            size = rows // weight.permuted_heads
            step = max(1, step // size) * size
        for start in range(0, rows, step):
            yield weight, start, min(start + step, rows)


def _neighbours(block: Floats, size: int) -> Floats:
    """Rows of heads of `size` rows: 0, size/2, 1, size/2 + 1 … Pairs that turn together come to lie together."""
    halves = block.reshape(-1, 2, size // 2, block.shape[1])  # (heads, half, row of it, columns)
    return halves.swapaxes(1, 2).reshape(block.shape)


def _as_f16(block: Floats, weight: Weight) -> Any:
    if max(block.max(), -block.min()) >= _LARGEST_F16:
        raise CheckpointError(
            f"{weight.name} holds values beyond f16's range ({block.max():.3g}, {block.min():.3g}): its training "
            "diverged, or the file is damaged: fetch it again or use another revision"
        )
    return block.astype(np.float16)


def _write(file: IO[bytes], values: Any) -> None:
    file.write(np.ascontiguousarray(values).view(np.uint8).data)


def _pad(file: IO[bytes]) -> None:
    file.write(bytes(-file.tell() % _ALIGNMENT))
