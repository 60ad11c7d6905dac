"""Pointwise LLaMA-family models to a `.dear` file, one tensor at a time: fold, rotate, quantise, write.

Reads tensors through `TensorSource` (a checkpoint, or a checkpoint with a LoRA merged on the way) and never holds more
than one of them in fp32. `ARCHITECTURES` says what the families differ in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dearlite.bundle import BundleWriter
from dearlite.errors import UsageError
from dearlite.export.checkpoint import CheckpointError, TensorSource
from dearlite.export.onnx.graph import Graph
from dearlite.export.onnx.llama import LlamaShape, llama_graph
from dearlite.export.onnx.rotation import HADAMARD_BLOCK, mix_rows_in_blocks, residual_rotation
from dearlite.manifest import Build

_ROWS = 4096  # of the embedding, at a time


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a family needs beyond LLaMA's own form."""

    qkv_bias: bool = False


# `model_type` of config.json -> family.
ARCHITECTURES = {
    "llama": Architecture(),  # Llama 2, 3, 3.1, 3.2, SmolLM2
    "mistral": Architecture(),
    "qwen2": Architecture(qkv_bias=True),
}


@dataclass(frozen=True, slots=True)
class Quantisation:
    """One way to write the weights: in int8 or fp32, in a rotated basis, with block Hadamards; and the graphs' ways."""

    int8: bool
    rotated: bool  # the residual stream
    mixed: bool  # the down projection's input, in blocks, at run time
    ways: tuple[
        tuple[str, str, tuple[str, ...]], ...
    ]  # (way, the last layer's way, what the machine must be able to do)


QUANTISATIONS = {
    "int8": Quantisation(
        int8=True,
        rotated=True,
        mixed=True,
        ways=(
            ("int8-per-row", "int16-per-row", ("u8s8-exact",)),
            ("int8-per-row-wide", "int16-per-row-wide", ()),
        ),
    ),
    "fp32": Quantisation(int8=False, rotated=False, mixed=False, ways=(("fp32", "fp32", ()),)),
}


def shape_of(config: dict[str, Any], max_tokens: int) -> LlamaShape:
    """The graph's shape from config.json. Raises UsageError naming an architecture or a field that is not covered."""
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise UsageError(f"architecture {kind!r} is not covered: it is none of {', '.join(ARCHITECTURES)}")
    window = config.get("sliding_window")
    wrong = []
    if config.get("hidden_act", "silu") != "silu":
        wrong.append(f"hidden_act {config['hidden_act']!r} (only 'silu')")
    if window is not None and config.get("use_sliding_window", True) and window < max_tokens:
        wrong.append(f"sliding_window {window} below {max_tokens} tokens")
    if config.get("mlp_bias") or (config.get("attention_bias") and not ARCHITECTURES[kind].qkv_bias):
        wrong.append("biases in its linear layers")
    if wrong:
        raise UsageError(f"this {kind} model has {'; '.join(wrong)}, which is not covered")
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    head_dim = config.get("head_dim") or hidden // heads
    return LlamaShape(
        layers=config["num_hidden_layers"],
        hidden=hidden,
        ffn=config["intermediate_size"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=head_dim,
        vocabulary=config["vocab_size"],
        epsilon=config["rms_norm_eps"],
        frequencies=rotary_frequencies(config, head_dim),
        max_tokens=max_tokens,
        qkv_bias=ARCHITECTURES[kind].qkv_bias,
    )


def rotary_frequencies(config: dict[str, Any], head_dim: int) -> tuple[float, ...]:
    """Angle a position for each pair of dimensions: theta^(-2i/d), scaled as the configuration says.

    "llama3" (Llama 3.1): wavelengths above original / low are divided by `factor`, those below original / high are
    kept, and between them the two are blended. Raises UsageError for a scaling that is not covered.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = rope.get("rope_theta") or config.get("rope_theta") or 10000.0
    plain = [theta ** (-2 * i / head_dim) for i in range(head_dim // 2)]
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return tuple(plain)
    if kind == "linear":
        return tuple(f / rope["factor"] for f in plain)
    if kind != "llama3":
        raise UsageError(f"rope scaling {kind!r} is not covered: it is none of default, linear, llama3")
    low, high, original = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
    scaled = []
    for frequency in plain:
        wavelength = 2 * math.pi / frequency
        blend = min(1.0, max(0.0, (original / wavelength - low) / (high - low)))
        scaled.append((1 - blend) * frequency / rope["factor"] + blend * frequency)
    return tuple(scaled)


def write_bundle(
    source: TensorSource,
    tokenizer: bytes,
    facts: dict[str, Any],
    path: Path,
    *,
    plan: Quantisation = QUANTISATIONS["int8"],
    members: dict[str, bytes] | None = None,
) -> None:
    """Writes `source` as a `.dear` file. `facts` are the manifest's fields but for builds, members and tensors.

    Peak memory is a few copies of the largest matrix in fp32. Raises UsageError or CheckpointError before anything is
    written where the model is not covered, and leaves nothing behind when it fails later.
    """
    shape = shape_of(source.config, facts["max_tokens"])
    _check_tensors(source, shape)
    mixes = plan.mixed and shape.ffn % HADAMARD_BLOCK == 0
    graphs: dict[str, Graph] = {}
    builds = []
    for number, (way, last_way, requires) in enumerate(plan.ways):
        name = "cpu.onnx" if number == 0 else "cpu-wide.onnx"
        graphs[name] = llama_graph(shape, way, last_way, block_hadamard=mixes)
        tensors = tuple(graphs[name].weights)
        builds.append(Build("cpu", name, "shared-prefix", way, requires, tensors))
    with BundleWriter(path) as bundle:
        written = set()
        for name, dtype, value_shape, blocks in _tensors(source, shape, plan, mixes):
            bundle.add_tensor(name, dtype, value_shape, blocks)
            written.add(name)
        for graph in graphs.values():
            for name in ("rotary.cos", "rotary.sin"):
                if name not in written:
                    value = graph.weights[name]
                    bundle.add_tensor(name, value.dtype.name, value.shape, [value.tobytes()])
                    written.add(name)
            missing = set(graph.weights) - written
            assert not missing, f"the graph wants tensors that were not written: {sorted(missing)[:5]}"
        parts = {"tokenizer.json": tokenizer, **(members or {})} | {n: g.to_bytes() for n, g in graphs.items()}
        bundle.finish(parts, facts | {"builds": tuple(builds)})


Written = tuple[str, str, tuple[int, ...], Iterator[bytes]]


def _tensors(source: TensorSource, shape: LlamaShape, plan: Quantisation, mixes: bool) -> Iterator[Written]:
    """Every weight under the graph's names, made as it is asked for."""
    basis = residual_rotation(shape.hidden) if plan.rotated else None
    yield from _embedding(source, shape, plan, basis)
    for number in range(shape.layers):
        at, layer = f"model.layers.{number}", f"layer.{number}"
        gain = source.read(f"{at}.input_layernorm.weight")
        yield from _matrix(
            _reading(source, [f"{at}.self_attn.{p}_proj" for p in "qkv"], gain, basis), f"{layer}.qkv", plan
        )
        if shape.qkv_bias:
            bias = np.concatenate([source.read(f"{at}.self_attn.{p}_proj.bias") for p in "qkv"])
            yield f"{layer}.qkv.bias", "float32", bias.shape, iter([bias.tobytes()])
        yield from _matrix(_writing(source, f"{at}.self_attn.o_proj", basis), f"{layer}.o", plan)
        gain = source.read(f"{at}.post_attention_layernorm.weight")
        yield from _matrix(
            _reading(source, [f"{at}.mlp.{p}_proj" for p in ("gate", "up")], gain, basis), f"{layer}.gate_up", plan
        )
        down = _writing(source, f"{at}.mlp.down_proj", basis)
        yield from _matrix(mix_rows_in_blocks(down, HADAMARD_BLOCK) if mixes else down, f"{layer}.down", plan)
    head = (source.read("score.weight") * source.read("model.norm.weight")).astype(np.float32)  # (1, hidden)
    head = head if basis is None else head @ basis
    yield "head", "float32", (shape.hidden, 1), iter([np.ascontiguousarray(head.T).tobytes()])


def _embedding(source: TensorSource, shape: LlamaShape, plan: Quantisation, basis: Any) -> Iterator[Written]:
    """The embedding's rows in the rotated basis: int8 with one scale a row, or fp32."""
    name, sides = "model.embed_tokens.weight", (shape.vocabulary, shape.hidden)
    scales = []

    def blocks() -> Iterator[bytes]:
        for block in source.blocks(name, _ROWS):
            rows = block if basis is None else block @ basis
            if plan.int8:
                scale = _scales(rows)
                scales.append(scale)
                rows = np.round(rows / scale[:, None]).astype(np.int8)
            yield np.ascontiguousarray(rows).tobytes()

    yield "embedding", "int8" if plan.int8 else "float32", sides, blocks()
    if plan.int8:
        scale = np.concatenate(scales)
        yield "embedding.scale", "float32", (len(scale), 1), iter([scale.tobytes()])


def _reading(source: TensorSource, names: list[str], gain: Any, basis: Any) -> Any:
    """Matrices that read the residual stream, side by side as (in, out): the norm's gain and the rotation folded in."""
    parts = []
    for name in names:
        rows = source.read(f"{name}.weight") * gain  # (out, in)
        parts.append(rows if basis is None else rows @ basis)
    return np.concatenate(parts).T


def _writing(source: TensorSource, name: str, basis: Any) -> Any:
    """A matrix that writes into the residual stream, as (in, out), in the rotated basis."""
    columns = source.read(f"{name}.weight").T
    return columns if basis is None else columns @ basis


def _matrix(weight: Any, name: str, plan: Quantisation) -> Iterator[Written]:
    """(in, out) as int8 with one scale a column, or as it is."""
    if not plan.int8:
        yield f"{name}.weight", "float32", weight.shape, iter([np.ascontiguousarray(weight, np.float32).tobytes()])
        return
    scale = _scales(weight.T)
    quantised = np.empty(weight.shape, np.int8)
    for start in range(0, len(weight), _ROWS):  # in blocks: the rounding's temporary is fp32
        quantised[start : start + _ROWS] = np.round(weight[start : start + _ROWS] / scale)
    yield f"{name}.weight", "int8", weight.shape, iter([quantised.tobytes()])
    yield f"{name}.scale", "float32", scale.shape, iter([scale.tobytes()])


def _scales(rows: Any) -> Any:
    """(rows,) float32: the largest magnitude of each row / 127, so that int8 covers -127 to 127."""
    largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
    return np.where(largest > 0, largest / 127, 1).astype(np.float32)


def _check_tensors(source: TensorSource, shape: LlamaShape) -> None:
    """Raises CheckpointError naming what is missing or has another shape than config.json says."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    wanted = {
        "model.embed_tokens.weight": (shape.vocabulary, shape.hidden),
        "model.norm.weight": (shape.hidden,),
        "score.weight": (1, shape.hidden),
    }
    for number in range(shape.layers):
        at = f"model.layers.{number}"
        wanted |= {
            f"{at}.input_layernorm.weight": (shape.hidden,),
            f"{at}.post_attention_layernorm.weight": (shape.hidden,),
            f"{at}.self_attn.q_proj.weight": (q, shape.hidden),
            f"{at}.self_attn.k_proj.weight": (kv, shape.hidden),
            f"{at}.self_attn.v_proj.weight": (kv, shape.hidden),
            f"{at}.self_attn.o_proj.weight": (shape.hidden, q),
            f"{at}.mlp.gate_proj.weight": (shape.ffn, shape.hidden),
            f"{at}.mlp.up_proj.weight": (shape.ffn, shape.hidden),
            f"{at}.mlp.down_proj.weight": (shape.hidden, shape.ffn),
        }
        if shape.qkv_bias:
            wanted |= {f"{at}.self_attn.{p}_proj.bias": (q if p == "q" else kv,) for p in "qkv"}
    names = set(source.names)
    wrong = [f"{name} is missing" for name in wanted if name not in names]
    wrong += [
        f"{name} is {tuple(source.shape(name))}, not {sides}"
        for name, sides in wanted.items()
        if name in names and tuple(source.shape(name)) != sides
    ]
    if wrong:
        more = f" and {len(wrong) - 6} more" if len(wrong) > 6 else ""
        raise CheckpointError(f"the checkpoint is no scorer of its config.json: {'; '.join(wrong[:6])}{more}")
