"""Graphs for CPUs without exact u8 x s8 products: the nodes that make weights unsigned are replaced by numpy."""

import numpy as np
import pytest
from older_files import WIDE_GRAPH

from dearlite import Reranker
from dearlite.models.bundle import Bundle
from dearlite.pointwise import session
from dearlite.pointwise.onnxruntime import CAPABILITIES
from dearlite.pointwise.unsigned import unsigned, without_casts

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

WEIGHT = np.array([[-127, -1, 0], [1, 5, 127]], np.int8)
PAIRS = [("how do rivers change a valley", "erosion by water " * 30), ("a", "b"), ("café", "x " * 400)]


def chain(number, tensor="w", offset="offset", to=TensorProto.UINT8):
    wide, moved, made = f"wide_{number}", f"moved_{number}", f"made_{number}"
    return [
        helper.make_node("Cast", [tensor], [wide], to=TensorProto.INT32),
        helper.make_node("Add", [wide, offset], [moved]),
        helper.make_node("Cast", [moved], [made], to=to),
        helper.make_node("MatMulInteger", ["a", made], [f"product_{number}"]),
    ]


def model(nodes, outputs=("product_1",), offset=128):
    tensors = [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(np.int32(offset), "offset")]
    inputs = [helper.make_tensor_value_info("a", TensorProto.UINT8, ["rows", 2])]
    made = [helper.make_tensor_value_info(name, TensorProto.INT32, None) for name in outputs]
    graph = helper.make_graph(nodes, "test", inputs, made, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()


def test_values_move_by_128():
    assert unsigned(WEIGHT).tolist() == [[1, 127, 128], [129, 133, 255]]
    assert unsigned(WEIGHT).flags.owndata


def test_chain_is_cut_and_its_reader_takes_the_tensor():
    cut, names = without_casts(model(chain(1)))
    graph = onnx.load_from_string(cut).graph
    assert names == {"w"}
    assert [(node.op_type, list(node.input), list(node.output)) for node in graph.node] == [
        ("MatMulInteger", ["a", "w"], ["product_1"])
    ]
    assert [(tensor.name, tensor.data_type) for tensor in graph.initializer] == [
        ("w", TensorProto.UINT8),
        ("offset", TensorProto.INT32),
    ]


def test_two_chains_of_one_tensor_are_cut_together():
    cut, names = without_casts(model(chain(1) + chain(2), ("product_1", "product_2")))
    assert names == {"w"}
    assert [list(node.input) for node in onnx.load_from_string(cut).graph.node] == [["a", "w"]] * 2


@pytest.mark.parametrize(
    ("nodes", "changes"),
    [
        ([helper.make_node("Cast", ["w"], ["product_1"], to=TensorProto.INT32)], {}),
        (chain(1, to=TensorProto.INT8), {}),
        (chain(1), {"offset": 127}),
        (chain(1), {"outputs": ("product_1", "moved_1")}),  # the value inside the chain is a result
        ([*chain(1), helper.make_node("Cast", ["moved_1"], ["other"], to=TensorProto.FLOAT)], {}),
        ([*chain(1), helper.make_node("MatMulInteger", ["a", "w"], ["other"])], {}),  # the tensor is used as int8 too
    ],
)
def test_other_graphs_stay_as_they_are(nodes, changes):
    original = model(nodes, **changes)
    assert without_casts(original) == (original, frozenset())


def test_damaged_graph_stays_as_it_is():
    original = model(chain(1))
    for size in range(0, len(original) - 1, 7):
        assert without_casts(original[:size])[1] == frozenset()


def test_older_file_scores_as_with_the_nodes(monkeypatch):
    """Bit for bit, and without ONNX Runtime's folding, whose copies take five times the weights."""
    monkeypatch.setitem(CAPABILITIES, "u8s8-exact", lambda: False)
    scores = Reranker.load(WIDE_GRAPH, device="cpu").score(PAIRS)
    bundle = Bundle(WIDE_GRAPH)
    build = next(build for build in bundle.manifest.builds if build.graph == "cpu-wide.onnx")
    cut, names = without_casts(bundle.read(build.graph))
    kinds = {node.op_type for node in onnx.load_from_string(cut).graph.node if node.input[0] in names}
    assert len(names) == 5 and not kinds & {"Cast"}
    monkeypatch.setattr(session, "without_casts", lambda graph: (graph, frozenset()))
    assert scores == Reranker.load(WIDE_GRAPH, device="cpu").score(PAIRS)
