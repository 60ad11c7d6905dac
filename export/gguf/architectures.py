"""The decoder families that can be written as GGUF, as a table: their tensors, keys, and limits in llama.cpp.

A new family is one entry of ARCHITECTURES. Names and keys are llama.cpp's (gguf-py/gguf/constants.py); the limits are
those of its graphs (src/models) and of its converter.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from dearlite.errors import UsageError
from dearlite.export.source.families import FAMILIES, Family, is_positive


@dataclass(frozen=True, slots=True)
class Architecture:
    """The form of a family in a GGUF. Keys name a matrix by its module, without `.weight`, a bias with `.bias`.

    `permuted` maps a matrix to the field of LlamaShape that counts its heads: the rows of a head are reordered from
    transformers' two halves to the neighbouring pairs that llama.cpp rotates. The order of `layer` is that of use:
    the fp32 reference has seen a layer's vectors when it reads the last matrix of a half.
    """

    gguf: str  # `general.architecture`, and the prefix of its keys
    family: Family
    model: dict[str, str]  # module -> GGUF name, outside the layers
    layer: dict[str, str]  # the same within a layer
    keys: tuple[str, ...]  # entries of hyperparameters.KEYS
    scalings: tuple[str, ...]  # rope types
    tokenizers: tuple[str, ...]  # entries of vocabulary.TOKENIZERS
    permuted: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)  # values of fields that a config.json may omit
    full_every: int = (
        0  # every n-th layer attends to all tokens and the others to a window; 0: llama.cpp has no windows
    )
    heads_fill_width: bool = False  # the heads together are as wide as the hidden state
    always_tied: bool = False  # no place for an output matrix of its own
    must_cap: bool = False  # attention's scores and the logits are bounded by a tanh
    wide_scale_layers: int = 0  # with this number of layers, scores are scaled by hidden / heads instead of head_dim
    partial_rotary: bool = False  # config.json may say that a part of a head's dimensions is rotated
    space_prefix: bool | None = None  # SentencePiece puts a space before a text; None: as the tokenizer's settings say
    left_out: str = ""  # pattern of tensors that read no text


_BASIC_KEYS = (
    "block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "rope.scaling.type", "rope.scaling.factor", "rope.freq_base",
    "attention.layer_norm_rms_epsilon",
)  # fmt: skip
_HEAD_KEYS = ("attention.key_length", "attention.value_length")
_LLAMA = Architecture(
    gguf="llama",
    family=FAMILIES["llama"],
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
    keys=(*_BASIC_KEYS, *_HEAD_KEYS, "vocab_size", "rope.dimension_count"),
    permuted={"self_attn.q_proj": "heads", "self_attn.k_proj": "kv_heads"},
    scalings=("default", "linear", "llama3"),
    tokenizers=("bpe", "sentencepiece"),
)
_QWEN2 = replace(
    _LLAMA,
    gguf="qwen2",
    family=FAMILIES["qwen2"],
    layer={f"self_attn.{part}_proj.bias": f"attn_{part}.bias" for part in "qkv"} | _LLAMA.layer,
    keys=_BASIC_KEYS,
    permuted={},
    scalings=("default", "linear"),
    heads_fill_width=True,
)
_HEAD_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
_GEMMA_NORMS = {"post_attention_layernorm": "post_attention_norm", "post_feedforward_layernorm": "post_ffw_norm"}
_GEMMA2 = replace(
    _LLAMA,
    gguf="gemma2",
    family=Family(activations=("gelu_pytorch_tanh",), norm_offset=1.0, scaled_embedding=True),
    layer=_GEMMA_NORMS
    | {
        name.replace("post_attention_layernorm", "pre_feedforward_layernorm"): gguf
        for name, gguf in _LLAMA.layer.items()
    },
    keys=(
        *(key for key in _BASIC_KEYS if not key.startswith("rope.")),
        *(*_HEAD_KEYS, "attn_logit_softcapping", "final_logit_softcapping", "attention.sliding_window"),
    ),
    permuted={},
    defaults={"tie_word_embeddings": True},
    scalings=("default",),
    tokenizers=("sentencepiece",),
    full_every=2,
    always_tied=True,
    must_cap=True,
    wide_scale_layers=46,  # 27B
    space_prefix=False,
)
_GEMMA3 = replace(
    _GEMMA2,
    gguf="gemma3",
    family=replace(_GEMMA2.family, head_norms=True),
    layer=_HEAD_NORMS | _GEMMA2.layer,
    keys=(*_BASIC_KEYS, *_HEAD_KEYS, "rope.freq_base_swa", "final_logit_softcapping", "attention.sliding_window"),
    scalings=("default", "linear"),
    full_every=6,
    always_tied=False,
    must_cap=False,
    wide_scale_layers=62,  # 27B
    left_out=r"(model\.)?(vision_tower|multi_modal_projector)\..+",
    # transformers' Gemma3TextConfig: a config.json with a vision part omits values that are the defaults
    defaults={
        "tie_word_embeddings": True, "vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216,
        "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 131072, "rms_norm_eps": 1e-6,
        "query_pre_attn_scalar": 256, "sliding_window": 4096, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
    },
)  # fmt: skip
_PHI3 = replace(
    _LLAMA,
    gguf="phi3",
    family=Family(sliding_window=True),
    layer={
        "input_layernorm": "attn_norm",
        "self_attn.qkv_proj": "attn_qkv",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    },
    keys=(
        *(key for key in _BASIC_KEYS if not key.startswith("rope.scaling.")),
        "rope.scaling.original_context_length", "rope.scaling.attn_factor", "rope.dimension_count",
        "attention.sliding_window",
    ),
    permuted={},
    scalings=("default", "longrope", "su"),
    heads_fill_width=True,
    partial_rotary=True,
)  # fmt: skip
# `model_type` of config.json -> family.
ARCHITECTURES = {
    "llama": _LLAMA,  # Llama 2, 3, 3.1, 3.2, SmolLM2
    "mistral": replace(_LLAMA, family=FAMILIES["mistral"]),
    "qwen2": _QWEN2,  # Qwen2, Qwen2.5
    "qwen3": replace(
        _QWEN2, gguf="qwen3", family=FAMILIES["qwen3"], layer=_HEAD_NORMS | _LLAMA.layer,
        keys=(*_BASIC_KEYS, *_HEAD_KEYS), heads_fill_width=False,
    ),
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA3,  # Gemma 3; of a model that also reads images, the part that reads text
    "phi3": _PHI3,  # Phi-3, Phi-3.5, Phi-4, Phi-4-mini
}  # fmt: skip
_TEXT_PARTS = {"gemma3": "gemma3_text"}  # model_type with a vision part -> that of its `text_config`
# Fields of config.json beside those of `families.read_shape`: whole numbers, and numbers above 0; each may be missing.
_WHOLE = ("max_position_embeddings", "original_max_position_embeddings", "sliding_window")
_ABOVE_0 = (
    *("rope_theta", "rope_local_base_freq", "partial_rotary_factor", "query_pre_attn_scalar"),
    *("attn_logit_softcapping", "final_logit_softcapping"),
)


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """`config` of the language model alone, with the values that its family's config.json may omit.

    Raises UsageError for values of another kind than their field's.
    """
    kind, inner = str(config.get("model_type")), config.get("text_config")
    if kind in _TEXT_PARTS and isinstance(inner, dict):
        outer = {key: value for key, value in config.items() if not key.endswith("_config")}
        config = outer | inner | {"model_type": _TEXT_PARTS[kind]}
    _check_kinds(config)
    family = ARCHITECTURES.get(str(config.get("model_type")))
    return config if family is None else family.defaults | config


def architecture_of(config: dict[str, Any]) -> Architecture:
    """The family that config.json names. Raises UsageError for an unsupported one."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise UsageError(
            f"architecture {kind!r} cannot be written as GGUF here: it is none of {', '.join(ARCHITECTURES)}; "
            "llama.cpp's convert_hf_to_gguf.py writes more, and `dearlite rerank -m FILE.gguf` runs its files"
        )
    return ARCHITECTURES[kind]


def _check_kinds(config: dict[str, Any]) -> None:
    """Raises UsageError naming the fields whose values are no numbers of their kind."""
    nested = [config.get(name) for name in ("rope_scaling", "rope_parameters")]
    nested += [value for part in nested if isinstance(part, dict) for value in part.values()]
    wrong = [
        f"{name} {part[name]!r}"
        for part in (config, *(part for part in nested if isinstance(part, dict)))
        for name in (*_WHOLE, *_ABOVE_0)
        if part.get(name) is not None and not _fits(name, part[name])
    ]
    if wrong:
        raise UsageError(
            f"the config.json of this {config.get('model_type')} model has {', '.join(wrong)}: fetch the model again"
        )


def _fits(name: str, value: Any) -> bool:
    """True for a whole number, or for a number above 0, as the field `name` has it."""
    if name in _WHOLE:
        return type(value) is int and (value == 0 or is_positive(value))
    return is_positive(value)
