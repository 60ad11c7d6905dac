"""The limit of pairs: rounding keeps it, and within it ONNX Runtime's u8 x s8 products are exact on any CPU."""

import numpy as np
import onnxruntime
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from onnx import TensorProto, helper, numpy_helper

from dearlite.export.numerics.rounding import (
    Moments,
    column_scales,
    limit_pairs,
    pair_scales,
    round_pairs,
    round_to_nearest,
    round_with_moments,
)
from dearlite.models.pair_limit import keeps_limit

RNG = np.random.default_rng(24)
SIDES = st.integers(1, 40)
FLOATS = st.floats(-1e6, 1e6, width=32)
MATRICES = array_shapes(min_dims=2, max_dims=2, max_side=24).flatmap(
    lambda shape: arrays(np.float32, shape, elements=FLOATS)
)


def sums_of_pairs(steps):
    """The sums of neighbours, in Python's own integers, row by row."""
    return [
        [int(a) + int(b) for a, b in zip(*rows, strict=True)] for rows in zip(steps[::2], steps[1::2], strict=False)
    ]


def check(steps):
    assert steps.dtype == np.int8 and keeps_limit(steps)
    assert all(abs(total) <= 128 for row in sums_of_pairs(steps) for total in row)
    assert all(-127 <= int(step) <= 127 for step in steps.ravel())


def product(activations, weight):
    """ONNX Runtime's int32 product u8 x s8, on one thread, with a constant matrix, which it packs."""
    a = helper.make_tensor_value_info("a", TensorProto.UINT8, ["rows", len(weight)])
    y = helper.make_tensor_value_info("y", TensorProto.INT32, None)
    node = helper.make_node("MatMulInteger", ["a", "b"], ["y"])
    graph = helper.make_graph([node], "product", [a], [y], [numpy_helper.from_array(weight, "b")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"a": activations})[0]


def check_products(weight):
    for rows in (1, 2, 7, 128):
        shape = (rows, len(weight))
        for activations in (np.full(shape, 255), np.zeros(shape), RNG.integers(0, 256, shape)):
            exact = activations.astype(np.int64) @ weight.astype(np.int64)
            assert (product(activations.astype(np.uint8), weight) == exact).all()


@given(MATRICES)
@example(np.full((2, 1), 1, np.float32))
@example(np.array([[63.5], [64.5]], np.float32))  # 64 and 64 or 65: rounding must not reach 129
@example(np.array([[1e-45], [1e-45]], np.float32))  # the least float32: no scale is 0
@example(np.array([[-1, 1], [1, -1], [0, 1]], np.float32))
def test_rounding_keeps_the_limit_and_is_within_a_step(weight):
    scale = pair_scales(weight)
    assert np.isfinite(scale).all() and (scale > 0).all()
    steps = round_pairs(weight, scale)
    check(steps)
    normal = np.abs(weight).max(axis=0) > 1e-30  # below, float32 itself has few steps
    assert (np.abs(steps * scale - weight) <= 1.51 * scale)[:, normal].all()


@given(MATRICES, st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_gptq_keeps_the_limit(weight, seed):
    random = np.random.default_rng(seed)
    moments = Moments(len(weight))
    moments.add((random.standard_normal((6, 3)) @ random.standard_normal((3, len(weight)))).astype(np.float32))
    check(round_with_moments(weight, pair_scales(weight), moments))
    check(round_with_moments(weight, column_scales(weight), moments))  # even at scales that are too small


@given(array_shapes(min_dims=2, max_dims=2, max_side=24).flatmap(lambda shape: arrays(np.int8, shape)))
def test_integers_are_limited_column_by_column(steps):
    scale = np.linspace(1, 2, steps.shape[1], dtype=np.float32)
    limited, scales = limit_pairs(steps, scale)
    check(limited)
    for column in range(steps.shape[1]):
        if keeps_limit(steps[:, [column]]):
            assert (limited[:, column] == steps[:, column]).all() and scales[column] == scale[column]
        else:
            assert scales[column] >= scale[column]


@given(st.integers(1, 70), st.integers(1, 40), st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_products_within_the_limit_are_exact(inputs, outputs, seed):
    weight = np.random.default_rng(seed).standard_normal((inputs, outputs)).astype(np.float32)
    check_products(round_pairs(weight, pair_scales(weight)))


@pytest.mark.parametrize(
    "weight",
    [
        np.full((1024, 48), 64, np.int8),  # every pair at the limit
        np.full((1023, 33), -64, np.int8),
        np.tile(np.array([[127], [1]], np.int8), (384, 96)),
        np.tile(np.array([[1], [127]], np.int8), (384, 96)),
        np.tile(np.array([[-127], [-1]], np.int8), (96, 5)),
        np.tile(np.array([[127], [-127]], np.int8), (96, 17)),  # opposite signs have no limit
        np.tile(np.array([[127], [1], [1], [127]], np.int8), (96, 17)),
    ],
)
def test_weights_at_the_limit_are_exact(weight):
    assert keeps_limit(weight)
    check_products(weight)


def test_large_matrices_are_exact_after_each_rounding():
    weight = (RNG.standard_normal((1026, 96)) ** 3).astype(np.float32)
    rows = (RNG.standard_normal((200, 40)) @ RNG.standard_normal((40, 1026))).astype(np.float32)
    moments = Moments(1026, group=512)
    moments.add(rows)
    scale = pair_scales(weight)
    check_products(round_pairs(weight, scale))
    check_products(round_with_moments(weight, scale, moments))
    check_products(limit_pairs(round_to_nearest(weight, column_scales(weight)), column_scales(weight))[0])


def test_the_limit_costs_a_third_more_than_free_rounding():
    """Gaussian columns: 1.04 percent of the weights' length, where weights without a limit have 0.79."""
    weight = RNG.standard_normal((1024, 768)).astype(np.float32)
    scale = pair_scales(weight)
    error = np.linalg.norm(round_pairs(weight, scale) * scale - weight) / np.linalg.norm(weight)
    assert 0.0102 < error < 0.0106


def test_a_column_within_the_limit_has_the_scale_of_its_largest_weight():
    weight = np.array([[127, 127, 64], [-127, 2, 65]], np.float32)
    assert pair_scales(weight).tolist() == pytest.approx([1, 129 / 128, 129 / 128])
    assert not keeps_limit(np.array([[100], [29]], np.int8))
    assert not keeps_limit(np.array([[-128], [1], [0]], np.int8))
    assert keeps_limit(np.array([[0], [1], [127]], np.int8))  # the last row has no neighbour
