"""Differences of the embedded model's scores between machines, and variants that could make them smaller.

    python benchmarks/machines.py MODEL.onnx [--documents 60] [--only TEXT] [-o scores.json] [--compare scores.json]

MODEL.onnx is the published file that the embedded model is made from (export/encoders/minilm.py). Another machine adds
fp32 numbers in another order, which this machine imitates: all fp32 tensors of the graph get relative noise of 1e-7,
two times with other random numbers. A line has the mean and the largest difference from the scores without noise, the
mean difference from fp32, and the processor time of a document beside that of the shipped graph, the shortest of all
rounds. With -o the scores are written, and --compare FILE compares with those of another version of ONNX Runtime or
another machine.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto

from dearlite.export.encoders.bert import _Writer
from dearlite.export.encoders.minilm import limit_model, read_published
from dearlite.export.onnx.graph import Graph
from dearlite.export.onnx.linear import LINEAR_WAYS, Linear
from dearlite.export.quality.card import load_pairs
from dearlite.models.bundle import Bundle
from dearlite.models.registry import DEFAULT_MODEL, find_model
from dearlite.pointwise.tokens import PairEncoder

COLLECTION = Path(__file__).parents[1] / "export" / "data" / "noveleval"
NOISE, SEEDS = 1e-7, (1, 2)

Way = Callable[..., str]


@dataclass(frozen=True, slots=True)
class Variant:
    """A graph: the way of each linear layer by its name, "layer.3.up"; `rounded`: the type that its inputs pass."""

    name: str
    way: Callable[[str], Way]
    grid: float = 0.0  # to which scores are rounded


def int8(name: str) -> Way:
    """The shipped way."""
    return LINEAR_WAYS["int8-per-row"].write


def in_fp32(*parts: str) -> Callable[[str], Way]:
    """fp32 activations in the layers whose name begins with one of `parts`, or ends with it."""
    return lambda name: LINEAR_WAYS["dequantised"].write if name.startswith(parts) or name.endswith(parts) else int8("")


def in_15_bits(*parts: str) -> Callable[[str], Way]:
    """Activations in 15 bits, likewise."""
    fine = LINEAR_WAYS["int16-per-row"].write
    return lambda name: fine if name.startswith(parts) or name.endswith(parts) else int8("")


def through(kind: int) -> Callable[[str], Way]:
    """Activations are rounded to fp16 or bfloat16 before they are quantised."""

    def way(g: Graph, x: str, count: str, layer: Linear, factor: str | None = None) -> str:
        coarse = g.once("Cast", x, to=kind)
        return int8("")(g, g.once("Cast", coarse, to=TensorProto.FLOAT), count, layer, factor)

    return lambda name: way


def steps(number: int) -> Callable[[str], Way]:
    """Activations in `number` steps on each side instead of 127: coarser rounding."""

    def way(g: Graph, x: str, count: str, layer: Linear, factor: str | None = None) -> str:
        large = g.add("Mul", g.once("Abs", x), g.const(f"times_{number}", np.float32(127 / number)))
        # A column that is larger than the others determines the scale and meets a row of zeros in the matrix.
        last = g.const("last_axis", np.array([-1], np.int64))
        largest = g.add("ReduceMax", large, last, keepdims=1)
        weight = np.pad(layer.weight, ((0, 4), (0, 0)))
        pad = g.add("Expand", largest, g.const("four", np.array([1, 4], np.int64)))
        padded = g.add("Concat", x, pad, axis=1)
        bias = layer.bias
        if layer.floor is not None:  # the zero point in the middle: the shift would undo the padding
            return int8("")(g, padded, count, replace(layer, weight=weight, floor=None, bias=bias), factor)
        return int8("")(g, padded, count, replace(layer, weight=weight), factor)

    return lambda name: way


LAST = tuple(f"layer.{number}." for number in (9, 10, 11))
VARIANTS = (
    Variant("shipped graph", int8),
    Variant("activations through fp16", through(TensorProto.FLOAT16)),
    Variant("activations through bfloat16", through(TensorProto.BFLOAT16)),
    Variant("31 steps instead of 127", steps(31)),
    Variant("first layer in fp32", in_fp32("layer.0.")),
    Variant("last layer in fp32", in_fp32("layer.11.")),
    Variant("first and last layer in fp32", in_fp32("layer.0.", "layer.11.")),
    Variant("last three layers in fp32", in_fp32(*LAST)),
    Variant("feed-forward outputs in fp32", in_fp32(".down")),
    Variant("feed-forward outputs in 15 bits", in_15_bits(".down")),
    Variant("all in 15 bits", in_15_bits("layer.")),
    Variant("scores on a grid of 0.1", int8, grid=0.1),
    Variant("scores on a grid of 0.25", int8, grid=0.25),
    Variant("fp32", in_fp32("layer.")),
)


class _VariantWriter(_Writer):
    """Writes the graph of the one-document layout with the ways of a variant."""

    def __init__(self, model: Any, variant: Variant) -> None:
        super().__init__(model, "dequantised", batched=False, half=False)
        self._variant = variant

    def linear(self, x: str, layer: Linear) -> str:
        return self._variant.way(layer.name)(self.g, x, self.count, layer)


def open_graph(graph: Graph, noise: int | None) -> ort.InferenceSession:
    """A session of one thread; fp32 tensors are multiplied by 1 + NOISE * N(0, 1) if `noise` is a seed."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    random = np.random.default_rng(noise)
    values = {}
    for name, exact in graph.weights.items():
        noisy = noise is not None and exact.dtype == np.float32
        factor = 1 + NOISE * random.standard_normal(exact.shape) if noisy else 1
        value = np.ascontiguousarray(exact * factor, exact.dtype) if noisy else np.ascontiguousarray(exact)
        values[name] = ort.OrtValue.ortvalue_from_numpy(value)
    options.add_external_initializers(list(values), list(values.values()))
    return ort.InferenceSession(graph.to_bytes(), options, providers=["CPUExecutionProvider"])


def scores_of(session: ort.InferenceSession, rows: Sequence[Any]) -> tuple[np.ndarray, float]:
    """The score of each row, and the processor seconds of all."""
    start = time.thread_time()
    scores = [session.run(["score"], {"ids": row.ids, "types": row.types})[0][0, 0] for row in rows]
    return np.array(scores, np.float64), time.thread_time() - start


def token_rows(documents: int) -> list[Any]:
    """Rows of pairs of all queries of NovelEval's BM25 run, evenly chosen."""
    bundle = Bundle(find_model(DEFAULT_MODEL))
    encoder = PairEncoder(bundle.read("tokenizer.json"), max_tokens=bundle.manifest.max_tokens)
    pairs = load_pairs(COLLECTION, "run_bm25.trec").rows
    chosen = pairs[:: max(1, len(pairs) // documents)][:documents]
    return [row for _, _, query, record in chosen for row in encoder.pairs(encoder.ids(query), [record["text"]])]


def measured(variant: Variant, model: Any, rows: Sequence[Any]) -> tuple[list[np.ndarray], float]:
    """Scores without noise and with each seed's, and the shortest processor seconds of a round."""
    graph = _VariantWriter(model, variant).write()
    rounds = [scores_of(open_graph(graph, noise), rows) for noise in (None, *SEEDS)]
    scores = [s if not variant.grid else np.round(s / variant.grid) * variant.grid for s, _ in rounds]
    return scores, min(seconds for _, seconds in rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--only", default="", help="the variants with this text in their name")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--compare", type=Path)
    options = parser.parse_args()
    published, rows = read_published(options.model), token_rows(options.documents)
    model = limit_model(published)
    other = json.loads(options.compare.read_text()) if options.compare else {}
    variants = [v for v in VARIANTS if options.only in v.name or v is VARIANTS[0]]
    reference, _ = scores_of(open_graph(_VariantWriter(published, VARIANTS[-1]).write(), None), rows)
    kept, base_s = {}, None
    print(f"ONNX Runtime {ort.__version__}, {len(rows)} documents; difference: mean, largest")
    for variant in variants:
        scores, seconds = measured(variant, model, rows)
        base_s = base_s or seconds
        kept[variant.name] = scores[0].tolist()
        by_noise = np.abs(np.array(scores[1:]) - scores[0])
        line = f"{variant.name:34} noise {by_noise.mean():.4f} {by_noise.max():.3f}"
        if variant.name in other:
            by_other = np.abs(np.array(other[variant.name]) - scores[0])
            line += f"  other {by_other.mean():.4f} {by_other.max():.3f}"
        print(
            f"{line}  fp32 {np.abs(scores[0] - reference).mean():.4f}  time {seconds / base_s:.2f} "
            f"({seconds / len(rows) * 1e3:.1f} ms)",
            flush=True,
        )
    if options.output:
        options.output.write_text(json.dumps(kept))


if __name__ == "__main__":
    main()
