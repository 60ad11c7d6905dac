"""Linear layers y = x W + b on quantised matrices, and the ways to compute them, as a table.

An int8 matrix is (in, out) with one scale per column, W = q * scale. The ways differ in the treatment of activations;
`docs/quantisation.md` has measurements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from onnx import TensorProto

from dearlite.export.onnx.graph import CONTRIB, Graph


@dataclass(frozen=True, slots=True)
class Linear:
    """The parameters of a layer. `floor` is the minimum of its inputs, if they have one (-0.17 after GELU).

    `times` is a power of two to multiply the product by; `int8_weights_float` alone uses it.
    """

    name: str
    weight: Any  # int8 (in, out)
    scale: Any  # float32 (out,)
    bias: Any = None  # float32 (out,); None if a later operator adds it, or if there is none
    floor: float | None = None
    times: float = 1.0


def per_row_int8(g: Graph, x: str, count: str, layer: Linear, factor: str | None = None) -> str:
    """A product of u8 activations with one scale per row (token) and s8 weights, summed in int32.

    The sums are exact on every CPU if the weights keep the limit of dearlite/models/pair_limit.py.

    x is (tokens, in); `count` names an int64 (1,) value, the number of tokens. A row's scale is its largest magnitude /
    127, with zero point 128, so a token's result never depends on the other tokens. Inputs with a floor are shifted to
    start at zero: then all 255 steps are used, and the bias cancels the shift, W(x + c) = Wx + c * colsum(W).
    """
    bias = layer.bias
    if layer.floor is None:
        magnitude, steps, zero = g.once("Abs", x), 127, 128
    else:
        x = g.add("Add", x, g.const(f"shift_{layer.name}", np.float32(-layer.floor)))
        columns = layer.weight.sum(axis=0, dtype=np.int64) * layer.scale.astype(np.float64)
        bias = bias + np.float64(np.float32(layer.floor)) * columns
        magnitude, steps, zero = x, 255, 0
    quantised, scale, _, _ = _quantise_rows(g, x, magnitude, count, steps, zero)
    product = _int8_product(g, quantised, layer, zero)
    return _with_bias(g, g.add("Mul", product, _times(g, scale, factor)), layer, bias)


def per_row_int16(g: Graph, x: str, count: str, layer: Linear, factor: str | None = None) -> str:
    """The sum of two int8 products: of the rounded activations, and of their rounding errors in steps 254 times finer.

    Activations then have 15 bits, and the result equals fp32 activations on int8 weights in quality, in twice the time.
    """
    quantised, scale, rows, zeros = _quantise_rows(g, x, g.once("Abs", x), count, 127, 128)
    error = g.add("Sub", x, g.add("DequantizeLinear", quantised, rows, zeros, axis=0))
    finer = g.const("one_over_254", np.float32(1 / 254))
    fine = g.add("QuantizeLinear", error, g.add("Mul", rows, finer), zeros, axis=0)
    product = _int8_product(g, quantised, layer, 128)
    product = g.add("Add", product, g.add("Mul", _int8_product(g, fine, layer, 128), finer))
    return _with_bias(g, g.add("Mul", product, _times(g, scale, factor)), layer, layer.bias)


def float_weights(g: Graph, x: str, count: str, layer: Linear, factor: str | None = None) -> str:
    """A product in the dtype of the weight, which has no scale."""
    product = g.add("MatMul", x, g.weight(f"{layer.name}.weight", layer.weight))
    return _with_bias(g, _times(g, product, factor), layer, layer.bias, layer.weight.dtype.type)


def dequantised(g: Graph, x: str, count: str, layer: Linear, factor: str | None = None, *, half: bool = False) -> str:
    """A float product with W = q * scale: the reference for the int8 ways.

    It uses Cast and Mul, which ONNX Runtime folds once at load; DequantizeLinear would run at every call.
    """
    scale = g.weight(f"{layer.name}.scale", layer.scale)
    w = g.add("Mul", g.add("Cast", g.weight(f"{layer.name}.weight", layer.weight), to=TensorProto.FLOAT), scale)
    if half:
        w = g.add("Cast", w, to=TensorProto.FLOAT16)
    product = _times(g, g.add("MatMul", x, w), factor)
    return _with_bias(g, product, layer, layer.bias, np.float16 if half else np.float32)


def half_weights(g: Graph, x: str, count: str, layer: Linear, factor: str | None = None) -> str:
    """An fp32 product with fp16 weights, which ONNX Runtime casts to fp32 once, when it loads the graph."""
    w = g.add("Cast", g.weight(f"{layer.name}.weight", layer.weight), to=TensorProto.FLOAT)
    return _with_bias(g, _times(g, g.add("MatMul", x, w), factor), layer, layer.bias)


def int8_weights_float(
    g: Graph, x: str, count: str, layer: Linear, factor: str | None = None, *, half: bool = False
) -> str:
    """A float product with W = q * scale, computed at every call, so that memory holds int8 only.

    On a GPU this adds little time to a call of some thousand tokens, and takes half of fp16's memory. ONNX Runtime
    folds the operations on the scales and keeps DequantizeLinear.
    """
    scale = g.weight(f"{layer.name}.scale", layer.scale)
    if layer.times != 1:
        scale = g.add("Mul", scale, g.const(f"times_{layer.times:g}", np.float32(layer.times)))
    if half:
        scale = g.add("Cast", scale, to=TensorProto.FLOAT16)
    w = g.add("DequantizeLinear", g.weight(f"{layer.name}.weight", layer.weight), scale, axis=1)
    product = _times(g, g.add("MatMul", x, w), factor)
    return _with_bias(g, product, layer, layer.bias, np.float16 if half else np.float32)


def _quantise_rows(g: Graph, x: str, magnitude: str, count: str, steps: int, zero: int) -> tuple[str, str, str, str]:
    """u8 rows, their scales as (tokens, 1) and as (tokens,), and their zero points (tokens,).

    Layers that read the same rows share these nodes.
    """
    last = g.const("last_axis", np.array([-1], np.int64))
    largest = g.once("ReduceMax", magnitude, last, keepdims=1)  # (tokens, 1)
    scale = g.once("Mul", largest, g.const(f"step_{steps}", np.float32(1 / steps)))
    rows = g.once("Reshape", scale, last)  # (tokens,)
    zeros = g.once("Expand", g.const(f"zero_row_{zero}", np.array([zero], np.uint8)), count)
    return g.once("QuantizeLinear", x, rows, zeros, axis=0), scale, rows, zeros


def _times(g: Graph, value: str, factor: str | None) -> str:
    return value if factor is None else g.add("Mul", value, factor)


def _with_bias(g: Graph, product: str, layer: Linear, bias: Any, dtype: Any = np.float32) -> str:
    if bias is None:
        return product
    shifted = "" if bias is layer.bias else ".shifted"
    half = "" if dtype is np.float32 else ".half"
    return g.add("Add", product, g.weight(f"{layer.name}.bias{shifted}{half}", bias.astype(dtype)))


def _int8_product(g: Graph, quantised: str, layer: Linear, zero: int) -> str:
    """The product, without zero points, times the column scales: (tokens, out) float32."""
    weight = g.weight(f"{layer.name}.weight", layer.weight)
    scale = g.weight(f"{layer.name}.scale", layer.scale)
    unit_scale, zero_name = g.const("one", np.float32(1)), g.const(f"zero_{zero}", np.uint8(zero))
    return g.add("MatMulIntegerToFloat", quantised, weight, unit_scale, scale, zero_name, "", domain=CONTRIB)


@dataclass(frozen=True, slots=True)
class LinearWay:
    """A way to compute a layer. `weights` is the dtype of the stored matrix; int8 comes with column scales.

    `half` means fp16 inputs and outputs. `write` takes the graph, the input, the name of its row count (an int64 (1,)
    value), the layer and optionally the name of a (tokens, 1) factor of each row of the product; it returns the
    output's name.
    """

    write: Callable[..., str]
    weights: Any = np.int8
    half: bool = False

    @property
    def int8_weights(self) -> bool:
        return self.weights is np.int8


LINEAR_WAYS: dict[str, LinearWay] = {
    "int8-per-row": LinearWay(per_row_int8),
    "int16-per-row": LinearWay(per_row_int16),
    "dequantised": LinearWay(dequantised),
    # fp16, for a GPU: CUDA has no kernels for the int8 operators.
    "dequantised-half": LinearWay(partial(dequantised, half=True), half=True),
    "half-int8-weights": LinearWay(partial(int8_weights_float, half=True), half=True),
    "half": LinearWay(float_weights, np.float16, half=True),
    # The same weights without fp16 arithmetic.
    "int8-weights": LinearWay(int8_weights_float),
    "fp16-as-fp32": LinearWay(half_weights, np.float16),
    "fp32": LinearWay(float_weights, np.float32),
}
