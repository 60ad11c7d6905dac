"""A Hugging Face tokenizer with the interface of `listwise.tokens.Vocabulary`: the same ids as in the runtime."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from dearlite.errors import UsageError
from dearlite.templates.chat import ChatTemplate, PromptPart, Strips, encode_after, encode_parts


class HfVocabulary:
    """Encodes texts as `llama.vocabulary` does: special tokens are read in a chat template, not in a text."""

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer` is a fast tokenizer of transformers."""
        from tokenizers import Tokenizer

        self._plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._plain.encode_special_tokens = True
        self._special = {
            str(token): token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        added = tokenizer.added_tokens_decoder.items()
        sides = (frozenset(number for number, token in added if getattr(token, side)) for side in ("lstrip", "rstrip"))
        self._strips = Strips(*sides)
        first_ids = tokenizer("a").input_ids[:1]
        self._bos = tokenizer.bos_token_id if first_ids == [tokenizer.bos_token_id] else None
        self._tokens_of = tokenizer.convert_ids_to_tokens

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, in which nothing is a special token."""
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def token_bytes(self, token: int) -> bytes:
        """The bytes of a token in running text."""
        return _bytes_of(str(self._tokens_of(token)))

    def encode_prompt(self, parts: Sequence[PromptPart]) -> list[int]:
        """The ids of a prompt: special tokens in special parts, all else as text, joined across parts."""
        return encode_parts(parts, self.encode, self._special, self._bos, self._strips)

    def encode_after(self, anchor: str, text: str) -> tuple[int, ...]:
        """The ids of `text` where it follows `anchor`. Raises ModelFileError if a token spans both."""
        return encode_after(self.encode, anchor, text)


def chat_template_of(tokenizer: Any) -> ChatTemplate | None:
    """The tokenizer's chat template; None if it has none. Raises UsageError for several templates."""
    source = tokenizer.chat_template
    if isinstance(source, dict):
        raise UsageError("the base has several chat templates: keep the one that it was fine-tuned with")
    tokens = {name: getattr(tokenizer, name) or "" for name in ("bos_token", "eos_token")}
    return None if not source else ChatTemplate(source, tokens)


def _byte_letters() -> dict[str, int]:
    """The byte of each letter that GPT-2's byte-level vocabularies write bytes with."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


_LETTERS = _byte_letters()


def _bytes_of(token: str) -> bytes:
    """The bytes of a vocabulary entry in byte-level letters, or of a SentencePiece token with its blank."""
    if re.fullmatch(r"<0x[0-9A-F]{2}>", token):
        return bytes([int(token[3:5], 16)])
    if "\u2581" in token:
        return token.replace("\u2581", " ").encode()
    if all(letter in _LETTERS for letter in token):
        return bytes(_LETTERS[letter] for letter in token)
    return token.encode()
