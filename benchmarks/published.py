"""Copies the published model into the folder layout that each compared library requires. Loads nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

MAX_TOKENS = 512
FLASHRANK_NAME = "ms-marco-MiniLM-L-12-v2"  # FlashRank's name of this model
_FLASHRANK_FILE = "flashrank-MiniLM-L-12-v2_Q.onnx"
_SPECIALS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_CONFIG = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "num_hidden_layers": 12,
    "hidden_size": 384,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "id2label": {"0": "LABEL_0"},
    "label2id": {"LABEL_0": 0},
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "pad_token_id": 0,
}


@dataclass(frozen=True, slots=True)
class Setting:
    """Inputs of the loaders: the published model's folder in each library's layout, and the number of threads."""

    published: Path | None
    sentence_transformers: Path
    flashrank_cache: Path
    threads: int
    older: Path | None = None  # another file of dearlite's


def make_folders(published: Path | None, into: Path, *, threads: int, older: Path | None = None) -> Setting:
    """A Setting with the library folders under `into`; without `published` they are not made."""
    setting = Setting(published, into / "sentence-transformers", into / "flashrank", threads, older)
    if published is not None:
        _fill(setting.sentence_transformers, published, "onnx/model.onnx", {"tokenizer_class": "BertTokenizer"})
        _fill(setting.flashrank_cache / FLASHRANK_NAME, published, _FLASHRANK_FILE, {})
    return setting


def _fill(folder: Path, published: Path, model: str, tokenizer_facts: dict[str, str]) -> None:
    """Copies the published model and tokenizer, and writes the small files that were not published with them."""
    target = folder / model
    target.parent.mkdir(parents=True)
    shutil.copyfile(published / "model.onnx", target)
    shutil.copyfile(published / "tokenizer.json", folder / "tokenizer.json")
    specials = {f"{name}_token": token for name, token in _SPECIALS.items()}
    tokenizer = {"model_max_length": MAX_TOKENS, "do_lower_case": True, **tokenizer_facts, **specials}
    files = {"config.json": _CONFIG, "tokenizer_config.json": tokenizer, "special_tokens_map.json": specials}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1))
