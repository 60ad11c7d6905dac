"""The storage types of GGUF weights, as a table. Numbers are those of `enum llama_ftype` in llama.cpp's llama.h."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

F16 = "f16"


@dataclass(frozen=True, slots=True)
class GgufQuant:
    """A storage type. `bits_per_weight` is an upper bound for every size of vocabulary."""

    file_type: int  # llama.cpp's number of the type
    bits_per_weight: float
    about: str  # for the help of --quant


# _M mixtures keep half of the v and down matrices, and the output matrix, in a wider type. Their bits are an upper
# bound, reached if the vocabulary is a large part of the model (Llama 3.2 1B in q4_k_m: 5.2).
GGUF_QUANTS = {
    "q4_k_m": GgufQuant(15, 5.3, "GGUF, 4.9 bits per weight, the default of listwise models"),
    "q5_k_m": GgufQuant(17, 5.9, "GGUF, 5.7 bits"),
    "q6_k": GgufQuant(18, 6.6, "GGUF, 6.6 bits"),
    "q8_0": GgufQuant(7, 8.5, "GGUF, 8.5 bits, as good as f16"),
    "iq4_xs": GgufQuant(30, 4.8, "GGUF, 4.5 bits, slow to write"),
    F16: GgufQuant(1, 16.0, "GGUF, unquantised"),
}
_BLOCK = 256  # weights of a block of the k-types; a row that is no multiple of it takes a wider type
_WIDEST_BITS = 8.5


def size_bytes(quant: str, shapes: Iterable[tuple[int, ...]]) -> int:
    """An upper bound of the tensors' size: matrices (rows, columns) in type `quant`, vectors (columns,) in float32."""
    plan, total = GGUF_QUANTS[quant], 0.0
    for shape in shapes:
        if len(shape) == 1:
            bits = 32.0
        elif shape[1] % _BLOCK and plan.bits_per_weight < _WIDEST_BITS:
            bits = _WIDEST_BITS
        else:
            bits = plan.bits_per_weight
        total += prod(shape) * bits / 8
    return round(total)
