"""Small random language models for attention rerankers, and their scores by the authors' definition, in torch."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tiny_decoders import KINDS, WORDS  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402

CHAT = ("<|im_start|>", "<|im_end|>")
LATE = "Please find information that are relevant to the following query in the paragraphs above."
TEXTS = (
    "Edison invented the light bulb",
    "tea",
    "coffee coffee a b c d e f g Momoa plays in Fast X",
    "the bulb " * 40,
    "query document : [2] <|im_end|> who invented coffee",
    "a b c\n\n[1] d e f",
    "Momoa plays the light",
)
QUERY = "who invented the light bulb"


def tokenizer(folder, *, chat=True):
    """Words and single characters, with the special tokens of a chat, and <bos> before a text."""
    words = dict.fromkeys(["<pad>", "<bos>", "<unk>", *CHAT, *WORDS, *"0123456789[]./,'", *LATE.split(), "N", "A"])
    tok = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.Whitespace()
    tok.add_special_tokens(["<bos>", "<pad>", *(CHAT if chat else ())])
    tok.post_processor = processors.TemplateProcessing("<bos> $A", "<bos> $A <bos> $B:1", [("<bos>", 1)])
    tok.save(str(Path(folder, "tokenizer.json")))
    return tok


def causal(folder, kind, *, seed=0, chat=True, **changes):
    """A random language model of an architecture of tiny_decoders.KINDS, whose attention is far from even."""
    family, fields = KINDS[kind]
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": 96, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
        "max_position_embeddings": 1024, "pad_token_id": 0, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    config = getattr(transformers, f"{family}Config")(**sizes | fields | changes)
    config._attn_implementation = "eager"
    net = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, value in net.named_parameters():
            gain = 1 + 0.3 * torch.randn_like(value)
            value.copy_(gain if "norm" in name else 1.6 / value.shape[-1] ** 0.5 * torch.randn_like(value))
    net.save_pretrained(folder)
    return net, tokenizer(folder, chat=chat)


def authors_prompt(query, documents, *, before="<bos><|im_start|>user", after="<|im_end|>\n<|im_start|>assistant"):
    """The prompt of in_context_reranker.py as one text, the parts of the documents, and the query's part."""
    text = f"{before} Here are some paragraphs:"
    spans = []
    for number, document in enumerate(documents, start=1):
        text += "\n\n"
        spans.append((len(text), len(text) + len(f"[{number}] {document}")))
        text += f"[{number}] {document}"
    text += "\n\n"
    late = len(text)
    return f"{text}{LATE}\n\nQuery: {query}{after}", spans, late


@torch.no_grad()
def reference(net, tok, query, documents, heads, *, reverse=True):
    """The scores of `documents` by ICR's definition: one forward pass per query over the whole prompt, no cache.

    `heads` maps layers to their heads. Documents with special tokens in their texts are not for this function.
    """
    shown = list(reversed(documents)) if reverse else list(documents)
    tok.no_truncation()
    weights = []
    for text in (query, "N/A"):
        prompt, spans, late = authors_prompt(text, shown)
        encoding = tok.encode(prompt, add_special_tokens=False)
        first = next(n for n, (_, end) in enumerate(encoding.offsets) if end > late)
        attentions = net(input_ids=torch.tensor([encoding.ids]), output_attentions=True).attentions
        rows = sum(attentions[layer][0, head, first:].mean(0) for layer, own in heads.items() for head in own)
        weights.append(rows[:first])
        inside = [
            [n for n, (start, end) in enumerate(encoding.offsets) if end > span[0] and start < span[1]]
            for span in spans
        ]
    difference = weights[0] - weights[1]
    scores = []
    for tokens in inside:
        own = difference[tokens]
        scores.append(float(own[own > own.mean() - 2 * own.std()].sum()))
    return scores[::-1] if reverse else scores
