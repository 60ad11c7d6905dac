"""Pooling of decoders: changes a graph so that its score is read at the token that pads a row.

A graph of the layout "shared-prefix" reads the score at the last token ("last-token"). "last-position" is the result of
transformers for a batch that is padded on the right with one token (eos) while `pad_token_id` in the model's
configuration names another: transformers then treats the last position of the padded row as the last token. At this
position is a padding token. It attends to the real tokens only, because the mask hides every padding token, itself
included. So its score depends on no other padding token: the graph appends this single token at the position where the
row ends and hides its own key from it, which gives the same value in exact arithmetic.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LENGTH = "length"  # the input with the length of the padded row; pointwise/engine.py feeds it by this name
_HIDDEN = -1e9  # added to the attention logit of a hidden key
_POSITIONS = 9  # index of position_ids among GroupQueryAttention's inputs; attention_bias is the next input


def with_pooling(pooling: str, graph: bytes, pad_id: int | None, max_tokens: int) -> bytes:
    """The serialised `graph`, which reads the last token, changed to `pooling`, an entry of quantisations.POOLINGS.

    A graph of the pooling "mean" is written as such.
    """
    if pooling in ("last-token", "mean"):
        return graph
    assert pooling == "last-position" and pad_id is not None, f"{pooling!r} with the padding token {pad_id}"
    return at_last_position(graph, pad_id, max_tokens)


def at_last_position(model: bytes, pad_id: int, max_tokens: int) -> bytes:
    """The serialised graph `model`, changed to read its score at the last position of a row padded with `pad_id`.

    The new input `length`, int64 (1,), is the length of the padded row, prefix included. It has the default
    `max_tokens`, so ONNX Runtime lists it as an overridable initializer. A row of that length or longer is read at its
    last token. A call that pads must not have an empty `past`: GroupQueryAttention would count positions by itself.
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
    """A graph of `at_last_position` with another default `length`. With 1 it never pads and reads the last token."""
    proto = onnx.load_model_from_string(model)
    default = next(tensor for tensor in proto.graph.initializer if tensor.name == LENGTH)
    default.CopyFrom(numpy_helper.from_array(np.array([length], np.int64), LENGTH))
    return bytes(proto.SerializeToString(deterministic=True))


def _nodes() -> list[onnx.NodeProto]:
    """Nodes for the row with its padding token, if it needs one, for the tokens' positions and for the logits' bias."""
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
        # The bias is zero except in the last corner, the padding token's own key, if there is a padding token.
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
