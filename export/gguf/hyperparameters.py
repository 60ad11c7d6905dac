"""GGUF keys of an architecture's numbers, as a table: a key, and its value from config.json and the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from dearlite.export.gguf.architectures import Architecture
from dearlite.export.gguf.networks import Network
from dearlite.export.gguf.rotary import split_by_layers
from dearlite.export.source.families import rope_settings


def hyperparameters(config: dict[str, Any], family: Architecture, network: Network) -> Iterator[tuple[str, Any]]:
    """The family's keys and values: int -> uint32, float -> float32, str. Fields that config.json omits are omitted."""
    for key in family.keys:
        value = KEYS[key](config, network)
        if value is not None:
            yield f"{family.gguf}.{key}", value


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    return rope_settings(split_by_layers(config)[0])


def _linear(config: dict[str, Any], value: Callable[[dict[str, Any]], Any]) -> Any:
    settings = _rope(config)
    return value(settings) if settings.get("rope_type") == "linear" else None


def _number(value: Any, kind: type[int] | type[float]) -> Any:
    return None if value is None else kind(value)


KEYS: dict[str, Callable[[dict[str, Any], Network], Any]] = {
    "block_count": lambda _, n: n.layers,
    "context_length": lambda c, _: _number(c.get("max_position_embeddings"), int),
    "embedding_length": lambda _, n: n.hidden,
    "feed_forward_length": lambda _, n: n.ffn,
    "attention.head_count": lambda _, n: n.heads,
    "attention.head_count_kv": lambda c, n: None if c.get("num_key_value_heads") is None else n.kv_heads,
    "rope.scaling.type": lambda c, _: _linear(c, lambda _: "linear"),
    "rope.scaling.factor": lambda c, _: _linear(c, lambda settings: float(settings["factor"])),
    "rope.scaling.original_context_length": lambda c, _: _number(
        _rope(c).get("original_max_position_embeddings") or c.get("original_max_position_embeddings"), int
    ),
    "rope.scaling.attn_factor": lambda _, n: n.rotary.scale if len(n.rotary.tensors) > 1 else None,
    "rope.freq_base": lambda c, _: _number(_rope(c).get("rope_theta"), float),
    "rope.freq_base_swa": lambda c, _: _number(split_by_layers(c)[1], float),
    "rope.dimension_count": lambda _, n: 2 * len(n.frequencies),
    "attention.layer_norm_rms_epsilon": lambda _, n: float(n.epsilon),
    "attention.key_length": lambda _, n: n.head_dim,
    "attention.value_length": lambda _, n: n.head_dim,
    "attention.sliding_window": lambda c, _: int(c.get("sliding_window") or 0),
    "attn_logit_softcapping": lambda _, n: _number(n.score_cap, float),
    "final_logit_softcapping": lambda _, n: _number(n.logit_cap, float),
    "vocab_size": lambda _, n: n.vocabulary,
}
