"""Decoder families that can be exported: the supported config.json fields, and the tensors of a complete scorer."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from dearlite.errors import CheckpointError, UsageError
from dearlite.export.source.checkpoint import TensorSource, name_some


@dataclass(frozen=True, slots=True)
class Family:
    """Differences of a family from LLaMA's architecture."""

    qkv_bias: bool = False
    head_norms: bool = False  # an RMSNorm on every head of q and k, before the rotation
    sliding_window: bool = False  # True if sliding_window applies where config.json has no use_sliding_window
    activations: tuple[str, ...] = (
        "silu",
    )  # of the feed-forward layers, as config.json names them; first: the default
    norm_offset: float = 0.0  # added to the gains of RMSNorm
    scaled_embedding: bool = False  # the embedding's rows are multiplied by the root of their width
    causal: bool = True  # False: tokens attend to later ones, and the score is the mean of all tokens'


# `model_type` of config.json -> family.
FAMILIES = {
    "llama": Family(),  # Llama 2, 3, 3.1, 3.2, SmolLM2
    "mistral": Family(sliding_window=True),
    "qwen2": Family(qkv_bias=True),
    "qwen3": Family(head_norms=True),
    "gemma": Family(activations=("gelu_pytorch_tanh", "gelu"), norm_offset=1.0, scaled_embedding=True),
    "llama_bidirec": Family(causal=False),  # Nemotron's rerankers
}
_REQUIRED_FIELDS = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "vocab_size",
    "rms_norm_eps",
)


# Fields that are numbers, and those of them that config.json may lack.
_OPTIONAL = ("num_key_value_heads", "head_dim", "sliding_window", "max_position_embeddings")
_NUMBERS = (*_REQUIRED_FIELDS, *_OPTIONAL)
# Tensors of old checkpoints that are computed from config.json; every reader ignores them.
COMPUTED = re.compile(r"(model\.layers\.\d+\.self_attn\.)?(model\.)?rotary_emb\.inv_freq")
_SAME_REVISION = "fetch model and config.json again, both of one revision"


_MOST_DIMENSIONS = 4096  # of a head
_MOST_LAYERS = 10_000  # their tensors are named one by one
_MOST = 1e18  # of any number in config.json


def shape_of(config: dict[str, Any], max_tokens: int) -> LlamaShape:
    """The network's shape from config.json. Raises UsageError naming an unsupported architecture or field."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise UsageError(f"architecture {kind!r} is not supported: it is none of {', '.join(FAMILIES)}")
    return read_shape(config, FAMILIES[kind], max_tokens)


def read_shape(
    config: dict[str, Any], family: Family, max_tokens: int, *, own_rope: bool = False, own_windows: bool = False
) -> LlamaShape:
    """The shape of a network of `family`. Raises UsageError naming an unsupported field.

    With `own_rope` and `own_windows` the caller reads the rotary settings, and the sliding windows: `frequencies` is
    then empty.
    """
    kind = config.get("model_type")
    if missing := [name for name in _REQUIRED_FIELDS if config.get(name) is None]:
        raise UsageError(f"the config.json of this {kind} model has no {', '.join(missing)}: fetch the model again")
    if wrong := [f"{name} {config[name]!r}" for name in _NUMBERS if not _is_number(name, config.get(name))]:
        raise UsageError(f"the config.json of this {kind} model has {', '.join(wrong)}: fetch the model again")
    window = config.get("sliding_window")
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or hidden // heads
    rope = {} if own_rope else rope_settings(config)
    unsupported = []
    if config.get("quantization_config"):
        unsupported.append("quantised weights (quantization_config; only a bf16, fp16 or fp32 revision)")
    if heads % kv_heads:
        unsupported.append(f"{heads} heads that share {kv_heads} heads of keys and values")
    if not own_rope and any(part.get("partial_rotary_factor") not in (None, 1) for part in (config, rope)):
        unsupported.append("a partial_rotary_factor (only 1)")
    if config.get("is_causal") is False and family.causal:
        unsupported.append("attention to later tokens (is_causal false)")
    activation = config.get("hidden_activation") or config.get("hidden_act") or family.activations[0]
    unsupported += _own_values(config, family, activation)
    windowed = config.get("use_sliding_window", family.sliding_window) and not own_windows
    if window is not None and windowed and window < max_tokens:
        unsupported.append(f"sliding_window {window} below {max_tokens} tokens (--max-tokens {window} fits)")
    if config.get("mlp_bias") or (config.get("attention_bias") and not family.qkv_bias):
        unsupported.append("biases in its linear layers")
    if head_dim % 16 or head_dim > _MOST_DIMENSIONS:
        unsupported.append(f"heads of {head_dim} dimensions (only multiples of 16, {_MOST_DIMENSIONS} at most)")
    if config["num_hidden_layers"] > _MOST_LAYERS:
        unsupported.append(f"{config['num_hidden_layers']} layers (at most {_MOST_LAYERS})")
    if unsupported:
        raise UsageError(f"this {kind} model has {'; '.join(unsupported)}, which is not supported")
    return LlamaShape(
        layers=config["num_hidden_layers"],
        hidden=hidden,
        ffn=config["intermediate_size"],
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=config["vocab_size"],
        epsilon=config["rms_norm_eps"],
        frequencies=() if own_rope else rotary_frequencies(config, head_dim),
        max_tokens=max_tokens,
        qkv_bias=family.qkv_bias,
        head_norms=family.head_norms,
        activation=activation,
        norm_offset=family.norm_offset,
        embedding_scale=hidden**0.5 if family.scaled_embedding else 1.0,
        causal=family.causal,
    )


def _own_values(config: dict[str, Any], family: Family, activation: Any) -> list[str]:
    """Values of config.json that the family's graph has no form for."""
    unsupported = []
    if activation not in family.activations:
        names = " and ".join(map(repr, family.activations))
        unsupported.append(f"hidden_act {activation!r} (only {names})")
    if not family.causal:  # fields of the model's own code
        values = {"pooling": "avg", "temperature": 1}
        unsupported += [f"{n} {config[n]!r} (only {v!r})" for n, v in values.items() if config.get(n) not in (None, v)]
    return unsupported


# rope type -> its numbers in config.json
_SCALINGS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


def rope_settings(config: dict[str, Any]) -> dict[str, Any]:
    """The rotary settings with `rope_type` and `rope_theta`: rope_scaling of transformers 4, rope_parameters of 5.

    Raises UsageError for settings that differ between layers, or that are no numbers.
    """
    stated = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(stated, dict) or any(isinstance(value, dict) for value in stated.values()):
        raise UsageError("its rotary settings (rope_parameters) are not one object for all layers: not supported")
    settings = dict(stated)
    if "rope_type" not in settings and "type" in settings:
        settings["rope_type"] = settings["type"]
    if "rope_theta" not in settings and config.get("rope_theta") is not None:
        settings["rope_theta"] = config["rope_theta"]
    if "rope_theta" in settings and not is_positive(settings["rope_theta"]):
        raise UsageError(f"rope_theta is {settings['rope_theta']!r}, not a number above 0: fetch config.json again")
    return settings


def label_count(config: dict[str, Any]) -> int | None:
    """The number of labels that config.json states; None if it states none. Raises UsageError for another value."""
    names = config.get("id2label")
    labels = config.get("num_labels") or (len(names) if isinstance(names, (dict, list)) else None)
    if labels and type(labels) is not int:
        raise UsageError(f"config.json states num_labels {labels!r}, which is no whole number: fetch it again")
    return labels or None


def _is_number(name: str, value: Any) -> bool:
    """True for a number of the field's kind, above 0; optional fields may be missing, 0 or null."""
    if name in _OPTIONAL and value in (None, 0):
        return True
    return is_positive(value) and (name == "rms_norm_eps" or type(value) is int)


def is_positive(value: Any) -> bool:
    """True for a number of config.json above 0."""
    return type(value) in (int, float) and 0 < value < _MOST  # a whole number may be beyond a float


def rotary_frequencies(config: dict[str, Any], head_dim: int) -> tuple[float, ...]:
    """Rotation angle per position for each pair of dimensions: theta^(-2i/d), scaled as the configuration requires.

    "llama3" (Llama 3.1): frequencies with a wavelength above original / low are divided by `factor`, those with a
    wavelength below original / high are kept, and frequencies between the two limits are blended. Raises UsageError for
    an unsupported scaling.
    """
    rope = rope_settings(config)
    theta = rope.get("rope_theta") or 10000.0
    plain = [theta ** (-2 * i / head_dim) for i in range(head_dim // 2)]
    kind = rope.get("rope_type") or "default"
    if not isinstance(kind, str) or kind not in _SCALINGS:
        raise UsageError(f"rope scaling {kind!r} is not supported: it is none of {', '.join(_SCALINGS)}")
    if wrong := [name for name in _SCALINGS[kind] if not is_positive(rope.get(name))]:
        raise UsageError(f"rope scaling {kind!r} has no number for {', '.join(wrong)}: fetch config.json again")
    if kind == "default":
        return tuple(plain)
    if kind == "linear":
        return tuple(f / rope["factor"] for f in plain)
    low, high, original = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
    if high == low:
        raise UsageError(f"rope scaling {kind!r} has two equal factors, {low!r}: fetch config.json again")
    scaled = []
    for frequency in plain:
        wavelength = 2 * math.pi / frequency
        blend = min(1.0, max(0.0, (original / wavelength - low) / (high - low)))
        scaled.append((1 - blend) * frequency / rope["factor"] + blend * frequency)
    return tuple(scaled)


def check_tensors(source: TensorSource, shape: LlamaShape, *, headed: bool = True) -> None:
    """Raises CheckpointError listing tensors that are missing, misshapen, or have no place in the network.

    The output matrix of a language model, over which the scorer was trained, is no part of it and is left out.
    `headed` is False for a language model, which has no score head.
    """
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    expected = {
        "model.embed_tokens.weight": (shape.vocabulary, shape.hidden),
        "model.norm.weight": (shape.hidden,),
    }
    if headed:
        expected["score.weight"] = (1, shape.hidden)
    for number in range(shape.layers):
        prefix = f"model.layers.{number}"
        expected |= {
            f"{prefix}.input_layernorm.weight": (shape.hidden,),
            f"{prefix}.post_attention_layernorm.weight": (shape.hidden,),
            f"{prefix}.self_attn.q_proj.weight": (q, shape.hidden),
            f"{prefix}.self_attn.k_proj.weight": (kv, shape.hidden),
            f"{prefix}.self_attn.v_proj.weight": (kv, shape.hidden),
            f"{prefix}.self_attn.o_proj.weight": (shape.hidden, q),
            f"{prefix}.mlp.gate_proj.weight": (shape.ffn, shape.hidden),
            f"{prefix}.mlp.up_proj.weight": (shape.ffn, shape.hidden),
            f"{prefix}.mlp.down_proj.weight": (shape.hidden, shape.ffn),
        }
        if shape.qkv_bias:
            expected |= {f"{prefix}.self_attn.{p}_proj.bias": (q if p == "q" else kv,) for p in "qkv"}
        if shape.head_norms:
            expected |= {f"{prefix}.self_attn.{p}_norm.weight": (shape.head_dim,) for p in "qk"}
    names = set(source.names)
    wrong = [f"{name} is missing" for name in expected if name not in names]
    wrong += [
        f"{name} is {tuple(source.shape(name))}, not {sides}"
        for name, sides in expected.items()
        if name in names and tuple(source.shape(name)) != sides
    ]
    left_over = [name for name in source.names if name not in expected and name != "lm_head.weight"]
    wrong += [f"{name} has no place in it" for name in left_over if not COMPUTED.fullmatch(name)]
    if wrong:
        raise CheckpointError(
            f"the checkpoint is not the {'scorer' if headed else 'model'} of its config.json: "
            f"{name_some(wrong, 6, '; ')}: {_SAME_REVISION}"
        )


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """The dimensions of a LLaMA-family network, as far as graphs and arithmetic depend on them."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    epsilon: float
    frequencies: tuple[float, ...]  # rotation angle per position, for each pair of a head's dimensions
    max_tokens: int
    qkv_bias: bool = False
    head_norms: bool = False  # an RMSNorm on every head of q and k
    activation: str = "silu"  # of the feed-forward layers' gate: silu, gelu, or gelu_pytorch_tanh
    norm_offset: float = 0.0  # added to the gains of RMSNorm
    embedding_scale: float = 1.0  # multiplies the embedding's rows
    causal: bool = True  # False: tokens attend to later ones, and the score is the mean of all tokens'


def macs_per_token(shape: LlamaShape) -> int:
    """Multiply-accumulate operations per token in the linear layers, which is the number of their weights."""
    s = shape
    return s.layers * (s.hidden * s.head_dim * (2 * s.heads + 2 * s.kv_heads) + 3 * s.hidden * s.ffn)
