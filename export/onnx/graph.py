"""An ONNX graph under construction. It contains small constants; weights are in weights.bin and only named in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

# Opset 20 includes LayerNormalization (from 17) and fp16 DequantizeLinear (from 19); it was released with IR version 9.
OPSET, IR_VERSION = 20, 9
CONTRIB = "com.microsoft"  # the domain of ONNX Runtime's own operators


@dataclass(slots=True)
class Graph:
    """Nodes and constants in the order of their addition; the same calls give the same bytes."""

    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)  # name -> array, outside the graph
    inputs: list[Any] = field(default_factory=list)
    shared: dict[tuple[str, ...], str] = field(default_factory=dict)  # nodes of `once` -> output
    output: str = ""  # the value that becomes `score`
    extra_outputs: list[str] = field(default_factory=list)  # float32 values that become outputs under their names

    def input(self, name: str, *shape: str | int, dtype: int = TensorProto.INT64) -> str:
        """The name of a new graph input, int64 by default; `shape` has the name or the length of each axis."""
        self.inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def const(self, name: str, value: Any) -> str:
        """The name of a small constant, stored in the graph. A name can be used again with an equal value only."""
        assert name not in self.constants or np.array_equal(self.constants[name], value), f"two constants {name}"
        self.constants.setdefault(name, np.asarray(value))
        return name

    def weight(self, name: str, value: Any) -> str:
        """The name of a tensor in weights.bin, which all graphs of the bundle share."""
        known = self.weights.setdefault(name, value)
        assert known is value or (known.dtype == value.dtype and np.array_equal(known, value)), f"two tensors {name}"
        return name

    def add(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """The output's name of a new node with one output."""
        return self.add_many(op, *inputs, outputs=1, domain=domain, **attributes)[0]

    def once(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Like `add`, but a node with the same operator, inputs and attributes is added once only."""
        key = (op, *inputs, *(f"{name}={value}" for name, value in sorted(attributes.items())))
        if key not in self.shared:
            self.shared[key] = self.add(op, *inputs, **attributes)
        return self.shared[key]

    def add_many(self, op: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any) -> list[str]:
        """The outputs' names of a new node."""
        number = len(self.nodes)
        names = [f"{op}_{number}" + (f"_{i}" if outputs > 1 else "") for i in range(outputs)]
        self.add_named(op, inputs, names, domain=domain, **attributes)
        return names

    def add_named(self, op: str, inputs: Sequence[str], names: Sequence[str], domain: str = "", **attrs: Any) -> None:
        """Adds a node with the outputs `names`."""
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, names, name=name, domain=domain, **attrs))

    def to_bytes(self) -> bytes:
        """The serialised model; its first output, `score`, is (rows, 1) float32."""
        nodes = [*self.nodes, helper.make_node("Identity", [self.output], ["score"], name="score")]
        tensors = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        tensors += [_external_tensor(name, value) for name, value in self.weights.items()]
        outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows", 1])]
        outputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self.extra_outputs]
        graph = helper.make_graph(nodes, "dearlite", self.inputs, outputs, tensors)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="dearlite")
        return bytes(model.SerializeToString(deterministic=True))


def _external_tensor(name: str, value: Any) -> Any:
    """An initializer without data. Its location is never opened: the runtime passes the mapped tensor by name."""
    tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(value.dtype), dims=value.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", "weights.bin"), ("offset", "0"), ("length", str(value.nbytes))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, text
    return tensor
