"""Graphs as they were before the limit of pairs: int8 weights that nodes make unsigned when the graph is loaded."""

import numpy as np
from onnx import TensorProto

from dearlite.export.onnx.graph import Graph


def widen(graph: Graph) -> Graph:
    """The graph with u8 x u8 products in place of its u8 x s8 products; it computes the same sums."""
    nodes, graph.nodes = graph.nodes, []
    for node in nodes:
        if node.op_type == "MatMulIntegerToFloat":
            wide = graph.add("Cast", node.input[1], to=TensorProto.INT32)
            moved = graph.add("Add", wide, graph.const("offset_128", np.int32(128)))
            node.input[1] = graph.add("Cast", moved, to=TensorProto.UINT8)
            node.input[5] = graph.const("weight_zero_128", np.uint8(128))
        graph.nodes.append(node)
    return graph
