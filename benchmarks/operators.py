"""Other operators and session options for the embedded model's graph, beside the shipped ones.

    python benchmarks/operators.py MODEL.onnx [--documents 12] [--rounds 7] [--only TEXT]

MODEL.onnx is the published file that the embedded model is made from (export/encoders/minilm.py). A line has the
processor time of a document on one thread, the shortest of all rounds, beside the shipped graph's, and the mean and
largest difference of scores from the shipped graph and the mean one from the same weights in fp32. Variants take turns.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from machines import token_rows

from dearlite.export.encoders.bert import BertLayer, Norm, _Writer
from dearlite.export.encoders.minilm import limit_model, read_published
from dearlite.export.onnx import graph as graph_module
from dearlite.export.onnx.graph import CONTRIB, Graph
from dearlite.export.onnx.linear import Linear

LEVELS = ort.GraphOptimizationLevel


class Shipped(_Writer):
    """The shipped graph."""

    def __init__(self, model: Any, way: str = "int8-per-row") -> None:
        super().__init__(model, way, batched=False, half=False)


class SkipNorm(Shipped):
    """Residual and LayerNorm in one operator."""

    def add_norm(self, x: str, residual: str, norm: Norm, name: str) -> str:
        gain, bias = self.g.weight(f"{name}.gain", norm.gain), self.g.weight(f"{name}.bias", norm.bias)
        axis = self.ints("batch_axis", 0)
        x, residual = (self.g.add("Unsqueeze", value, axis) for value in (x, residual))
        out = self.g.add("SkipLayerNormalization", x, residual, gain, bias, domain=CONTRIB, epsilon=self.model.epsilon)
        return self.g.add("Squeeze", out, axis)


class OtherGelu(Shipped):
    """Another operator for GELU: BiasGelu adds the bias, FastGelu approximates by tanh and adds it too."""

    operator = "BiasGelu"

    def layer(self, x: str, layer: BertLayer, name: str, *, last: bool) -> str:
        self.up = layer.up
        return super().layer(x, layer, name, last=last)

    def linear(self, x: str, layer: Linear) -> str:
        if layer.name.endswith(".up"):
            out = self.way(self.g, x, self.count, Linear(layer.name, layer.weight, layer.scale))
            return self.g.add(self.operator, out, self.g.weight(f"{layer.name}.bias", layer.bias), domain=CONTRIB)
        return super().linear(x, layer)

    def write(self) -> Graph:
        graph = super().write()
        kept, renamed = [], {}
        for node in graph.nodes:
            node.input[:] = [renamed.get(name, name) for name in node.input]
            if node.op_type == "Gelu":
                renamed[node.output[0]] = node.input[0]
            else:
                kept.append(node)
        graph.nodes[:] = kept
        return graph


class FastGelu(OtherGelu):
    """GELU by tanh."""

    operator = "FastGelu"


class StandardAttention(Shipped):
    """Attention of the ONNX standard (opset 23), after the biases of q, k and v."""

    def attention(self, q: str, k: str, v: str, bias: str) -> str:
        g, heads, axis = self.g, self.model.heads, self.ints("batch_axis", 0)
        biases = self.g.add_many("Split", bias, outputs=3, axis=-1, num_outputs=3)
        parts = [g.add("Unsqueeze", g.add("Add", x, b), axis) for x, b in zip((q, k, v), biases, strict=True)]
        out = g.add("Attention", *parts, q_num_heads=heads, kv_num_heads=heads)
        return g.add("Squeeze", out, axis)


class PlainAttention(Shipped):
    """Attention by MatMul and Softmax."""

    def attention(self, q: str, k: str, v: str, bias: str) -> str:
        g, heads = self.g, self.model.heads
        biases = g.add_many("Split", bias, outputs=3, axis=-1, num_outputs=3)
        size = self.model.layers[0].query.weight.shape[1] // heads
        shape = self.ints("heads_shape", -1, heads, size)
        parts = []
        for x, b, perm in zip((q, k, v), biases, ([1, 0, 2], [1, 2, 0], [1, 0, 2]), strict=True):
            parts.append(g.add("Transpose", g.add("Reshape", g.add("Add", x, b), shape), perm=perm))
        scaled = g.add("Mul", parts[0], g.const("root", np.float32(1 / math.sqrt(size))))
        weights = g.add("Softmax", g.add("MatMul", scaled, parts[1]), axis=-1)
        out = g.add("Transpose", g.add("MatMul", weights, parts[2]), perm=[1, 0, 2])
        return g.add("Reshape", out, self.ints("flat_shape", -1, heads * size))


class SeparateProducts(Shipped):
    """q, k and v by three products, without a Split."""

    def split(self, x: str, parts: int) -> list[str]:
        return self.pending[:parts]

    def linear(self, x: str, layer: Linear) -> str:
        kinds = {"qkv": 3, "kv": 2}
        if (parts := kinds.get(layer.name.rpartition(".")[2])) is None:
            return super().linear(x, layer)
        pieces = zip(np.split(layer.weight, parts, axis=1), np.split(layer.scale, parts), strict=True)
        self.pending = [
            super(SeparateProducts, self).linear(x, Linear(f"{layer.name}.{number}", np.ascontiguousarray(w), s))
            for number, (w, s) in enumerate(pieces)
        ]
        return self.pending[0]


class Extremes(Shipped):
    """The largest magnitude of a row from its largest and smallest value."""

    def linear(self, x: str, layer: Linear) -> str:
        g, last = self.g, self.g.const("last_axis", np.array([-1], np.int64))
        if layer.floor is None:
            high, low = g.once("ReduceMax", x, last, keepdims=1), g.once("ReduceMin", x, last, keepdims=1)
            # The nodes that the shipped way shares: it finds the magnitudes, and their maximum.
            g.shared["Abs", x] = f"magnitude of {x}"
            g.shared["ReduceMax", f"magnitude of {x}", last, "keepdims=1"] = g.once("Max", high, g.once("Neg", low))
        return super().linear(x, layer)


class OneScale(Shipped):
    """DynamicQuantizeMatMul: one scale per document and one operator for quantisation, product and bias."""

    def linear(self, x: str, layer: Linear) -> str:
        g = self.g
        weight, scale = g.weight(f"{layer.name}.weight", layer.weight), g.weight(f"{layer.name}.scale", layer.scale)
        zero = g.const("zero_s8", np.int8(0))
        bias = [] if layer.bias is None else [g.weight(f"{layer.name}.bias", layer.bias)]
        return g.add("DynamicQuantizeMatMul", x, weight, scale, zero, *bias, domain=CONTRIB)


@dataclass(frozen=True)
class Variant:
    """A graph and the options of its session; `environment` is set while the session is made."""

    writer: Callable[[Any], _Writer] = Shipped
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    opset: int = graph_module.OPSET


VARIANTS = {
    "shipped": Variant(),
    "SkipLayerNormalization": Variant(SkipNorm),
    "BiasGelu": Variant(OtherGelu),
    "FastGelu (tanh)": Variant(FastGelu),
    "Attention of opset 23": Variant(StandardAttention, opset=23),
    "attention by MatMul and Softmax": Variant(PlainAttention),
    "without flash attention": Variant(environment={"ORT_DISABLE_FLASH_ATTENTION": "1"}),
    "q, k, v by three products": Variant(SeparateProducts),
    "ReduceMax and ReduceMin instead of Abs": Variant(Extremes),
    "one scale per document (DynamicQuantizeMatMul)": Variant(OneScale),
    "optimisation level extended": Variant(options={"graph_optimization_level": LEVELS.ORT_ENABLE_EXTENDED}),
    "optimisation level all": Variant(options={"graph_optimization_level": LEVELS.ORT_ENABLE_ALL}),
    "without memory patterns": Variant(options={"enable_mem_pattern": False}),
    "without the arena": Variant(options={"enable_cpu_mem_arena": False}),
    "denormals as zero": Variant(options={"config": {"session.set_denormal_as_zero": "1"}}),
    "fp32": Variant(partial(Shipped, way="dequantised")),
}


def open_variant(variant: Variant, model: Any) -> ort.InferenceSession:
    """A session of one thread."""
    graph = variant.writer(model).write()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = LEVELS.ORT_ENABLE_BASIC
    for name, value in variant.options.items():
        if name == "config":
            for key, text in value.items():
                options.add_session_config_entry(key, text)
        else:
            setattr(options, name, value)
    values = {name: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(w)) for name, w in graph.weights.items()}
    options.add_external_initializers(list(values), list(values.values()))
    before, opset = dict(os.environ), graph_module.OPSET
    os.environ.update(variant.environment)
    graph_module.OPSET = variant.opset
    try:
        return ort.InferenceSession(graph.to_bytes(), options, providers=["CPUExecutionProvider"])
    finally:
        graph_module.OPSET = opset
        for name in variant.environment:
            if name not in before:
                del os.environ[name]


def score(session: ort.InferenceSession, row: Any) -> tuple[float, float]:
    """The score of a row and its processor seconds."""
    start = time.thread_time()
    value = session.run(["score"], {"ids": row.ids, "types": row.types})[0][0, 0]
    return float(value), time.thread_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--documents", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    model, rows = limit_model(read_published(options.model)), token_rows(options.documents)
    sessions, scores, seconds = {}, {}, {}
    for name, variant in VARIANTS.items():
        if options.only in name or name in ("shipped", "fp32"):
            try:
                sessions[name] = open_variant(variant, model)
                scores[name] = np.array([score(sessions[name], row)[0] for row in rows])
            except Exception as err:
                print(f"{name}: {str(err).splitlines()[0][:150]}")
                sessions.pop(name, None)
                continue
            seconds[name] = np.full(len(rows), np.inf)
    for _ in range(options.rounds):
        for number, row in enumerate(rows):
            for name, session in sessions.items():
                seconds[name][number] = min(seconds[name][number], score(session, row)[1])
    report(scores, seconds, sum(len(row.ids) for row in rows) / len(rows))


def report(scores: Mapping[str, Any], seconds: Mapping[str, Any], tokens: float) -> None:
    """Prints a line a variant."""
    print(f"ONNX Runtime {ort.__version__}, {tokens:.0f} tokens a document")
    base = seconds["shipped"].sum()
    for name in scores:
        moved, error = np.abs(scores[name] - scores["shipped"]), np.abs(scores[name] - scores["fp32"])
        print(
            f"{name:48} {seconds[name].mean() * 1e3:7.1f} ms  {base / seconds[name].sum():.3f} times as fast  "
            f"moved {moved.mean():.4f} {moved.max():.3f}  fp32 {error.mean():.4f}"
        )


if __name__ == "__main__":
    main()
