"""Products of 8-bit integers by ONNX Runtime on an emulated CPU, beside the exact ones.

`write_products` makes a graph of MatMulInteger nodes and their inputs with the exact sums; SCRIPT runs the graph there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from checks import ROOT, CheckFailed

from dearlite.models.bundle import Bundle
from dearlite.models.pair_limit import int8_factors

ROWS = 7  # 0: all 255, 1: the largest sums, 2: all 0, others random; a product of one row has its own kernel
# kind -> the statement about it
KINDS = {
    "model": "the model's own int8 matrices",
    "limited": "random matrices whose neighbours of one sign in a column sum to at most 128",
    "unlimited": "a matrix of 127 throughout",
    "minus_128": "a matrix of -128 throughout",
}
SCRIPT = """
import sys
import numpy as np, onnxruntime
cases = np.load(sys.argv[2])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
names = [output.name for output in session.get_outputs()]
feeds = {argument.name: cases[argument.name] for argument in session.get_inputs()}
for name, sums in zip(names, session.run(names, feeds)):
    wrong = np.argwhere(sums != cases[name])
    row, column = wrong[0] if len(wrong) else (0, 0)
    print(name[2:], len(wrong), sums[row, column], cases[name][row, column])
"""


def _matrices() -> Iterator[tuple[str, Any]]:
    """(kind, int8 matrix (in, out))."""
    bundle = Bundle(ROOT / "dearlite" / "data" / "minilm-l12.dear")
    for name in sorted(int8_factors(bundle.read("cpu.onnx"))):  # not those of the head, which is computed in fp32
        yield "model", np.ascontiguousarray(bundle.tensors([name])[name])
    random = np.random.default_rng(1)
    for inputs, outputs in ((384, 64), (1536, 48), (67, 5), (1024, 1)):
        matrix = random.integers(-127, 128, (inputs + inputs % 2, outputs))
        first, second = matrix[::2], matrix[1::2]
        limit = np.where(first * second > 0, 128 - np.abs(first), 127)
        second[:] = np.sign(second) * np.minimum(np.abs(second), limit)
        first[::3], second[::3] = 64, 64  # at the limit
        first[1::3], second[1::3] = -127, -1
        yield "limited", matrix[:inputs].astype(np.int8)
    yield "unlimited", np.full((384, 16), 127, np.int8)
    yield "minus_128", np.full((64, 16), -128, np.int8)


def write_products(folder: Path) -> tuple[Path, Path]:
    """The graph, and the inputs with the exact sums."""
    import onnx
    from onnx import TensorProto, helper

    random, cases, nodes, weights, inputs, outputs = np.random.default_rng(0), {}, [], [], [], []
    for number, (kind, matrix) in enumerate(_matrices()):
        rows = random.integers(0, 256, (ROWS, matrix.shape[0]), dtype=np.uint8)
        rows[0], rows[1], rows[2] = 255, np.where(matrix[:, 0] < 0, 255, 0), 0
        weights.append(onnx.numpy_helper.from_array(matrix, f"b {number}"))
        for name, part in (("", rows), (" alone", rows[:1])):
            a, c = f"a {number}{name}", f"c {kind} {number}{name}"
            cases[a], cases[c] = part, part.astype(np.int32) @ matrix.astype(np.int32)
            nodes.append(helper.make_node("MatMulInteger", [a, f"b {number}"], [c]))
            inputs.append(helper.make_tensor_value_info(a, TensorProto.UINT8, part.shape))
            outputs.append(helper.make_tensor_value_info(c, TensorProto.INT32, cases[c].shape))
    graph = helper.make_graph(nodes, "products", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "products.onnx")
    np.savez(folder / "products.npz", **cases)
    return folder / "products.onnx", folder / "products.npz"


def judge(output: str) -> str:
    """The figures in SCRIPT's output. Raises CheckFailed if a matrix that must be exact is not."""
    by_kind: dict[str, list[list[str]]] = {kind: [] for kind in KINDS}
    for line in output.splitlines():
        kind, *fields = line.split()
        by_kind[kind].append(fields[-3:])
    figures = []
    for kind, lines in by_kind.items():
        wrong = [fields for fields in lines if int(fields[0])]
        text = f"{kind}: {len(lines)} products, {len(wrong)} wrong"
        figures.append(text + (f" ({wrong[0][1]} instead of {wrong[0][2]})" if wrong else ""))
    if any(int(fields[0]) for kind in ("model", "limited") for fields in by_kind[kind]):
        raise CheckFailed("; ".join(figures))
    return "; ".join(figures)
