"""One checkpoint in the files that the systems of llama_pointwise.py want: merged, GGUF and `.dear`. Scores nothing."""

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
    """Where the files are, and what every system is told. `heads` and the like are the checkpoint's config.json."""

    merged: Path  # a Hugging Face folder, fp32, PEFT's own merge
    gguf: Path
    dear: dict[str, Path]  # by quantisation
    config: dict[str, Any]
    max_tokens: int
    threads: int

    def products_a_token(self) -> tuple[int, int]:
        """Multiplications of the linear layers for one token: of all layers, and of the last one less its k and v."""
        c = self.config
        size = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
        key_values = 2 * c["hidden_size"] * size * c["num_key_value_heads"]
        queries = c["hidden_size"] * size * c["num_attention_heads"]
        rest = queries + 3 * c["hidden_size"] * c["intermediate_size"]  # o is as large as q
        return c["num_hidden_layers"] * (queries + key_values + rest), rest


def make_files(
    checkpoint: Path, adapter: Path | None, into: Path, *, quants: Iterable[str], max_tokens: int, threads: int
) -> Files:
    """Files under `into`; what is there already is kept. Each is made in a process of its own."""
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
    """The decoder in Q8_0, as llama.cpp's own quantiser has it: embeddings and matrices in 8 bits, norms in fp32.

    There is no vocabulary in it, since ids go in. This architecture has no score head in llama.cpp: the head is the
    first row of an output matrix in fp16 that is all zeros otherwise, so that a token's first logit is its score.
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
                if f".{part}." in name:  # llama.cpp rotates neighbours, Hugging Face halves
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
    """PEFT's own merge of the two, as fp32 safetensors with the tokenizer."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=1, dtype=torch.float32)
    PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().save_pretrained(folder)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)


STEPS = {"merge": merge, "gguf": write_gguf}


def _run_here(step: str, *paths: Path | None) -> None:
    """Runs one of STEPS in a process; what it makes, the last path, has its name only once it is whole."""
    *sources, target = map(Path, filter(None, paths))
    unfinished = target.with_name(f"{target.name}.unfinished")
    subprocess.run([sys.executable, __file__, step, *map(str, sources), str(unfinished)], check=True)
    unfinished.rename(target)


if __name__ == "__main__":
    STEPS[sys.argv[1]](*map(Path, sys.argv[2:]))
