"""Writes the small ONNX graphs in dearlite/data with which the runtime tests and measures int8 products."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from dearlite.export.onnx.graph import IR_VERSION

_OPSET = 13  # any opset with MatMulInteger would do; another one changes the bytes of the files


def write_exactness_probe(path: Path) -> None:
    """Writes the graph of `multiplies_u8s8_exactly` (pointwise/onnxruntime.py): (1, 64) u8 times 64 x 16 of 127."""
    a = helper.make_tensor_value_info("a", TensorProto.UINT8, [1, 64])
    y = helper.make_tensor_value_info("y", TensorProto.INT32, [1, 16])
    b = numpy_helper.from_array(np.full((64, 16), 127, np.int8), "b")
    _write(path, "probe", a, y, b)


def write_products(folder: Path) -> None:
    """Writes the graphs of the products that dearlite measures: (rows, 8192) times (8192, 3072), which is passed in.

    u8 times s8 in `u8s8_product.onnx`, fp32 in `f32_product.onnx`. The matrix is a constant, so that ONNX Runtime packs
    it once, as it packs a model's matrices.
    """
    types = (TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32), (TensorProto.FLOAT,) * 3
    for name, operator, (a_type, b_type, y_type) in zip(
        ("u8s8_product", "f32_product"), ("MatMulInteger", "MatMul"), types, strict=True
    ):
        a = helper.make_tensor_value_info("a", a_type, ["rows", 8192])
        y = helper.make_tensor_value_info("y", y_type, ["rows", 3072])
        b = TensorProto(name="b", data_type=b_type, dims=(8192, 3072), data_location=TensorProto.EXTERNAL)
        b.external_data.add(key="location", value="weights.bin")
        _write(folder / f"{name}.onnx", "product", a, y, b, operator)


def _write(path: Path, name: str, a: Any, y: Any, b: Any, operator: str = "MatMulInteger") -> None:
    """Writes the graph y = a b of one product."""
    graph = helper.make_graph([helper.make_node(operator, ["a", "b"], ["y"])], name, [a], [y], [b])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=IR_VERSION)
    path.write_bytes(model.SerializeToString(deterministic=True))
