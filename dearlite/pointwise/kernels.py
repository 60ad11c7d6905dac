"""The kernels with which ONNX Runtime multiplies 8-bit integers on this CPU, in words, and the measured rate of one."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from dearlite.foreign import Foreign, engine_errors
from dearlite.models.pair_limit import multiplies_int8
from dearlite.pointwise.onnxruntime import LIBRARY, PROVIDERS, multiplies_u8s8_exactly, onnxruntime
from dearlite.processor import architecture, cpu_features

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dearlite.models.bundle import Bundle
    from dearlite.models.manifest import Build

# name -> the meaning for a user
_KERNELS = {
    "VNNI": "the fastest of x86 CPUs, exact for all weights",
    "AVX2 exact": "this CPU has no VNNI, so that products are exact only for weights that were limited in the export",
    "SSE4.1": "this CPU has no AVX2; slow, exact for all weights",
    "Arm matrix": "matrix instructions (i8mm), the fastest of Arm CPUs, exact for all weights",
    "Arm dot product": "exact for all weights",
    "Arm without dot product": "this CPU is older than Arm's dot products; slow, and exact",
    "generic": "ONNX Runtime has none for this CPU in particular",
}

_OLDER = "u8 x u8: the second graph of an older file, which is slower; export the model again for the faster one"

_SHAPE = (128, 1024, 1024)  # rows, inputs, outputs of the products in `product_rates`
_MEASURED_S = 0.02  # the least duration of one of its measurements
_REPEATS = 5
_SHIPPED = (8192, 3072)  # inputs and outputs of the graphs in dearlite/data
_GRAPHS = {"int8": "u8s8_product.onnx", "float32": "f32_product.onnx"}


@dataclass(frozen=True, slots=True)
class ProductRates:
    """10^9 additions and multiplications per second of one core, in products of 8-bit integers and of fp32."""

    int8_gops: float
    fp32_gops: float

    def __str__(self) -> str:
        return (
            f"{self.int8_gops:.0f} GOP/s in int8, {self.fp32_gops:.0f} in fp32 ({self.int8_gops / self.fp32_gops:.1f} "
            "times), 10^9 additions and multiplications a second on one core"
        )


def kernels() -> str:
    """The name of the kernels of int8 products on this CPU, a key of the table above."""
    features = cpu_features()
    if architecture() == "x86_64":
        if "AVX2" not in features:
            return "SSE4.1"
        return "VNNI" if multiplies_u8s8_exactly() else "AVX2 exact"
    if architecture() == "arm64":
        if "I8MM" in features and sys.platform == "linux":  # ONNX Runtime has these for Linux only
            return "Arm matrix"
        return "Arm dot product" if "ASIMDDP" in features else "Arm without dot product"
    return "generic"


def kernels_in_words() -> str:
    """The name of the kernels, and their meaning."""
    return f"{kernels()}: {_KERNELS[kernels()]}"


def kernels_of(bundle: Bundle, build: Build) -> str:
    """The kernels that a model's graph runs with, in words: this CPU's, but for the second graph of older files."""
    return kernels_in_words() if multiplies_int8(bundle, build.graph) else _OLDER


def product_rates() -> ProductRates:
    """The rates of small products on one thread, the best of some repetitions: about a quarter of a second of work.

    The weights are so small that no sum saturates, which does not change the speed.
    """
    import numpy as np

    rows, inputs, outputs = _SHAPE
    jobs = [
        (open_product(np.full((inputs, outputs), 2, dtype)), {"a": np.full((rows, inputs), 3, factor)})
        for dtype, factor in ((np.int8, np.uint8), (np.float32, np.float32))
    ]
    best = [0.0, 0.0]
    for _ in range(_REPEATS):  # in turn: a disturbance then reaches both
        for number, (session, feeds) in enumerate(jobs):
            count, start = 0, time.perf_counter()
            while (elapsed_s := time.perf_counter() - start) < _MEASURED_S or not count:
                session.run(None, feeds)
                count += 1
            best[number] = max(best[number], 2 * rows * inputs * outputs * count / elapsed_s / 1e9)
    return ProductRates(*best)


def open_product(weights: NDArray[Any]) -> Any:
    """A session of one thread for the product of `a` (rows, inputs) and `weights` (inputs, outputs).

    Both sides of the matrix are from 128 to 16,383. For int8 weights `a` is uint8 and the product int32; for float32
    all are float32.
    """
    ort = onnxruntime()
    graph = resources.files("dearlite").joinpath("data", _GRAPHS[weights.dtype.name]).read_bytes()
    for shipped, side in zip(_SHIPPED, weights.shape, strict=True):
        graph = graph.replace(_two_bytes(shipped), _two_bytes(side))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_external_initializers(["b"], [ort.OrtValue.ortvalue_from_numpy(weights)])
    with engine_errors(LIBRARY):
        return Foreign(LIBRARY, ort.InferenceSession(graph, options, providers=[PROVIDERS["cpu"]]))


def _two_bytes(number: int) -> bytes:
    """A protobuf varint of two bytes, which 128 to 16,383 have."""
    return bytes([number & 127 | 128, number >> 7])
