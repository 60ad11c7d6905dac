"""Tiny random language models of the real architectures that answer yes or no, in folders as they are published."""

import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5,
}  # fmt: skip


def causal_model(folder, family, tokenizer_json, **fields):
    """A random causal language model of transformers' `family`, saved in `folder` with its tokenizer."""
    config = _config(family, tokenizer_json, fields)
    return _saved(getattr(transformers, f"{family}ForCausalLM")(config), folder, tokenizer_json)


def bidirectional_scorer(folder, tokenizer_json):
    """Nemotron's kind: LLaMA without a causal mask, and a score head on the mean of the last hidden states."""
    config = _config("Llama", tokenizer_json, {"num_labels": 1})
    net = _saved(transformers.LlamaForSequenceClassification(config), folder, tokenizer_json)
    stated = json.loads((folder / "config.json").read_text())
    stated |= {"model_type": "llama_bidirec", "pooling": "avg", "temperature": 1.0}
    stated["architectures"] = ["LlamaBidirectionalForSequenceClassification"]
    (folder / "config.json").write_text(json.dumps(stated))
    return net


@torch.no_grad()
def mean_score(net, ids):
    """The score of Nemotron's code: every token sees all, and the head reads the mean over the tokens."""
    open_mask = torch.zeros(1, 1, len(ids), len(ids))
    states = net.model(input_ids=torch.tensor([ids]), attention_mask=open_mask).last_hidden_state
    return float(net.score(states.mean(1))[0, 0])


@torch.no_grad()
def logits(net, ids):
    """The logits of the token after `ids`."""
    return net(input_ids=torch.tensor([ids])).logits[0, -1]


def _config(family, tokenizer_json, fields):
    size = max(token["id"] for token in json.loads(tokenizer_json)["added_tokens"]) + 1
    size = max(size, max(json.loads(tokenizer_json)["model"]["vocab"].values()) + 1)
    return getattr(transformers, f"{family}Config")(**{**SIZES, "vocab_size": size, "pad_token_id": 0, **fields})


@torch.no_grad()
def _saved(net, folder, tokenizer_json):
    """Random weights, large enough that scores differ."""
    torch.manual_seed(0)
    for name, value in net.named_parameters():
        noise = torch.randn_like(value)
        gain = 0.0 if net.config.model_type == "gemma" else 1.0
        value.copy_(gain + 0.3 * noise if "norm" in name else 1.6 / value.shape[-1] ** 0.5 * noise)
    folder.mkdir(parents=True, exist_ok=True)
    net.eval().save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer_json)
    return net
