"""Converts a checkpoint for the systems of llama_pointwise.py: merged, GGUF and `.dear`. Scores nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Files:
    """Paths of the files and settings of all systems; `config` is the checkpoint's config.json."""

    merged: Path  # a Hugging Face folder in fp32, merged by PEFT
    gguf: Path
    dear: dict[str, Path]  # by quantisation
    config: dict[str, Any]
    max_tokens: int
    threads: int

    def products_per_token(self) -> tuple[int, int]:
        """Multiplications per token in the linear layers: in all layers, and in the last one without its k and v."""
        c = self.config
        size = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
        key_values = 2 * c["hidden_size"] * size * c["num_key_value_heads"]
        queries = c["hidden_size"] * size * c["num_attention_heads"]
        rest = queries + 3 * c["hidden_size"] * c["intermediate_size"]  # o is as large as q
        return c["num_hidden_layers"] * (queries + key_values + rest), rest


def make_files(
    checkpoint: Path, adapter: Path | None, into: Path, *, quants: Iterable[str], max_tokens: int, threads: int
) -> Files:
    """The files under `into`; existing ones are kept, each missing one is made in a separate process."""
    merged = into / "merged" if adapter is not None else checkpoint
    if not merged.exists():
        _run_here("merge", checkpoint, adapter, merged)
    gguf = into / "q8_0.gguf"
    if not gguf.exists():
        _run_here("gguf", merged, gguf)
    dear = {quant: into / f"{quant}.dear" for quant in quants}
    for quant, path in dear.items():
        if not path.exists():
            command = [sys.executable, "-m", "dearlite.cli.main", "export", str(checkpoint), "--quant", quant]
            command += ["--adapter", str(adapter)] if adapter is not None else []
            command += ["--max-tokens", str(max_tokens), "-o", str(path), "--force"]  # quality is measured here
            subprocess.run(command, check=True)
    return Files(merged, gguf, dear, json.loads((merged / "config.json").read_text()), max_tokens, threads)


def write_gguf(folder: Path, file: Path) -> None:
    """Writes the decoder in Q8_0 like llama.cpp's own quantiser: embeddings and matrices in 8 bits, norms in fp32.

    The file has no vocabulary, since its input is ids. llama.cpp has no score head for this architecture: the head is
    the first row of an fp16 output matrix that is zero elsewhere, so that a token's first logit is its score.
    """
    import gguf
    from safetensors import safe_open

    config = json.loads((folder / "config.json").read_text())
    heads, kv_heads, layers = (
        config[f"num_{name}"] for name in ("attention_heads", "key_value_heads", "hidden_layers")
    )
    rope = config.get("rope_parameters") or config
    if config["model_type"] != "llama" or (rope.get("rope_type") or "default") != "default":
        raise SystemExit(f"{folder}: only plain Llama checkpoints can be written as GGUF here")
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(layers)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
    with safe_open(folder / "model.safetensors", "np") as tensors:
        for name in sorted({*tensors.keys()} - {"score.weight"}):
            tensor = tensors.get_tensor(name).astype(np.float32)
            for part, count in (("q_proj", heads), ("k_proj", kv_heads)):
                if f".{part}." in name:  # llama.cpp rotates adjacent values, Hugging Face halves
                    tensor = tensor.reshape(count, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
            kind = gguf.GGMLQuantizationType.Q8_0 if tensor.ndim == 2 else gguf.GGMLQuantizationType.F32
            target = names.get_name(name, try_suffixes=(".weight",))
            writer.add_tensor(target, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
        output = np.zeros((config["vocab_size"], config["hidden_size"]), np.float16)
        output[0] = tensors.get_tensor("score.weight")[0]
        writer.add_tensor("output.weight", output)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def merge(checkpoint: Path, adapter: Path, folder: Path) -> None:
    """Writes PEFT's merge of checkpoint and adapter as fp32 safetensors, with the tokenizer."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=1, dtype=torch.float32)
    PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().save_pretrained(folder)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)


STEPS = {"merge": merge, "gguf": write_gguf}


def _run_here(step: str, *paths: Path | None) -> None:
    """Runs one of STEPS in a separate process. The last path is its output, which is renamed to it when complete."""
    *sources, target = map(Path, filter(None, paths))
    unfinished = target.with_name(f"{target.name}.unfinished")
    subprocess.run([sys.executable, __file__, step, *map(str, sources), str(unfinished)], check=True)
    unfinished.rename(target)


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in STEPS:
        sys.exit(f"usage: {Path(__file__).name} {'|'.join(STEPS)} SOURCE… TARGET (called by llama_pointwise.py)")
    STEPS[sys.argv[1]](*map(Path, sys.argv[2:]))
