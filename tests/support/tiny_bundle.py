"""A small pointwise model file for tests in which any model will do: the embedded network with one layer of 32.

It loads in a tenth of the embedded model's time and scores a pair in a hundredth. Its weights are random, and its
scores mean nothing; they differ between documents, and are the same in every process.
"""

import json
from dataclasses import replace

import numpy as np

from dearlite.export.encoders import minilm
from dearlite.export.encoders.bert import GELU_FLOOR, BertLayer, BertModel, Embedding, Norm
from dearlite.export.onnx.linear import Linear
from dearlite.models.bundle import Bundle
from dearlite.models.registry import find_model

HIDDEN, FFN, HEADS = 32, 64, 2
TOKENS = 8192  # the embedded tokenizer's first tokens: its other words are unknown
NAME = "tiny"


def network():
    """The random weights: int8 matrices spread over their range, gains around 1."""
    random = np.random.default_rng(0)

    def linear(name, columns, rows=HIDDEN, floor=None):
        weight = random.integers(-127, 128, (rows, columns)).astype(np.int8)
        scale = np.full(columns, 1.5 / 73 / rows**0.5, np.float32)
        return Linear(name, weight, scale, 0.2 * random.standard_normal(columns).astype(np.float32), floor)

    def norm():
        return Norm(1 + 0.1 * random.standard_normal(HIDDEN).astype(np.float32), np.zeros(HIDDEN, np.float32))

    def embedding(rows):
        return Embedding(random.integers(0, 256, (rows, HIDDEN)).astype(np.uint8), 1 / 64, 128)

    names = {"query": HIDDEN, "key": HIDDEN, "value": HIDDEN, "output": HIDDEN, "up": FFN}
    parts = {name: linear(f"layer.0.{name}", columns) for name, columns in names.items()}
    down = linear("layer.0.down", HIDDEN, FFN, GELU_FLOOR)
    layer = BertLayer(**parts, down=down, attention_norm=norm(), norm=norm())
    return BertModel(
        words=embedding(TOKENS),
        positions=embedding(minilm.FACTS.max_tokens),
        types=embedding(2),
        norm=norm(),
        layers=(layer,),
        pooler=linear("pooler", HIDDEN),
        classifier=linear("classifier", 1),
        heads=HEADS,
        epsilon=minilm.EPSILON,
    )


def write_tiny_bundle(path):
    """Writes the model to `path` and returns it. Its name is NAME, everything else is as in the embedded bundle."""
    tokenizer = json.loads(Bundle(find_model("minilm-l12")).read("tokenizer.json"))
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {text: number for text, number in vocabulary.items() if number < TOKENS}
    facts = replace(minilm.FACTS, name=NAME)
    model = minilm.limit_model(network())
    minilm.write_graphs(model, json.dumps(tokenizer).encode(), minilm.GRAPHS, {}, path, facts, pair_limited=True)
    return path
