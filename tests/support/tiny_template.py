"""A small pointwise model that reads a template: a random decoder whose weights are made of their names."""

import json
import zlib
from functools import cached_property

import numpy as np
from qwen_tokenizer import qwen_tokenizer_json

from dearlite.export.decoders.bundle import DecoderModel, write_decoder
from dearlite.export.decoders.quantisations import QUANTISATIONS
from dearlite.export.source.checkpoint import TensorSource
from dearlite.models.facts import PointwiseFacts

HIDDEN, FFN, HEADS, LAYERS = 32, 64, 2, 1


class RandomDecoder(TensorSource):
    """A LLaMA scorer of one layer."""

    def __init__(self, vocabulary: int) -> None:
        self.config = {
            "model_type": "llama", "num_hidden_layers": LAYERS, "hidden_size": HIDDEN, "intermediate_size": FFN,
            "num_attention_heads": HEADS, "vocab_size": vocabulary, "rms_norm_eps": 1e-5,
        }  # fmt: skip

    @cached_property
    def shapes(self):
        square = {f"model.layers.0.self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"}
        norms = ("layers.0.input_layernorm", "layers.0.post_attention_layernorm", "norm")
        wide = {f"model.layers.0.mlp.{name}_proj.weight": (FFN, HIDDEN) for name in ("gate", "up")}
        return {
            "model.embed_tokens.weight": (self.config["vocab_size"], HIDDEN),
            "score.weight": (1, HIDDEN),
            "model.layers.0.mlp.down_proj.weight": (HIDDEN, FFN),
            **{f"model.{norm}.weight": (HIDDEN,) for norm in norms},
            **square,
            **wide,
        }

    @property
    def names(self):
        return self.shapes.keys()

    def shape(self, name):
        return self.shapes[name]

    def rows(self, name, start, stop):
        values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(self.shapes[name], np.float32)
        scaled = 1 + 0.1 * values if "norm" in name else values / HIDDEN**0.5
        return scaled[start:stop].astype(np.float32)


def write_template_bundle(path, template, *, activation=None, max_tokens=512, name="tiny-template"):
    """Writes the model to `path` and returns it; its tokenizer is of Qwen's kind."""
    tokenizer = qwen_tokenizer_json()
    raw = json.loads(tokenizer)
    vocabulary = 1 + max(*raw["model"]["vocab"].values(), *(token["id"] for token in raw["added_tokens"]))
    facts = PointwiseFacts(
        name=name, prompt="qwen3-reranker", max_tokens=max_tokens, licence="Apache-2.0", source={}, template=template,
        architecture="llama", pooling="last-token", activation=activation,
    )  # fmt: skip
    model = DecoderModel(source=RandomDecoder(vocabulary), tokenizer=tokenizer, facts=facts)
    write_decoder(model, path, plan=QUANTISATIONS["fp32"])
    return path
