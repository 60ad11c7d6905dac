"""The decoder families that can be written as GGUF: config.json -> tensors, their GGUF names, and hyperparameters.

A new family is one entry of ARCHITECTURES. Names and keys are llama.cpp's (gguf-py/gguf/constants.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dearlite.errors import CheckpointError, UsageError
from dearlite.export.source.checkpoint import Floats, TensorSource, name_some
from dearlite.export.source.families import COMPUTED, LlamaShape, rope_settings, shape_of
from dearlite.export.source.merge import OUTPUT

ROPE_FACTORS = "rope_freqs.weight"
_MOST_FAULTS = 8  # in one message


@dataclass(frozen=True, slots=True)
class Architecture:
    """The form of a family in a GGUF. Keys name a matrix by its module, without `.weight`.

    `permuted` maps a matrix to the field of LlamaShape that counts its heads: the rows of a head are reordered from
    transformers' two halves to the neighbouring pairs that llama.cpp rotates.
    """

    gguf: str  # `general.architecture`, and the prefix of its keys
    model: dict[str, str]  # module -> GGUF name, outside the layers
    layer: dict[str, str]  # the same within a layer
    permuted: dict[str, str]
    scalings: tuple[str, ...]  # rope types
    tokenizers: tuple[str, ...]  # entries of vocabulary.TOKENIZERS


_LLAMA = Architecture(
    gguf="llama",
    model={"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"},
    layer={
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    },
    permuted={"self_attn.q_proj": "heads", "self_attn.k_proj": "kv_heads"},
    scalings=("default", "linear", "llama3"),
    tokenizers=("bpe", "sentencepiece"),
)
# `model_type` of config.json -> family.
ARCHITECTURES = {
    "llama": _LLAMA,  # Llama 2, 3, 3.1, 3.2, SmolLM2
    "mistral": _LLAMA,
}


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor: its names in the checkpoint and in the GGUF, and its shape, (rows, columns) or (columns,)."""

    name: str
    gguf: str
    shape: tuple[int, ...]
    permuted_heads: int = 0  # heads whose rows are reordered; 0: none

    @property
    def is_matrix(self) -> bool:
        """True for a matrix, which is written in f16; vectors stay f32."""
        return len(self.shape) == 2


def find_architecture(config: dict[str, Any], max_tokens: int) -> tuple[Architecture, LlamaShape]:
    """The family and the shape that config.json names. Raises UsageError for an unsupported one."""
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise UsageError(
            f"architecture {kind!r} cannot be written as GGUF here: it is none of {', '.join(ARCHITECTURES)}; "
            "llama.cpp's convert_hf_to_gguf.py writes more, and `dearlite rerank -m FILE.gguf` runs its files"
        )
    family, shape = ARCHITECTURES[kind], shape_of(config, max_tokens)
    scaling = rope_settings(config).get("rope_type", "default")
    if scaling not in family.scalings:
        raise UsageError(f"rope scaling {scaling!r} is not supported: it is none of {', '.join(family.scalings)}")
    return family, shape


def weights_of(config: dict[str, Any], family: Architecture, shape: LlamaShape) -> list[Weight]:
    """Every tensor of the model, in the order of their use in the network."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    sides = {
        "model.embed_tokens": (shape.vocabulary, shape.hidden),
        "model.norm": (shape.hidden,),
        "lm_head": (shape.vocabulary, shape.hidden),
        "input_layernorm": (shape.hidden,),
        "post_attention_layernorm": (shape.hidden,),
        "self_attn.q_proj": (q, shape.hidden),
        "self_attn.k_proj": (kv, shape.hidden),
        "self_attn.v_proj": (kv, shape.hidden),
        "self_attn.o_proj": (shape.hidden, q),
        "mlp.gate_proj": (shape.ffn, shape.hidden),
        "mlp.up_proj": (shape.ffn, shape.hidden),
        "mlp.down_proj": (shape.hidden, shape.ffn),
    }

    def of_model(module: str) -> Weight:
        return Weight(f"{module}.weight", f"{family.model[module]}.weight", sides[module])

    weights = [of_model("model.embed_tokens")]
    for number in range(shape.layers):
        for module, short in family.layer.items():
            heads = getattr(shape, family.permuted[module]) if module in family.permuted else 0
            name, gguf = f"model.layers.{number}.{module}.weight", f"blk.{number}.{short}.weight"
            weights.append(Weight(name, gguf, sides[module], heads))
    weights.append(of_model("model.norm"))
    if not config.get("tie_word_embeddings"):
        weights.append(of_model("lm_head"))
    return weights


def check_weights(source: TensorSource, weights: list[Weight], where: object) -> None:
    """Raises CheckpointError that names missing tensors, wrong shapes and tensors without a place in a GGUF."""
    names = {name for name in source.names if not COMPUTED.fullmatch(name)}
    expected = {weight.name: weight.shape for weight in weights}
    tied = OUTPUT not in expected
    if tied and OUTPUT in names:  # some models repeat the embedding as the output matrix
        names.remove(OUTPUT)
    if "score.weight" in names and OUTPUT not in names and not tied:
        raise UsageError(
            f"{where} is a scorer (it has score.weight and no lm_head.weight), and its config.json states a language "
            "model: export it as a .dear file, or correct its `architectures`"
        )
    faults = [f"{name} is missing" for name in expected if name not in names]
    faults += [
        f"{name} is {list(source.shape(name))}, not {list(sides)}"
        for name, sides in expected.items()
        if name in names and tuple(source.shape(name)) != sides
    ]
    faults += [f"{name} has no place in the file" for name in names if name not in expected]
    if faults:
        raise CheckpointError(
            f"{where} is not the language model of its config.json: {name_some(faults, _MOST_FAULTS, '; ')}: fetch "
            "model and config.json again, both of one revision"
        )


def rope_factors(config: dict[str, Any], head_dim: int) -> Floats | None:
    """The divisor of each rotary frequency, (head_dim / 2,) float32, for the scaling "llama3"; None for others.

    Wavelengths above original / low are stretched by `factor`, those below original / high are kept, and the two are
    blended between these limits (Llama 3.1). Computed in float32 like llama.cpp's converter, so that the bits agree.
    """
    settings = rope_settings(config)
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


def hyperparameters(config: dict[str, Any], family: Architecture, shape: LlamaShape) -> Iterator[tuple[str, Any]]:
    """GGUF keys and values of the architecture: int -> uint32, float -> float32, str.

    Fields that config.json does not have are omitted.
    """
    at, settings = family.gguf, rope_settings(config)
    yield f"{at}.block_count", shape.layers
    if "max_position_embeddings" in config:
        yield f"{at}.context_length", int(config["max_position_embeddings"])
    yield f"{at}.embedding_length", shape.hidden
    yield f"{at}.feed_forward_length", shape.ffn
    yield f"{at}.attention.head_count", shape.heads
    if config.get("num_key_value_heads") is not None:
        yield f"{at}.attention.head_count_kv", shape.kv_heads
    if settings.get("rope_type") == "linear":
        yield f"{at}.rope.scaling.type", "linear"
        yield f"{at}.rope.scaling.factor", float(settings["factor"])
    if "rope_theta" in settings:
        yield f"{at}.rope.freq_base", float(settings["rope_theta"])
    yield f"{at}.attention.layer_norm_rms_epsilon", float(shape.epsilon)
    yield f"{at}.attention.key_length", shape.head_dim
    yield f"{at}.attention.value_length", shape.head_dim
    yield f"{at}.vocab_size", shape.vocabulary
    yield f"{at}.rope.dimension_count", shape.head_dim
