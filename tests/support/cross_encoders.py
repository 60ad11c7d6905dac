"""Small random cross-encoders in folders as sentence-transformers writes them: a transformer, then a chain of modules.

Weights come from NumPy's generator, so that the folders are the same with every release of torch; the golden scores of
tests/data/cross_encoder_golden.json are those of sentence-transformers' own CrossEncoder (make_head_references.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = "light bulb coffee tea who invented the Edison Momoa plays in Fast X a b c d e f g".split()  # noqa: SIM905
QUERIES = ("who invented the light bulb", "coffee")
DOCS = ("Edison invented the light bulb", "tea", "coffee coffee a b c d e f g Momoa plays in Fast X", "the bulb " * 40)
PAIRS = [(query, document) for query in QUERIES for document in DOCS]
WIDTH = 32
NAMES = {"Pooling": "sentence_transformer.modules.pooling", "Dropout": "sentence_transformer.modules.dropout"}
NAMES |= {"LayerNorm": "sentence_transformer.modules.layer_norm", "Dense": "base.modules.dense"}
NAMES |= {"Normalize": "sentence_transformer.modules.normalize", "Transformer": "base.modules.transformer"}

Part = tuple[str, dict[str, Any]]  # the class of a module, and its config.json


def pooling(mode: Any = "cls", width: int = WIDTH) -> Part:
    return "Pooling", {"embedding_dimension": width, "pooling_mode": mode, "include_prompt": True}


def dense(columns: int, rows: int, activation: str = "linear.Identity", **changes: Any) -> Part:
    settings = {"in_features": columns, "out_features": rows, "bias": True}
    names = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    return "Dense", settings | {"activation_function": f"torch.nn.modules.{activation}"} | names | changes


def layer_norm(width: int = WIDTH) -> Part:
    return "LayerNorm", {"dimension": width}


def last(columns: int = WIDTH, **changes: Any) -> Part:
    return dense(columns, 1, module_output_name="scores", **changes)


GELU = dense(WIDTH, WIDTH, "activation.GELU", bias=False)
OLD_POOLING = {"word_embedding_dimension": WIDTH, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
ACTIVATIONS = ("SiLU", "Tanh", "ReLU", "GELU", "ELU", "LeakyReLU", "Softplus", "Mish", "Sigmoid")
CHAINS: dict[str, tuple[Part, ...]] = {
    "ettin": (pooling(), GELU, layer_norm(), last()),
    "lasttoken": (pooling(["lasttoken"]), ("Normalize", {}), last(bias=False)),
    "two poolings": (pooling(["mean", "cls"]), ("Dropout", {"dropout": 0.2}), layer_norm(64), last(64)),
    "older fields": (
        ("Pooling", OLD_POOLING),
        ("Dense", {"in_features": WIDTH, "out_features": 8, "bias": True}),
        last(8),
    ),
    "tokens": (
        dense(WIDTH, 16, module_input_name="token_embeddings", module_output_name="token_embeddings"),
        pooling("mean", 16),
        last(16),
    ),
    "everything": (
        pooling(MODES),
        layer_norm(len(MODES) * WIDTH),
        dense(len(MODES) * WIDTH, WIDTH, "activation.ReLU", use_residual=True),
        *(dense(WIDTH, WIDTH, f"activation.{name}", use_residual=True) for name in ACTIVATIONS),
        layer_norm(),
        ("Normalize", {"module_input_name": "sentence_embedding", "module_output_name": "unit"}),
        last(module_input_name="unit"),
    ),
}


def write_tokenizer(folder: Path, *, types: bool, max_tokens: int = 64) -> None:
    """Words with BERT's template, [CLS] A [SEP] B [SEP]."""
    vocabulary = {w: n for n, w in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *dict.fromkeys(WORDS)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    named = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=inputs, model_max_length=max_tokens, **named
    ).save_pretrained(folder)


def write_cross_encoder(folder: Path, chain: tuple[Part, ...], kind: str = "modernbert") -> None:
    """A ModernBERT or BERT without a classifier, and the modules `chain` after it."""
    rng = np.random.default_rng(7)
    shape = {"vocab_size": 80, "hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "max_position_embeddings": 64}
    ids = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
    if kind == "modernbert":
        ids |= {"local_attention": 8, "global_attn_every_n_layers": 2}
    name = {"modernbert": "ModernBert", "bert": "Bert"}[kind]
    net = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**shape, **ids))
    with torch.no_grad():
        for parameter, value in net.named_parameters():
            noise = rng.standard_normal(tuple(value.shape), np.float32)
            if "norm" in parameter.lower() and parameter.endswith("weight"):
                noise = 1 + 0.2 * noise
            else:
                noise *= 1.6 / value.shape[-1] ** 0.5 if value.ndim > 1 else 0.2
            value.copy_(torch.from_numpy(noise))
    net.save_pretrained(folder)
    write_tokenizer(folder, types=kind == "bert")
    write_modules(folder, chain, rng)


def write_modules(folder: Path, chain: tuple[Part, ...], rng: np.random.Generator) -> None:
    """The files of the modules, and those of sentence-transformers in the folder itself."""
    entries = [("", "Transformer")]
    for number, (kind, settings) in enumerate(chain, 1):
        where = f"{number}_{kind}"
        entries.append((where, kind))
        (folder / where).mkdir()
        write_json(folder / where / "config.json", settings)
        if tensors := _tensors(kind, settings, rng):
            (folder / where / "model.safetensors").write_bytes(safetensors.numpy.save(tensors))
    modules = [
        {"idx": n, "name": str(n), "path": where, "type": f"sentence_transformers.{NAMES[kind]}.{kind}"}
        for n, (where, kind) in enumerate(entries)
    ]
    write_json(folder / "modules.json", modules)
    identity = "torch.nn.modules.linear.Identity"
    write_json(
        folder / "config_sentence_transformers.json",
        {"model_type": "CrossEncoder", "activation_fn": identity, "prompts": {}, "default_prompt_name": None},
    )
    reading = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"}
    texts = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    write_json(folder / "sentence_bert_config.json", reading | {"modality_config": texts})


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def _tensors(kind: str, settings: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    def noise(*sides: int) -> np.ndarray:
        return rng.standard_normal(sides, np.float32) * np.float32(1.6 / sides[-1] ** 0.5 if len(sides) > 1 else 0.2)

    if kind == "LayerNorm":
        width = settings["dimension"]
        return {"norm.weight": 1 + noise(width), "norm.bias": noise(width)}
    if kind != "Dense":
        return {}
    rows, columns = settings["out_features"], settings["in_features"]
    tensors = {"linear.weight": noise(rows, columns)}
    if settings["bias"]:
        tensors["linear.bias"] = noise(rows)
    if settings.get("use_residual") and rows != columns:
        tensors["residual.weight"] = noise(rows, columns)
    return tensors
