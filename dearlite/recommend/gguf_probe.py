"""The rate of llama.cpp on this machine's CPU, measured with models of zeros in a temporary GGUF file.

Zeros multiply as fast as other weights, and a file of zeros is written without its data.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

from dearlite.llama.context import BATCH_TOKENS, Plan
from dearlite.llama.model import LlamaModel
from dearlite.models.gguf import TENSOR_TYPES, GgufFile
from dearlite.recommend.rates import GgufRates

_ALIGNMENT = 32
_U32, _I32, _F32, _STRING, _ARRAY = 4, 5, 6, 8, 9  # types of GGUF's metadata
_CONTROL, _BYTE = 3, 6  # types of tokens
_HEAD_SIZE = 64
_REPEATS = 2
_NUMBERS = {name: number for number, (name, _, _) in TENSOR_TYPES.items()}


@dataclass(frozen=True, slots=True)
class _Shape:
    hidden: int
    ffn: int
    layers: int

    @property
    def operations(self) -> int:
        """Additions and multiplications of a token in products with the matrices.

        llama.cpp runs the last layer's feed-forward part only for tokens with an output, and the probe asks for none.
        """
        return 2 * self.hidden * (4 * self.layers * self.hidden + 3 * (self.layers - 1) * self.ffn)

    @property
    def values(self) -> int:
        return self.layers * self.hidden


# A narrow model, whose time is mostly that of attention and sums, and a wide one. Widths are multiples of a block, 256.
_SHAPES = (_Shape(256, 512, 4), _Shape(1024, 3072, 2))


def probe_gguf(kind: str, threads: int) -> GgufRates:
    """The rates with weights of the type `kind`, from the shortest call of each of two models.

    Processor seconds are counted, so that other work on the machine matters little. Raises MissingExtra without
    llama.cpp.
    """
    narrow, wide = _SHAPES
    fast_s, slow_s = (_seconds_per_token(shape, kind, threads) for shape in _SHAPES)
    # seconds = operations / rate + values x value_s, for both models
    determinant = narrow.operations * wide.values - wide.operations * narrow.values
    operation_s = (fast_s * wide.values - slow_s * narrow.values) / determinant
    value_s = (narrow.operations * slow_s - wide.operations * fast_s) / determinant
    if operation_s <= 0 or value_s < 0:  # a disturbed measurement: all time is that of the wide model's products
        operation_s, value_s = slow_s / wide.operations, 0.0
    return GgufRates(1 / operation_s, value_s)


def _seconds_per_token(shape: _Shape, kind: str, threads: int) -> float:
    """Seconds per token if every thread has a core: processor seconds divided by the number of threads."""
    with TemporaryDirectory(prefix="dearlite-") as folder:
        path = Path(folder, "probe.gguf")
        _write(path, shape, kind)
        model = LlamaModel(GgufFile(path), device="cpu", threads=threads)
        try:
            times = []
            for _ in range(_REPEATS):
                model.open(Plan(BATCH_TOKENS, 1))
                start = time.process_time()
                model.read({0: [0] * BATCH_TOKENS}, (), None)
                times.append(time.process_time() - start)
        finally:
            model.close()
    return min(times) / threads / BATCH_TOKENS


def _write(path: Path, shape: _Shape, kind: str) -> None:
    """Writes a LLaMA of `shape` whose matrices are zeros of the type `kind`."""
    tokens = ["<unk>", "<s>", "</s>", "<0x0A>"]
    metadata = {
        "general.architecture": "llama",
        "llama.context_length": BATCH_TOKENS,
        "llama.embedding_length": shape.hidden,
        "llama.feed_forward_length": shape.ffn,
        "llama.block_count": shape.layers,
        "llama.attention.head_count": shape.hidden // _HEAD_SIZE,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * len(tokens),
        "tokenizer.ggml.token_type": [_CONTROL] * 3 + [_BYTE],
    }
    header, offset, entries = b"", 0, []
    for name, sides, stored in _tensors(shape, len(tokens), kind):
        _, weights, size = TENSOR_TYPES[_NUMBERS[stored]]
        dimensions = struct.pack(f"<I{len(sides)}Q", len(sides), *sides)
        entries.append(_string(name) + dimensions + struct.pack("<IQ", _NUMBERS[stored], offset))
        offset += -(-prod(sides) // weights * size // _ALIGNMENT) * _ALIGNMENT
    header = b"GGUF" + struct.pack("<IQQ", 3, len(entries), len(metadata))
    header += b"".join(_string(key) + _typed(value) for key, value in metadata.items()) + b"".join(entries)
    with open(path, "wb") as file:
        file.write(header)
        file.truncate(-(-len(header) // _ALIGNMENT) * _ALIGNMENT + offset)


def _tensors(shape: _Shape, tokens: int, kind: str) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Name, dimensions (fastest first) and type of each tensor."""
    yield "token_embd.weight", (shape.hidden, tokens), "f32"
    yield "output_norm.weight", (shape.hidden,), "f32"
    for layer in range(shape.layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"blk.{layer}.{name}.weight", (shape.hidden, shape.hidden), kind
        for name in ("ffn_gate", "ffn_up"):
            yield f"blk.{layer}.{name}.weight", (shape.hidden, shape.ffn), kind
        yield f"blk.{layer}.ffn_down.weight", (shape.ffn, shape.hidden), kind
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{name}.weight", (shape.hidden,), "f32"


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _typed(value: object) -> bytes:
    """A value of the metadata behind its type; the numbers of a list are signed."""
    if isinstance(value, list):
        kind = {str: _STRING, float: _F32, int: _I32}[type(value[0])]
        return struct.pack("<IIQ", _ARRAY, kind, len(value)) + b"".join(_typed(item)[4:] for item in value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _string(value)
    return struct.pack("<If", _F32, value) if isinstance(value, float) else struct.pack("<II", _U32, value)
