"""The limit on int8 weights that makes u8 x s8 products exact on every CPU, and its check in a `.dear` file.

x86 CPUs with AVX2 and no VNNI multiply by `vpmaddubsw`, which adds the products of two neighbours in 16 bits:
a0 w0 + a1 w1, where a0 and a1 are at most 255. The sum saturates only if |w0 + w1| > 128 (255 * 128 = 32640, and
32767 is the largest number of 16 bits). Neighbours are rows 2i and 2i + 1 of a matrix (in, out), in one column.
Without -128 the same weights are exact on Arm CPUs without dot products too, which add two products of s8 x s8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dearlite.errors import ModelFileError
from dearlite.models.protobuf import GRAPH, NODE, NODE_INPUT, OP_TYPE, Message

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dearlite.models.bundle import Bundle

LARGEST = 127  # magnitude of a weight
PAIR_LIMIT = 128  # magnitude of the sum of two neighbours

_PRODUCTS = (b"MatMulInteger", b"MatMulIntegerToFloat", b"DynamicQuantizeMatMul")
_ROWS = 4096  # rows that are checked together; an even number


def int8_factors(graph: bytes) -> set[str]:
    """The names of the values that the serialised graph multiplies as integers, from the right.

    Empty for a damaged graph, which ONNX Runtime reports.
    """
    try:
        nodes = [Message.parse(value) for value in Message.parse(Message.parse(graph).value(GRAPH)).values(NODE)]
        return {node.values(NODE_INPUT)[1].decode() for node in nodes if node.value(OP_TYPE) in _PRODUCTS}
    except (AttributeError, IndexError, TypeError, ValueError):
        return set()


def keeps_limit(weight: NDArray[np.int8]) -> bool:
    """True if no weight of the matrix (in, out) is -128, and no sum of two neighbours is beyond PAIR_LIMIT."""
    for start in range(0, len(weight), _ROWS):
        block = weight[start : start + _ROWS]
        paired = len(block) // 2 * 2
        sums = block[0:paired:2].astype(np.int16) + block[1:paired:2]
        if (block < -LARGEST).any() or (np.abs(sums) > PAIR_LIMIT).any():
            return False
    return True


def multiplies_int8(bundle: Bundle, graph: str) -> bool:
    """True if the bundle's graph multiplies int8 tensors by activations, as they are."""
    return bool(_matrices(bundle, graph))


def check_pair_limit(bundle: Bundle) -> int:
    """The number of int8 matrices that the CPU's graphs multiply, in a file that states `pair_limited`; else 0.

    Raises ModelFileError for the first that is beyond the limit.
    """
    if not bundle.manifest.pair_limited:
        return 0
    names = sorted({name for b in bundle.manifest.builds if b.device == "cpu" for name in _matrices(bundle, b.graph)})
    for name, weight in bundle.tensors(names).items():
        if not keeps_limit(weight):
            raise ModelFileError(
                f"{bundle.path}: its manifest states pair_limited, and two neighbours in {name} sum to more than "
                f"{PAIR_LIMIT}, so that some CPUs multiply it wrongly: export the model again"
            )
    return len(names)


def _matrices(bundle: Bundle, graph: str) -> set[str]:
    """The int8 tensors of weights.bin that the graph multiplies as they are."""
    tensors: dict[str, Any] = dict(bundle.manifest.tensors)
    return {name for name in int8_factors(bundle.read(graph)) if name in tensors and tensors[name].dtype == "int8"}
