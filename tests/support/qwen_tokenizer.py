"""A tokenizer of Qwen's kind (2.5 and 3): its way to split texts, its special tokens, and its first merges."""

import json
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

_DATA = Path(__file__).parents[1] / "data" / "qwen3_merges.json"


@cache
def qwen_tokenizer_json() -> bytes:
    """The tokenizer.json; ids are dense, in the published order: bytes, merges, added tokens."""
    data = json.loads(_DATA.read_text(encoding="utf-8"))
    merges = [tuple(merge.split(" ")) for merge in data["merges"]]
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *dict.fromkeys("".join(merge) for merge in merges)]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    tokenizer.normalizer = normalizers.NFC()
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(data["split"]), "isolated"), level])
    tokenizer.decoder = decoders.ByteLevel()
    for content, special in data["added"]:
        add = tokenizer.add_special_tokens if special else tokenizer.add_tokens
        add([AddedToken(content, normalized=False, special=special)])
    return tokenizer.to_str().encode()


def libraries(tokenizer_json: bytes) -> tuple[Tokenizer, Tokenizer]:
    """The tokenizer twice: for words, in which special tokens are read, and for texts, in which they are characters.

    So are Qwen's <think> and its like in texts, which its file does not call special: the makers' code would read them.
    """
    words = Tokenizer.from_str(tokenizer_json.decode())
    raw = json.loads(tokenizer_json)
    for token in raw["added_tokens"]:
        token["special"] |= token["content"][0] == "<"
    texts = Tokenizer.from_str(json.dumps(raw))
    texts.encode_special_tokens = True
    return words, texts
