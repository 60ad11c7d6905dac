"""The tensors of a family's GGUF: their names in the checkpoint and in the file, their shapes, and their check."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from dearlite.errors import CheckpointError, UsageError
from dearlite.export.gguf.architectures import Architecture
from dearlite.export.source.checkpoint import TensorSource, name_some
from dearlite.export.source.families import COMPUTED, LlamaShape
from dearlite.export.source.merge import OUTPUT

_MOST_FAULTS = 8  # in one message


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor: its names in the checkpoint and in the GGUF, and its shape, (rows, columns) or (columns,)."""

    name: str
    gguf: str
    shape: tuple[int, ...]
    permuted_heads: int = 0  # heads whose rows are reordered; 0: none
    offset: float = 0.0  # added to its values in the file

    @property
    def is_matrix(self) -> bool:
        """True for a matrix, which is written in f16; vectors stay f32."""
        return len(self.shape) == 2


def weights_of(config: dict[str, Any], family: Architecture, shape: LlamaShape) -> list[Weight]:
    """Every tensor of the model, in the order of their use in the network."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    hidden, ffn = shape.hidden, shape.ffn
    sides: dict[str, tuple[int, ...]] = {
        "model.embed_tokens": (shape.vocabulary, hidden),
        "lm_head": (shape.vocabulary, hidden),
        "self_attn.q_norm": (shape.head_dim,),
        "self_attn.k_norm": (shape.head_dim,),
        "self_attn.q_proj": (q, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.q_proj.bias": (q,),
        "self_attn.k_proj.bias": (kv,),
        "self_attn.v_proj.bias": (kv,),
        "self_attn.qkv_proj": (q + 2 * kv, hidden),
        "self_attn.o_proj": (hidden, q),
        "mlp.gate_proj": (ffn, hidden),
        "mlp.up_proj": (ffn, hidden),
        "mlp.gate_up_proj": (2 * ffn, hidden),
        "mlp.down_proj": (hidden, ffn),
    }  # the other norms are (hidden,)

    def weight(module: str, gguf: str, before: tuple[str, str] = ("", "")) -> Weight:
        suffix = "" if module.endswith(".bias") else ".weight"
        return Weight(
            f"{before[0]}{module}{suffix}",
            f"{before[1]}{gguf}{suffix}",
            sides.get(module, (hidden,)),
            getattr(shape, family.permuted[module]) if module in family.permuted else 0,
            shape.norm_offset if module.endswith("norm") else 0.0,
        )

    weights = [weight("model.embed_tokens", family.model["model.embed_tokens"])]
    for number in range(shape.layers):
        before = f"model.layers.{number}.", f"blk.{number}."
        weights += [weight(module, short, before) for module, short in family.layer.items()]
    outside = ("model.norm",) if config.get("tie_word_embeddings") else ("model.norm", "lm_head")
    return weights + [weight(module, family.model[module]) for module in outside]


def check_weights(source: TensorSource, weights: list[Weight], where: object, family: Architecture) -> None:
    """Raises CheckpointError that names missing tensors, wrong shapes and tensors without a place in a GGUF."""
    names = {name for name in source.names if not COMPUTED.fullmatch(name)}
    names = {name for name in names if not (family.left_out and re.fullmatch(family.left_out, name))}
    expected = {weight.name: weight.shape for weight in weights}
    tied = OUTPUT not in expected
    if tied and OUTPUT in names:  # some models repeat the embedding as the output matrix
        names.remove(OUTPUT)
    if "score.weight" in names and OUTPUT not in names and not tied:
        raise UsageError(
            f"{where} is a scorer (it has score.weight and no lm_head.weight), and its config.json states a language "
            "model: export it as a .dear file, or correct its `architectures`"
        )
    if family.always_tied and not tied:
        raise UsageError(
            f"{where} has an output matrix that is not its embedding, and llama.cpp's {family.gguf} has no place for "
            "it: merge an adapter that trains neither lm_head nor embed_tokens"
        )
    faults = [f"{name} is missing" for name in expected if name not in names]
    faults += [
        f"{name} is {list(source.shape(name))}, not {list(sides)}"
        for name, sides in expected.items()
        if name in names and tuple(source.shape(name)) != sides
    ]
    faults += [f"{name} has no place in the file" for name in source.names if name in names and name not in expected]
    if faults:
        raise CheckpointError(
            f"{where} is not the language model of its config.json: {name_some(faults, _MOST_FAULTS, '; ')}: fetch "
            "model and config.json again, both of one revision"
        )


def left_out(source: TensorSource, family: Architecture) -> int:
    """The number of tensors that read no text, which the file does not have."""
    return sum(bool(family.left_out and re.fullmatch(family.left_out, name)) for name in source.names)
