"""Rotary positions of a family: frequencies for the fp32 reference, and the tensors and scales of its GGUF."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dearlite.errors import UsageError
from dearlite.export.gguf.architectures import Architecture
from dearlite.export.source.checkpoint import Floats
from dearlite.export.source.families import rope_settings, rotary_frequencies

ROPE_FACTORS = "rope_freqs.weight"
LONG_FACTORS, SHORT_FACTORS = "rope_factors_long.weight", "rope_factors_short.weight"
_LONG = ("longrope", "su")
_DEFAULT_THETA = 10000.0  # of llama.cpp, where the file has no key


@dataclass(frozen=True, slots=True)
class Rotary:
    """Rotation angles per position of each rotated pair, and the file's tensors.

    `local` are the angles of the layers with a window. `scale` multiplies cosine and sine.
    """

    frequencies: tuple[float, ...]
    local: tuple[float, ...] = ()
    scale: float = 1.0
    tensors: dict[str, Floats] = field(default_factory=dict)


def rotary_of(config: dict[str, Any], family: Architecture, head_dim: int, max_tokens: int) -> Rotary:
    """The rotary positions of `family`. Raises UsageError for settings that llama.cpp does not compute."""
    whole, local = split_by_layers(config)
    settings = rope_settings(whole)
    scaling = settings.get("rope_type") or "default"
    if scaling not in family.scalings:
        raise UsageError(f"rope scaling {scaling!r} is not supported: it is none of {', '.join(family.scalings)}")
    theta = settings.get("rope_theta") or _DEFAULT_THETA
    if "rope.freq_base" not in family.keys and theta != _DEFAULT_THETA:
        raise UsageError(f"rope_theta is {theta:g}, and llama.cpp's {family.gguf} has {_DEFAULT_THETA:g} only")
    share = settings.get("partial_rotary_factor") or whole.get("partial_rotary_factor") or 1
    if share != 1 and not family.partial_rotary:
        raise UsageError(f"partial_rotary_factor is {share}, and llama.cpp's {family.gguf} rotates all dimensions")
    dims = int(head_dim * share)
    if not 0 < dims <= head_dim or dims % 2:
        raise UsageError(
            f"partial_rotary_factor is {share}: {dims} of the {head_dim} dimensions of a head are not pairs"
        )
    if scaling in _LONG:
        return _long_rope(whole, settings, theta, dims, max_tokens)
    frequencies = rotary_frequencies(whole | {"rope_scaling": settings}, dims)  # checks the settings
    factors = _llama3_factors(settings, dims)
    tensors = {} if factors is None else {ROPE_FACTORS: factors}
    angles = () if family.full_every == 0 else _powers(local or theta, dims)
    return Rotary(frequencies, angles, tensors=tensors)


def split_by_layers(config: dict[str, Any]) -> tuple[dict[str, Any], float | None]:
    """`config` with the rotary settings of the layers that attend to all tokens, and the theta of those with a window.

    transformers 4 names the second `rope_local_base_freq`, 5 nests both in `rope_parameters`.
    """
    nested = config.get("rope_parameters")
    if isinstance(nested, dict) and set(nested) == {"full_attention", "sliding_attention"}:
        full, sliding = (nested[kind] if isinstance(nested[kind], dict) else {} for kind in sorted(nested))
        if sliding.get("rope_type", "default") != "default":
            raise UsageError(f"rope scaling {sliding['rope_type']!r} in layers with a window is not supported")
        return config | {"rope_parameters": full, "rope_scaling": None}, sliding.get("rope_theta")
    return config, config.get("rope_local_base_freq")


def _powers(theta: float, dims: int) -> tuple[float, ...]:
    return tuple(theta ** (-2 * i / dims) for i in range(dims // 2))


def _long_rope(config: dict[str, Any], settings: dict[str, Any], theta: float, dims: int, max_tokens: int) -> Rotary:
    """LongRoPE (arXiv 2402.13753): a divisor of each frequency, another one for contexts above the original length."""
    original = settings.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
    lists = [settings.get("long_factor"), settings.get("short_factor")]
    wrong = [
        name
        for name, values in zip(("long_factor", "short_factor"), lists, strict=True)
        if not isinstance(values, list) or len(values) != dims // 2 or not all(map(_is_positive, values))
    ]
    if wrong or type(original) is not int or original < 2:
        raise UsageError(
            f"rope scaling 'longrope' needs original_max_position_embeddings and {dims // 2} numbers in each of "
            f"long_factor and short_factor (wrong: {', '.join(wrong) or repr(original)}): fetch config.json again"
        )
    if not config.get("max_position_embeddings"):
        raise UsageError("rope scaling 'longrope' needs max_position_embeddings: fetch config.json again")
    stretch = config["max_position_embeddings"] / original
    scale = math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0
    own = [name for name in ("attention_factor", "factor", "short_mscale", "long_mscale") if settings.get(name)]
    if own:
        raise UsageError(f"rope scaling 'longrope' with {', '.join(own)} of its own is not supported")
    if max_tokens > original:
        raise UsageError(
            f"rope scaling 'longrope': above {original} tokens llama.cpp chooses the factors by the size of its "
            f"context, and not by the text's: take --max-tokens {original}"
        )
    long, short = (np.array(values, np.float32) for values in lists)
    angles = tuple(f / float(by) for f, by in zip(_powers(theta, dims), short, strict=True))
    return Rotary(angles, scale=scale, tensors={LONG_FACTORS: long, SHORT_FACTORS: short})


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value > 0


def _llama3_factors(settings: dict[str, Any], head_dim: int) -> Floats | None:
    """The divisor of each rotary frequency, (head_dim / 2,) float32, for the scaling "llama3"; None for others.

    Wavelengths above original / low are stretched by `factor`, those below original / high are kept, and the two are
    blended between these limits (Llama 3.1). Computed in float32 like llama.cpp's converter, so that the bits agree.
    """
    if settings.get("rope_type") != "llama3":
        return None
    factor, original = settings.get("factor", 8.0), settings.get("original_max_position_embeddings", 8192)
    low, high = settings.get("low_freq_factor", 1.0), settings.get("high_freq_factor", 4.0)
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = np.float32(1) / np.power(np.float32(settings.get("rope_theta", 10000.0)), exponents)
    factors = []
    for frequency in frequencies:
        wavelength = np.float32(2 * math.pi) / frequency
        if wavelength < original / high:
            factors.append(np.float32(1))
        elif wavelength > original / low:
            factors.append(np.float32(factor))
        else:
            smooth = (np.float32(original) / wavelength - np.float32(low)) / np.float32(high - low)
            factors.append(np.float32(1) / ((1 - smooth) / np.float32(factor) + smooth))
    return np.array(factors, np.float32)
