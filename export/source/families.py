"""The decoder families that can be exported: what config.json must say, and the tensors that a scorer must have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dearlite.errors import CheckpointError, UsageError
from dearlite.export.source.checkpoint import TensorSource


@dataclass(frozen=True, slots=True)
class Family:
    """What a family needs beyond LLaMA's own form."""

    qkv_bias: bool = False
    head_norms: bool = False  # an RMSNorm on every head of q and k, before the rotation
    slides: bool = False  # whether sliding_window holds where config.json has no use_sliding_window


# `model_type` of config.json -> family.
FAMILIES = {
    "llama": Family(),  # Llama 2, 3, 3.1, 3.2, SmolLM2
    "mistral": Family(slides=True),
    "qwen2": Family(qkv_bias=True),
    "qwen3": Family(head_norms=True),
}
_REQUIRED = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "vocab_size",
    "rms_norm_eps",
)


def shape_of(config: dict[str, Any], max_tokens: int) -> LlamaShape:
    """The graph's shape from config.json. Raises UsageError naming an architecture or a field that is not covered."""
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise UsageError(f"architecture {kind!r} is not covered: it is none of {', '.join(FAMILIES)}")
    family = FAMILIES[kind]
    if missing := [name for name in _REQUIRED if config.get(name) is None]:
        raise UsageError(f"the config.json of this {kind} model has no {', '.join(missing)}: fetch the model again")
    window = config.get("sliding_window")
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    head_dim = config.get("head_dim") or hidden // heads
    wrong = []
    if config.get("hidden_act", "silu") != "silu":
        wrong.append(f"hidden_act {config['hidden_act']!r} (only 'silu')")
    if window is not None and config.get("use_sliding_window", family.slides) and window < max_tokens:
        wrong.append(f"sliding_window {window} below {max_tokens} tokens")
    if config.get("mlp_bias") or (config.get("attention_bias") and not family.qkv_bias):
        wrong.append("biases in its linear layers")
    if head_dim % 16:
        wrong.append(f"heads of {head_dim} dimensions (only multiples of 16)")
    if wrong:
        raise UsageError(f"this {kind} model has {'; '.join(wrong)}, which is not covered")
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
        qkv_bias=family.qkv_bias,
        head_norms=family.head_norms,
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


def check_tensors(source: TensorSource, shape: LlamaShape) -> None:
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
        if shape.head_norms:
            wanted |= {f"{at}.self_attn.{p}_norm.weight": (shape.head_dim,) for p in "qk"}
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


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """What of a model's configuration the graph depends on."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    epsilon: float
    frequencies: tuple[float, ...]  # rotary angle a position, for each pair of a head's dimensions
    max_tokens: int
    qkv_bias: bool = False
    head_norms: bool = False  # an RMSNorm on every head of q and k


def macs_per_token(shape: LlamaShape) -> int:
    """Multiplications and additions for each token, in the linear layers: as many as these have weights."""
    s = shape
    return s.layers * (s.hidden * s.head_dim * (2 * s.heads + 2 * s.kv_heads) + 3 * s.hidden * s.ffn)
