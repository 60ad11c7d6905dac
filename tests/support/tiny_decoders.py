"""Small random scorers of the real decoder architectures, with a tokenizer, and transformers' fp32 scores of them."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402

WORDS = "query document : light bulb coffee tea who invented the Edison Momoa plays in Fast X a b c d e f g".split()  # noqa: SIM905
QUERIES = ("who invented the light bulb", "coffee")
DOCS = ("Edison invented the light bulb", "tea", "coffee coffee a b c d e f g Momoa plays in Fast X", "the bulb " * 40)
PAIRS = [(query, document) for query in QUERIES for document in DOCS]
# As config.json of Llama 3 spells it, which every transformers reads; 5 writes "rope_parameters".
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
    "llama, 4 heads of 4, 10000": ("Llama", {"num_key_value_heads": 4}),
    "llama, 4 heads of 1, llama3 scaling": ("Llama", {"num_key_value_heads": 1, **LLAMA3}),
    "llama, 6 heads of 2, its own head size": (
        "Llama",
        {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 32},
    ),
    "llama, tied, linear scaling": (
        "Llama",
        {
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
            "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        },
    ),
    "mistral": ("Mistral", {"num_key_value_heads": 2, "sliding_window": None}),
    "qwen2": ("Qwen2", {"num_key_value_heads": 2}),
    "qwen2, a sliding window switched off": (
        "Qwen2",
        {"num_key_value_heads": 2, "use_sliding_window": False, "sliding_window": 8},
    ),
    "qwen3": ("Qwen3", {"num_key_value_heads": 2, "head_dim": 32}),
}


def tokenizer(folder):
    """Words, and Llama-3's template: <bos> A <bos> B."""
    vocabulary = {word: n for n, word in enumerate(["<pad>", "<bos>", "<unk>", *dict.fromkeys(WORDS)])}
    tok = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.Whitespace()
    tok.add_special_tokens(["<bos>", "<pad>"])
    tok.post_processor = processors.TemplateProcessing("<bos> $A", "<bos> $A <bos> $B:1", [("<bos>", 1)])
    tok.save(str(folder / "tokenizer.json"))
    return tok


def checkpoint(folder, kind, *, seed=0, **changes):
    """A small random scorer of the real architecture, its weights large enough that scores differ."""
    family, fields = KINDS[kind]
    torch.manual_seed(seed)
    config = getattr(transformers, f"{family}Config")(
        **{
            "vocab_size": 64,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 512,
            "num_labels": 1,
            "pad_token_id": 0,
            "rms_norm_eps": 1e-5,
            **fields,
            **changes,
        }
    )
    net = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    with torch.no_grad():
        for name, value in net.named_parameters():
            value.copy_(
                1 + 0.3 * torch.randn_like(value)
                if "norm" in name
                else 1.6 / value.shape[-1] ** 0.5 * torch.randn_like(value)
            )
    net.save_pretrained(folder)
    return net, tokenizer(folder)


@torch.no_grad()
def reference(net, tok, pairs, max_tokens=96):
    tok.enable_truncation(max_tokens, strategy="longest_first")
    out = []
    for query, document in pairs:
        ids = tok.encode(f"query: {query}", f"document:  {document}").ids
        out.append(float(net(input_ids=torch.tensor([ids])).logits[0, 0]))
    return out
