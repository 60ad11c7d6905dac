"""Model files of real shapes with random weights, exported in int8: for measurements of time and memory, not of scores.

The tokenizer has one token per word `w0` to `w999`, so that a document of N words has N tokens.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WORDS = 1000
_SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
_IDS = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
_LONGEST = 2048


@dataclass(frozen=True, slots=True)
class Shape:
    """The classes of transformers that make a scorer, and the fields of its config.json that decide its speed."""

    classes: str
    hidden: int
    ffn: int
    layers: int
    heads: int
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def causal(self) -> bool:
        """True for a decoder, which dearlite exports by itself."""
        return "num_key_value_heads" in self.more

    @property
    def matrix_parameters(self) -> int:
        """The parameters of the matrices that each token passes through."""
        size = self.more.get("head_dim", self.hidden // self.heads)
        queries, keys = self.heads * size, self.more.get("num_key_value_heads", self.heads) * size
        gated = self.causal or self.classes == "ModernBert"
        return self.layers * self.hidden * (2 * queries + 2 * keys + (3 if gated else 2) * self.ffn)


SHAPES = {
    "tinybert-l2": Shape("Bert", 128, 512, 2, 2),
    "minilm-l6": Shape("Bert", 384, 1536, 6, 12),
    "bge-base": Shape("Bert", 768, 3072, 12, 12),
    "ettin-17m": Shape("ModernBert", 256, 384, 7, 4),
    "ettin-32m": Shape("ModernBert", 384, 576, 10, 6),
    "ettin-150m": Shape("ModernBert", 768, 1152, 22, 12),
    "smollm2-135m": Shape("Llama", 576, 1536, 30, 9, {"num_key_value_heads": 3}),
    "qwen3-0.6b": Shape("Qwen3", 1024, 3072, 28, 16, {"num_key_value_heads": 8, "head_dim": 128}),
}


def make_file(name: str, folder: Path) -> Path:
    """`folder`/NAME.dear, written unless it exists: a random model of the shape, exported in int8 without a card."""
    target = folder / f"{name}.dear"
    if not target.exists():
        source = folder / name
        write_checkpoint(SHAPES[name], source)
        command = [sys.executable, "-m", "dearlite", "export", str(source), "-o", str(target), "--no-card"]
        command += ["--prompt", "plain", "--max-tokens", str(_LONGEST)]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return target


def write_checkpoint(shape: Shape, folder: Path) -> None:
    """A scorer of one label with random weights of a size that a model of this width has, and its tokenizer."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    torch.manual_seed(0)
    fields = {
        "vocab_size": WORDS + len(_SPECIAL), "hidden_size": shape.hidden, "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "max_position_embeddings": _LONGEST,
        "num_labels": 1, **_IDS, **shape.more,
    }  # fmt: skip
    config = getattr(transformers, f"{shape.classes}Config")(**fields)
    getattr(transformers, f"{shape.classes}ForSequenceClassification")(config).save_pretrained(folder)
    vocabulary = {word: n for n, word in enumerate([*_SPECIAL, *(f"w{n}" for n in range(WORDS))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if shape.classes == "Bert" else [])]
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=inputs, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        unk_token="[UNK]",
    ).save_pretrained(folder)  # fmt: skip
