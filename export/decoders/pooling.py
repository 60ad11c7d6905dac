"""Where a decoder's score is read: the token that pads a row, and the change to a graph that reads the score there.

A graph of the layout "shared-prefix" reads the last token. "last-position" is what transformers computes where a batch
is padded on the right with one token (eos) while `pad_token_id` in the model's configuration names another: it takes
the last position of the padded row for the last token. There stands a padding token that attends to the real tokens
alone, since the mask hides every padding token, itself included. The score depends on no other padding token, so the
graph appends that one, at the position where the row ends, and hides its own key from it: the same in real numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

POOLINGS = ("last-token", "last-position")
LENGTH = "length"  # the input that says where the padded row ends; backends/onnx.py feeds it by this name
_HIDDEN = -1e9  # added to a hidden key's logit
_POSITIONS = 9  # where position_ids stand among GroupQueryAttention's inputs; attention_bias is the next


def read_at(pooling: str, graph: bytes, pad_id: int | None, max_tokens: int) -> bytes:
    """The serialised graph as the manifest's field `pooling` wants it, one of POOLINGS."""
    if pooling == "last-token":
        return graph
    assert pooling == "last-position" and pad_id is not None, f"{pooling!r} with the padding token {pad_id}"
    return at_last_position(graph, pad_id, max_tokens)


def at_last_position(model: bytes, pad_id: int, max_tokens: int) -> bytes:
    """The serialised graph `model`, reading its score at the last position of a row padded with `pad_id`.

    Its new input `length`, int64 (1,), is the length of the padded row, prefix included. It has a default,
    `max_tokens`, so ONNX Runtime lists it as an overridable initializer. A row that is as long already is read at its
    last token. A call that pads must not have an empty `past`: GroupQueryAttention then counts positions by itself.
    """
    proto = onnx.load_model_from_string(model)
    graph = proto.graph
    constants: dict[str, Any] = {
        LENGTH: np.array([max_tokens], np.int64),
        "pool.pad_id": np.array([pad_id], np.int64),
        "pool.zero": np.array([0], np.int64),
        "pool.one": np.array([1], np.int64),
        "pool.step": np.array(1, np.int64),
        "pool.zeros": np.zeros(2, np.int64),
        "pool.more_zeros": np.zeros(4, np.int64),
        "pool.hidden": np.full((1, 1, 1, 1), _HIDDEN, np.float32),
    }
    for node in graph.node:
        node.input[:] = ["pool.row" if name == "ids" else name for name in node.input]
        if node.op_type == "GroupQueryAttention":
            node.input.extend([""] * (_POSITIONS - len(node.input)))
            node.input.extend(["pool.positions", "pool.bias"])
    nodes = [*_nodes(), *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(LENGTH, TensorProto.INT64, [1]))
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return bytes(proto.SerializeToString(deterministic=True))


def padded_to(model: bytes, length: int) -> bytes:
    """A graph of `at_last_position` with another default: 1 pads nothing, so that it reads the last token."""
    proto = onnx.load_model_from_string(model)
    default = next(tensor for tensor in proto.graph.initializer if tensor.name == LENGTH)
    default.CopyFrom(numpy_helper.from_array(np.array([length], np.int64), LENGTH))
    return bytes(proto.SerializeToString(deterministic=True))


def _nodes() -> list[onnx.NodeProto]:
    """The row with its padding token, if it gets one, and each token's position and the bias on its logits."""
    steps: list[tuple[str, tuple[str, ...], str, dict[str, Any]]] = [
        ("Shape", ("ids",), "tokens", {}),  # counts are (1,)
        ("Shape", ("past",), "prefix", {"start": 4, "end": 5}),
        ("Add", ("pool.tokens", "pool.prefix"), "real", {}),
        ("Less", ("pool.real", LENGTH), "short", {}),
        ("Cast", ("pool.short",), "pads", {"to": TensorProto.INT64}),  # 1 or 0
        ("Slice", ("pool.pad_id", "pool.zero", "pool.pads"), "pad", {}),  # (pads,)
        ("Concat", ("ids", "pool.pad"), "row", {"axis": 0}),  # (tokens + pads,)
        ("Squeeze", ("pool.prefix",), "first", {}),
        ("Squeeze", ("pool.real",), "end", {}),
        ("Range", ("pool.first", "pool.end", "pool.step"), "real_positions", {}),
        ("Sub", (LENGTH, "pool.one"), "last", {}),
        ("Slice", ("pool.last", "pool.zero", "pool.pads"), "pad_position", {}),
        ("Concat", ("pool.real_positions", "pool.pad_position"), "flat_positions", {"axis": 0}),
        ("Unsqueeze", ("pool.flat_positions", "pool.zero"), "positions", {}),  # (1, tokens + pads)
        # All zeros but the last token's own key, in the last corner, and that only where it is padding.
        ("Cast", ("pool.pads",), "hides", {"to": TensorProto.FLOAT}),
        ("Mul", ("pool.hidden", "pool.hides"), "corner", {}),  # (1, 1, 1, 1)
        ("Add", ("pool.tokens", "pool.pads"), "queries", {}),
        ("Add", ("pool.real", "pool.pads"), "keys", {}),
        ("Sub", ("pool.queries", "pool.one"), "rows_before", {}),
        ("Sub", ("pool.keys", "pool.one"), "columns_before", {}),
        ("Concat", ("pool.zeros", "pool.rows_before", "pool.columns_before", "pool.more_zeros"), "before", {"axis": 0}),
        ("Pad", ("pool.corner", "pool.before"), "bias", {}),  # (1, 1, queries, keys)
    ]
    return [
        helper.make_node(op, inputs, [f"pool.{output}"], name=f"pool.{output}", **attributes)
        for op, inputs, output, attributes in steps
    ]
