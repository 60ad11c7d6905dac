"""Peak rate of int8 products on this machine in ONNX Runtime: `python benchmarks/int8_peak.py`.

One large u8 x s8 product (MatMulIntegerToFloat) runs in each of N single-threaded sessions in parallel, as the runtime
does. The result is the better of two shapes, one of a small model and one of a large one.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from dearlite.machine import check_threads

SHAPES = ((1024, 576, 3072), (512, 3072, 8192))  # rows per thread, inputs, outputs
MIN_DURATION_S = 0.3  # of each measurement


def open_product(inputs: int, outputs: int) -> ort.InferenceSession:
    """A single-threaded session for x (rows, inputs) u8 -> y (rows, outputs) fp32."""
    random = np.random.default_rng(0)
    constants = {
        "weights": random.integers(-127, 128, (inputs, outputs), np.int8),
        "x_scale": np.float32(0.01),
        "scale": np.full(outputs, 0.01, np.float32),
        "x_zero": np.uint8(128),
    }
    node = helper.make_node(
        "MatMulIntegerToFloat", ["x", "weights", "x_scale", "scale", "x_zero"], ["y"], domain="com.microsoft"
    )
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["rows", inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", outputs])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def int8_peak(threads: int) -> float:
    """GOP/s of `threads` parallel sessions, the better of SHAPES. A multiplication and an addition are 2 operations."""
    return max(_rate(threads, *shape) for shape in SHAPES)


def _rate(threads: int, rows: int, inputs: int, outputs: int) -> float:
    x = np.random.default_rng(1).integers(0, 256, (rows, inputs), np.uint8)
    sessions = [open_product(inputs, outputs) for _ in range(threads)]

    def repeat(session: ort.InferenceSession) -> float:
        session.run(["y"], {"x": x})
        count, start = 0, time.perf_counter()
        while (elapsed_s := time.perf_counter() - start) < MIN_DURATION_S:
            session.run(["y"], {"x": x})
            count += 1
        return count / elapsed_s

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(repeat, sessions)) * 2 * rows * inputs * outputs / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, metavar="N", help="default: one per core, as in dearlite")
    threads = check_threads(parser.parse_args().threads)
    for shape in SHAPES:
        print(f"{threads} x {shape}: {_rate(threads, *shape):.0f} GOP/s")


if __name__ == "__main__":
    main()
