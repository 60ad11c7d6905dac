"""Linear layers y = x W + b on int8 matrices: the ways to compute one, as a table.

A matrix is int8 (in, out) with one scale a column, W = q * scale. The ways differ in what they do with the activations;
`docs/quantisation.md` has the measurements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from dearlite.export.onnx.graph import CONTRIB, Graph


@dataclass(frozen=True, slots=True)
class Linear:
    """One layer's parameters. `floor` is the least value an input can have, where there is one (GELU's is -0.17)."""

    name: str
    weight: Any  # int8 (in, out)
    scale: Any  # float32 (out,)
    bias: Any = None  # float32 (out,), or None where a later operator adds it
    floor: float | None = None


def per_row_int8(g: Graph, x: str, count: str, layer: Linear, *, exact_u8s8: bool = True) -> str:
    """u8 activations with one scale a row (token), s8 weights, int32 sums; x is (tokens, in), `count` names (tokens,).

    A row's scale is its largest magnitude / 127, with zero point 128, so a token's result never depends on the tokens
    beside it. Inputs with a floor are shifted to start at zero first: then all 255 steps are used, and the shift comes
    out through the bias, W(x + c) = Wx + c * colsum(W).
    """
    bias = layer.bias
    if layer.floor is None:
        magnitude, steps, zero = g.add("Abs", x), 127, 128
    else:
        x = g.add("Add", x, g.const(f"shift_{layer.name}", np.float32(-layer.floor)))
        columns = layer.weight.sum(axis=0, dtype=np.int64) * layer.scale.astype(np.float64)
        bias = bias + np.float64(np.float32(layer.floor)) * columns
        magnitude, steps, zero = x, 255, 0
    last = g.const("last_axis", np.array([-1], np.int64))
    largest = g.add("ReduceMax", magnitude, last, keepdims=1)  # (tokens, 1)
    scale = g.add("Mul", largest, g.const(f"step_{steps}", np.float32(1 / steps)))
    rows = g.add("Reshape", scale, last)  # (tokens,)
    zeros = g.once("Expand", g.const(f"zero_row_{zero}", np.array([zero], np.uint8)), count)
    quantised = g.add("QuantizeLinear", x, rows, zeros, axis=0)
    product = _int8_product(g, quantised, layer, zero, exact_u8s8)
    return _with_bias(g, g.add("Mul", product, scale), layer, bias)


def per_row_int8_wide(g: Graph, x: str, count: str, layer: Linear) -> str:
    """The same numbers on a CPU whose u8 x s8 product saturates: the weights become u8 with zero point 128 at load."""
    return per_row_int8(g, x, count, layer, exact_u8s8=False)


def dequantised(g: Graph, x: str, count: str, layer: Linear, *, half: bool = False) -> str:
    """A float product with W = q * scale: the reference that the int8 ways are held to.

    Written as Cast and Mul, which ONNX Runtime folds once at load; it would run DequantizeLinear at every call.
    """
    scale = g.weight(f"{layer.name}.scale", layer.scale)
    w = g.add("Mul", g.add("Cast", g.weight(f"{layer.name}.weight", layer.weight), to=TensorProto.FLOAT), scale)
    if half:
        w = g.add("Cast", w, to=TensorProto.FLOAT16)
    return _with_bias(g, g.add("MatMul", x, w), layer, layer.bias, np.float16 if half else np.float32)


def dequantised_half(g: Graph, x: str, count: str, layer: Linear) -> str:
    """The same in fp16, for a GPU: CUDA has no kernels for the int8 operators above."""
    return dequantised(g, x, count, layer, half=True)


def _with_bias(g: Graph, product: str, layer: Linear, bias: Any, dtype: Any = np.float32) -> str:
    if bias is None:
        return product
    shifted = "" if bias is layer.bias else ".shifted"
    half = "" if dtype is np.float32 else ".half"
    return g.add("Add", product, g.weight(f"{layer.name}.bias{shifted}{half}", bias.astype(dtype)))


def _int8_product(g: Graph, quantised: str, layer: Linear, zero: int, exact_u8s8: bool) -> str:
    """The product of zero-point-free values, times the column scales: (tokens, out) float32."""
    weight = g.weight(f"{layer.name}.weight", layer.weight)
    weight_zero = ""
    if not exact_u8s8:  # constant, so ONNX Runtime folds these three when it loads the graph
        wide = g.add("Cast", weight, to=TensorProto.INT32)
        wide = g.add("Add", wide, g.const("offset_128", np.int32(128)))
        weight = g.add("Cast", wide, to=TensorProto.UINT8)
        weight_zero = g.const("weight_zero_128", np.uint8(128))
    scale = g.weight(f"{layer.name}.scale", layer.scale)
    one, zero_name = g.const("one", np.float32(1)), g.const(f"zero_{zero}", np.uint8(zero))
    return g.add("MatMulIntegerToFloat", quantised, weight, one, scale, zero_name, weight_zero, domain=CONTRIB)


# A way takes the graph, the input, the name of its row count (an int64 (1,) value) and the layer.
LinearWay = Callable[[Graph, str, str, Linear], str]

LINEAR_WAYS: dict[str, LinearWay] = {
    "int8-per-row": per_row_int8,
    "int8-per-row-wide": per_row_int8_wide,
    "dequantised": dequantised,
    "dequantised-half": dequantised_half,
}
