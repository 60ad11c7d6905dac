"""Graphs as they were before the limit of pairs: int8 weights that nodes make unsigned when the graph is loaded."""

import numpy as np
from onnx import TensorProto, helper

from dearlite.export.onnx.graph import Graph


def widen(graph: Graph) -> Graph:
    """The graph with u8 x u8 products in place of its u8 x s8 products; it computes the same sums."""
    nodes = []
    offset, zero = graph.const("offset_128", np.int32(128)), graph.const("weight_zero_128", np.uint8(128))
    for node in graph.nodes:
        if node.op_type == "MatMulIntegerToFloat":
            weight, wide, moved, made = (node.input[1], *(f"{node.name}.{kind}" for kind in ("wide", "moved", "made")))
            nodes.append(helper.make_node("Cast", [weight], [wide], name=wide, to=TensorProto.INT32))
            nodes.append(helper.make_node("Add", [wide, offset], [moved], name=moved))
            nodes.append(helper.make_node("Cast", [moved], [made], name=made, to=TensorProto.UINT8))
            node.input[1], node.input[5] = made, zero
        nodes.append(node)
    graph.nodes = nodes
    return graph
