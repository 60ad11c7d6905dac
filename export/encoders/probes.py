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


def write_product(path: Path) -> None:
    """Writes the graph of `dearlite bench`'s int8 peak: u8 (rows, 8192) times s8 (8192, 3072), which is passed in.

    The matrix is a constant, so that ONNX Runtime packs it once, as it packs a model's matrices.
    """
    a = helper.make_tensor_value_info("a", TensorProto.UINT8, ["rows", 8192])
    y = helper.make_tensor_value_info("y", TensorProto.INT32, ["rows", 3072])
    b = TensorProto(name="b", data_type=TensorProto.INT8, dims=(8192, 3072), data_location=TensorProto.EXTERNAL)
    b.external_data.add(key="location", value="weights.bin")
    _write(path, "product", a, y, b)


def _write(path: Path, name: str, a: Any, y: Any, b: Any) -> None:
    """Writes the graph y = a b of one int8 product."""
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["a", "b"], ["y"])], name, [a], [y], [b])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=IR_VERSION)
    path.write_bytes(model.SerializeToString(deterministic=True))
