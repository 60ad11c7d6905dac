"""The network of a GGUF in numbers: what llama.cpp computes from the file, held to what config.json states.

llama.cpp has some numbers in its code and not in the file (the pattern of windows, the scale of attention): a model
with others is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from dearlite.errors import UsageError
from dearlite.export.gguf.architectures import Architecture, architecture_of
from dearlite.export.gguf.rotary import Rotary, rotary_of
from dearlite.export.source.families import LlamaShape, read_shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Network(LlamaShape):
    """The dimensions of a network, and the numbers in which families differ from LLaMA."""

    rotary: Rotary = field(default_factory=lambda: Rotary(()))
    attention_scale: float  # of the scores of attention
    score_cap: float | None = None  # scores of attention are cap * tanh(score / cap)
    logit_cap: float | None = None  # the same of logits
    window: int | None = None  # tokens that a layer with a window attends to, its own among them
    full_every: int = 0

    def has_window(self, layer: int) -> bool:
        """True if the layer attends to a window of tokens."""
        return self.full_every > 0 and (layer + 1) % self.full_every > 0


def find_network(config: dict[str, Any], max_tokens: int) -> tuple[Architecture, Network]:
    """The family and the network that config.json names. Raises UsageError for unsupported ones."""
    family = architecture_of(config)
    windowed = family.full_every > 0
    shape = read_shape(config, family.family, max_tokens, own_rope=True, own_windows=windowed)
    if faults := list(_faults(config, family, shape)):
        raise UsageError(f"this {config['model_type']} model has {'; '.join(faults)}, which llama.cpp does not compute")
    rotary = rotary_of(config, family, shape.head_dim, max_tokens)
    values = {item.name: getattr(shape, item.name) for item in fields(LlamaShape)} | {"frequencies": rotary.frequencies}
    return family, Network(
        **values,
        rotary=rotary,
        attention_scale=_scalar(family, shape) ** -0.5,
        score_cap=config.get("attn_logit_softcapping") if family.must_cap else None,
        logit_cap=config.get("final_logit_softcapping") if windowed else None,
        window=config.get("sliding_window") if windowed else None,
        full_every=family.full_every,
    )


def most_tokens(config: dict[str, Any], most: int) -> int:
    """The tokens of the longest prompt, `most` or fewer, which llama.cpp reads as transformers does.

    llama.cpp knows no windows in most families, and chooses LongRoPE's factors by the size of its context.
    """
    family = architecture_of(config)
    limits = [most, config.get("max_position_embeddings")]
    if family.full_every == 0 and config.get("use_sliding_window", family.family.sliding_window):
        limits.append(config.get("sliding_window"))
    if any(isinstance(part, dict) and part.get("long_factor") for part in _scalings(config)):
        limits.append(config.get("original_max_position_embeddings"))
    return min(limit for limit in limits if type(limit) is int and limit > 0)


def _scalings(config: dict[str, Any]) -> Iterator[Any]:
    yield config.get("rope_scaling")
    yield config.get("rope_parameters")


def _scalar(family: Architecture, shape: LlamaShape) -> int:
    """The number by whose root llama.cpp divides the scores of attention."""
    return shape.hidden // shape.heads if shape.layers == family.wide_scale_layers else shape.head_dim


def _faults(config: dict[str, Any], family: Architecture, shape: LlamaShape) -> Iterator[str]:
    """Values of config.json that llama.cpp's graph of the family has no place for."""
    if family.heads_fill_width and shape.heads * shape.head_dim != shape.hidden:
        yield f"{shape.heads} heads of {shape.head_dim} dimensions, which are not its {shape.hidden} together"
    if family.full_every == 0:
        return
    scalar = config.get("query_pre_attn_scalar", shape.head_dim)
    if scalar != _scalar(family, shape):
        yield f"query_pre_attn_scalar {scalar} (only {_scalar(family, shape)})"
    if config.get("use_bidirectional_attention"):
        yield "attention to later tokens (use_bidirectional_attention)"
    if type(config.get("sliding_window")) is not int:
        yield f"sliding_window {config.get('sliding_window')!r}"
    types = ["full_attention" if (n + 1) % family.full_every == 0 else "sliding_attention" for n in range(shape.layers)]
    pattern = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or family.full_every
    if config.get("layer_types", types) != types or pattern != family.full_every:
        yield f"windows in other layers than all but every {family.full_every}th"
    for name, needed in (("attn_logit_softcapping", family.must_cap), ("final_logit_softcapping", None)):
        value = config.get(name)
        positive = isinstance(value, int | float) and value > 0
        if (family.must_cap and not positive) or (value is not None and (needed is False or not positive)):
            yield f"{name} {value!r}"
