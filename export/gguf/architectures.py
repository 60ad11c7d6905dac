"""The decoder families that are written as GGUF: config.json -> tensors, their names there, and hyperparameters.

A new family is one entry of ARCHITECTURES. Names and keys are llama.cpp's (gguf-py/gguf/constants.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dearlite.errors import CheckpointError, UsageError
from dearlite.export.source.checkpoint import Floats, TensorSource, name_some
from dearlite.export.source.families import LlamaShape, shape_of

EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
ROPE_FACTORS = "rope_freqs.weight"
# What old checkpoints carry beside weights, computed from config.json and left out by everyone.
_COMPUTED = re.compile(r"(model\.layers\.\d+\.self_attn\.)?(model\.)?rotary_emb\.inv_freq")
_FEW = 8


@dataclass(frozen=True, slots=True)
class Architecture:
    """How a family stands in a GGUF. A matrix is named by its module, without `.weight`.

    `permuted` maps a matrix to the field that counts its heads: rows of a head go from transformers' two halves to
    llama.cpp's neighbouring pairs, which its rotation works on.
    """

    gguf: str  # `general.architecture`, and the prefix of its keys
    whole: dict[str, str]
    layer: dict[str, str]
    permuted: dict[str, str]
    scalings: tuple[str, ...]  # of rotary positions
    tokenizers: tuple[str, ...]  # entries of vocabulary.KINDS


_LLAMA = Architecture(
    gguf="llama",
    whole={"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"},
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
    """One tensor of the file: where it comes from, (rows, columns) or (columns,), and the heads its rows permute in."""

    name: str
    gguf: str
    shape: tuple[int, ...]
    permuted_heads: int = 0

    @property
    def is_matrix(self) -> bool:
        """Matrices are written in f16, the rest in f32."""
        return len(self.shape) == 2


def find_architecture(config: dict[str, Any], max_tokens: int) -> tuple[Architecture, LlamaShape]:
    """The family and the shape that config.json states. Raises UsageError naming what is not covered."""
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise UsageError(
            f"architecture {kind!r} is not written as GGUF here: it is none of {', '.join(ARCHITECTURES)}; llama.cpp's "
            "convert_hf_to_gguf.py covers more, and `dearlite rerank -m FILE.gguf` runs what it writes"
        )
    family, shape = ARCHITECTURES[kind], shape_of(config, max_tokens)
    scaling = rope(config).get("rope_type", "default")
    if scaling not in family.scalings:
        raise UsageError(f"rope scaling {scaling!r} is not covered: it is none of {', '.join(family.scalings)}")
    return family, shape


def rope(config: dict[str, Any]) -> dict[str, Any]:
    """The rotary settings with `rope_type` and `rope_theta`, as transformers 4 (rope_scaling) or 5 wrote them."""
    found = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    if "rope_type" not in found and "type" in found:
        found["rope_type"] = found["type"]
    if "rope_theta" not in found and config.get("rope_theta") is not None:
        found["rope_theta"] = config["rope_theta"]
    return found


def weights_of(config: dict[str, Any], family: Architecture, shape: LlamaShape) -> list[Weight]:
    """Every tensor of the model, in the order in which the network uses them."""
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

    def whole(module: str) -> Weight:
        return Weight(f"{module}.weight", f"{family.whole[module]}.weight", sides[module])

    weights = [whole("model.embed_tokens")]
    for number in range(shape.layers):
        for module, short in family.layer.items():
            heads = getattr(shape, family.permuted[module]) if module in family.permuted else 0
            name, gguf = f"model.layers.{number}.{module}.weight", f"blk.{number}.{short}.weight"
            weights.append(Weight(name, gguf, sides[module], heads))
    weights.append(whole("model.norm"))
    if not config.get("tie_word_embeddings"):
        weights.append(whole("lm_head"))
    return weights


def check_weights(source: TensorSource, weights: list[Weight], where: object) -> None:
    """Raises CheckpointError naming, together, what is missing, has another shape or has no place in the file."""
    names = {name for name in source.names if not _COMPUTED.fullmatch(name)}
    wanted = {weight.name: weight.shape for weight in weights}
    tied = OUTPUT not in wanted
    if tied and OUTPUT in names:  # some models repeat the embedding there
        names.remove(OUTPUT)
    if "score.weight" in names and OUTPUT not in names and not tied:
        raise UsageError(
            f"{where} is a scorer (it has score.weight and no lm_head.weight), which a GGUF has no place for: "
            "export it as a .dear file, without --quant or with --quant int8"
        )
    wrong = [f"{name} is missing" for name in wanted if name not in names]
    wrong += [
        f"{name} is {list(source.shape(name))}, not {list(sides)}"
        for name, sides in wanted.items()
        if name in names and tuple(source.shape(name)) != sides
    ]
    wrong += [f"{name} has no place in the file" for name in names if name not in wanted]
    if wrong:
        raise CheckpointError(
            f"{where} is not the language model that its config.json states: {name_some(wrong, _FEW, '; ')}: fetch "
            "model and config.json again, of one revision"
        )


def rope_factors(config: dict[str, Any], head_dim: int) -> Floats | None:
    """What each rotary frequency is divided by, (head_dim / 2,), for "llama3" scaling; None without it.

    Wavelengths above original / low are stretched by `factor`, those below original / high are kept, and between them
    the two are blended (Llama 3.1). Computed in float32 as llama.cpp's converter does: its bits are the file's.
    """
    settings = rope(config)
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
    """Keys and values of the network's form: int for uint32, float for float32, str; what config.json leaves out is."""
    at, settings = family.gguf, rope(config)
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
