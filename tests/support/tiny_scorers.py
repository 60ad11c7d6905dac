"""Tiny random networks of transformers as GGUF files with a score: Qwen2, Qwen3 and BERT, all tensors in fp32."""

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tiny_gguf import cut_tokenizer  # noqa: E402

HIDDEN = 64
_DECODER = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    **{f"self_attn.{name}_proj": f"attn_{name}" for name in "qkv"},
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    **{f"mlp.{name}_proj": f"ffn_{name}" for name in ("gate", "up", "down")},
}
_BERT = {
    "bert.embeddings.word_embeddings": "token_embd",
    "bert.embeddings.position_embeddings": "position_embd",
    "bert.embeddings.token_type_embeddings": "token_types",
    "bert.embeddings.LayerNorm": "token_embd_norm",
    **{f"attention.self.{name}": f"attn_{name[0]}" for name in ("query", "key", "value")},
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
    "bert.pooler.dense": "cls",
    "classifier": "cls.output",
}
WORDS = ["rain", "falls", "on", "hills", "ships", "carry", "grain", "the", "what", "where", "snow", "river", "city"]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def decoder(kind, seed=0):
    """A random language model of transformers: kind "qwen2" or "qwen3"."""
    torch.manual_seed(seed)
    names = {"qwen2": "Qwen2", "qwen3": "Qwen3"}
    config = getattr(transformers, f"{names[kind]}Config")(
        vocab_size=len(cut_tokenizer()["tokenizer.ggml.tokens"]),
        hidden_size=HIDDEN,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        **({"head_dim": 32} if kind == "qwen3" else {}),
    )
    model = getattr(transformers, f"{names[kind]}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(1 + 0.1 * torch.randn_like(weight) if "norm" in name else 0.1 * torch.randn_like(weight))
    return model


def encoder(seed=0):
    """A random BERT of transformers with a head of one label, for WORDS."""
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=len(SPECIALS) + len(WORDS),
        hidden_size=HIDDEN,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        type_vocab_size=1,
        num_labels=1,
    )
    model = transformers.BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "LayerNorm" not in name:
                weight.copy_(0.2 * torch.randn_like(weight))
    return model


def write_decoder(path, model, extra=None, metadata=None):
    """The model's GGUF; `extra` are more tensors, `metadata` more strings, whole numbers and lists."""
    config, kind = model.config, model.config.model_type
    writer = gguf.GGUFWriter(path, kind)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_key_length(32)
    writer.add_value_length(32)
    source = cut_tokenizer()
    writer.add_tokenizer_model(source["tokenizer.ggml.model"])
    writer.add_tokenizer_pre(source["tokenizer.ggml.pre"])
    writer.add_token_list(source["tokenizer.ggml.tokens"])
    writer.add_token_types(source["tokenizer.ggml.token_type"])
    writer.add_token_merges(source["tokenizer.ggml.merges"])
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    return _finish(writer, model, _DECODER, "model.layers.", extra or {}, metadata or {})


def write_encoder(path, model, metadata=None):
    """The GGUF of a BERT over WORDS."""
    config = model.config
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_causal_attention(False)
    writer.add_tokenizer_model("bert")
    writer.add_token_list([*SPECIALS, *(f"\u2581{word}" for word in WORDS)])
    writer.add_token_types([3] * len(SPECIALS) + [1] * len(WORDS))
    for name, number in (("unknown", 1), ("padding", 0), ("cls", 2), ("seperator", 3), ("mask", 4)):
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", number)
    writer.add_bos_token_id(2)
    writer.add_token_type_count(1)
    return _finish(writer, model, _BERT, "bert.encoder.layer.", {}, metadata or {})


def _finish(writer, model, names, layers, extra, metadata):
    for key, value in metadata.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            (writer.add_uint32 if isinstance(value, int) else writer.add_string)(key, value)
    tensors = {}
    for name, weight in model.state_dict().items():
        if name.endswith("position_ids"):
            continue
        module, _, part = name.rpartition(".")
        if module.startswith(layers):
            number, _, inner = module.removeprefix(layers).partition(".")
            tensors[f"blk.{number}.{names[inner]}.{part}"] = weight.numpy()
        else:
            tensors[f"{names[module]}.{part}"] = weight.numpy()
    for name, values in (tensors | extra).items():
        writer.add_tensor(name, np.ascontiguousarray(values, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return writer
