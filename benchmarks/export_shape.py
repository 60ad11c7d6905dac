"""Time, memory and speed at the real shapes, with random weights: `python benchmarks/export_shape.py 1b|3b|8b FOLDER`.

Writes a sharded bf16 checkpoint of that shape to FOLDER (once; the 8B takes 16 GB), exports it as int8 with a LoRA in a
separate process, and runs `dearlite bench` on the file. Time is meaningful with random weights, scores are not.
"""

from __future__ import annotations

import argparse
import json
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

# hidden, ffn, layers, heads, kv heads (config.json of Llama 3.2 1B and 3B, and 3.1 8B)
SHAPES = {"1b": (2048, 8192, 16, 32, 8), "3b": (3072, 8192, 28, 24, 8), "8b": (4096, 14336, 32, 32, 8)}
VOCABULARY, SHARD_BYTES, ROWS = 128256, 4 * 2**30, 4096


def tensors(shape: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each tensor of the scorer, in the order of the file."""
    hidden, ffn, layers, heads, kv = SHAPES[shape]
    size = 64 if shape == "1b" else 128
    yield "model.embed_tokens.weight", (VOCABULARY, hidden)
    for number in range(layers):
        at = f"model.layers.{number}"
        for name, rows, columns in (
            ("self_attn.q_proj", heads * size, hidden),
            ("self_attn.k_proj", kv * size, hidden),
            ("self_attn.v_proj", kv * size, hidden),
            ("self_attn.o_proj", hidden, heads * size),
            ("mlp.gate_proj", ffn, hidden),
            ("mlp.up_proj", ffn, hidden),
            ("mlp.down_proj", hidden, ffn),
        ):
            yield f"{at}.{name}.weight", (rows, columns)
        yield f"{at}.input_layernorm.weight", (hidden,)
        yield f"{at}.post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    yield "score.weight", (1, hidden)


def write_checkpoint(shape: str, folder: Path) -> None:
    """Random weights of standard deviation 0.02 in shards of at most 4 GB (format: safetensors)."""
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    filled = 0
    for name, sides in tensors(shape):
        size = 2 * int(np.prod(sides))
        if filled + size > SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append((name, sides))
        filled += size
    weight_map = {}
    random = np.random.default_rng(0)
    pool = (random.standard_normal(2**24, np.float32) * 0.02).view(np.uint32) >> 16  # bf16 is the upper half of fp32
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        header, offset = {}, 0
        for name, sides in shard:
            end = offset + 2 * int(np.prod(sides))
            header[name] = {"dtype": "BF16", "shape": sides, "data_offsets": [offset, end]}
            weight_map[name], offset = file, end
        text = json.dumps(header).encode()
        with open(folder / file, "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for _, sides in shard:
                left = int(np.prod(sides))
                while left:
                    count = min(left, len(pool) // 2)
                    start = int(random.integers(len(pool) - count + 1))
                    out.write(pool[start : start + count].astype(np.uint16).tobytes())
                    left -= count
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    hidden, ffn, layers, heads, kv = SHAPES[shape]
    config = {
        "model_type": "llama", "hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv, "head_dim": 64 if shape == "1b" else 128,
        "vocab_size": VOCABULARY, "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 8192},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    words = Tokenizer(models.WordLevel({"<bos>": 0, "<unk>": 1} | {f"w{n}": n + 2 for n in range(1000)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_special_tokens(["<bos>"])
    words.post_processor = processors.TemplateProcessing("<bos> $A", "<bos> $A <bos> $B:1", [("<bos>", 0)])
    words.save(str(folder / "tokenizer.json"))


def write_adapter(shape: str, folder: Path) -> None:
    """A random PEFT LoRA of DeAR's form: r 32 on q, v, o, gate, up and down, and a full score head."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(1)
    out: dict[str, np.ndarray] = {}
    for name, sides in tensors(shape):
        module = name.removesuffix(".weight")
        if module.endswith(("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")):
            for side, rows, columns in (("A", 32, sides[1]), ("B", sides[0], 32)):
                values = random.standard_normal((rows, columns), np.float32) * 0.01
                out[f"base_model.model.{module}.lora_{side}.weight"] = values
        elif module == "score":
            out["base_model.model.score.weight"] = random.standard_normal(sides, np.float32) * 0.02
    save_file(out, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA", "task_type": "SEQ_CLS", "r": 32, "lora_alpha": 64, "modules_to_save": ["score"],
        "target_modules": ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path, help="the checkpoint and the model file")
    parser.add_argument("options", nargs="*", help="options of `dearlite export`, after --, such as -- --quant fp16")
    options = parser.parse_args()
    if not (options.folder / "tokenizer.json").exists():
        write_checkpoint(options.shape, options.folder)
        write_adapter(options.shape, options.folder / "adapter")
    gigabytes = sum(file.stat().st_size for file in options.folder.glob("*.safetensors")) / 1e9
    output = options.folder / "model.dear"
    start = time.perf_counter()
    command = [sys.executable, "-m", "dearlite.cli.main", "export", str(options.folder), "-o", str(output), "--force"]
    subprocess.run([*command, "--adapter", str(options.folder / "adapter"), *options.options], check=True)
    seconds = time.perf_counter() - start
    print(f"export: {gigabytes:.1f} GB of bf16 in {seconds:.0f} s, {gigabytes / seconds:.3f} GB/s", flush=True)
    subprocess.run([sys.executable, "-m", "dearlite.cli.main", "bench", "-m", str(output)], check=True)


if __name__ == "__main__":
    main()
