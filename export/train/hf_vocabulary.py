"""A Hugging Face tokenizer behind the interface that prompts are encoded with: the ids that the runtime would make."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from dearlite.errors import ModelFileError, UsageError
from dearlite.listwise.chat_template import ChatTemplate, PromptPart, encode_parts


class HfVocabulary:
    """Texts to ids as `backends.llama_vocabulary` has them: nothing in a text is special, the template's tokens are."""

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer` is a fast one of transformers."""
        from tokenizers import Tokenizer

        self._plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._plain.encode_special_tokens = True
        self._special = {
            str(token): number for number, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        opening = tokenizer("a").input_ids[:1]
        self._bos = tokenizer.bos_token_id if opening == [tokenizer.bos_token_id] else None
        self._ids = tokenizer.convert_ids_to_tokens

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, in which nothing is special."""
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def token_bytes(self, token: int) -> bytes:
        """The bytes of a token in running text."""
        return _bytes_of(str(self._ids(token)))

    def encode_prompt(self, parts: Sequence[PromptPart]) -> list[int]:
        """The ids of a prompt: special tokens in special parts, all else as text, joined across parts."""
        return encode_parts(parts, self.encode, self._special, self._bos)

    def encode_after(self, anchor: str, text: str) -> tuple[int, ...]:
        """The ids of `text` where it follows `anchor`."""
        before, whole = self.encode(anchor), self.encode(anchor + text)
        if whole[: len(before)] != before:
            raise ModelFileError(f"the tokenizer joins {anchor!r} and {text!r}")
        return tuple(whole[len(before) :])


def template_of(tokenizer: Any) -> ChatTemplate | None:
    """The tokenizer's own chat template, None where it has none."""
    source = tokenizer.chat_template
    if isinstance(source, dict):
        raise UsageError("the base has several chat templates: keep the one that it was tuned with")
    tokens = {name: getattr(tokenizer, name) or "" for name in ("bos_token", "eos_token")}
    return None if not source else ChatTemplate(source, tokens)


def _byte_letters() -> dict[str, int]:
    """GPT-2's letters for bytes, which byte-level vocabularies are written in."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}


_LETTERS = _byte_letters()


def _bytes_of(token: str) -> bytes:
    """The bytes of a vocabulary entry: byte-level letters, or a SentencePiece text with its blank."""
    if re.fullmatch(r"<0x[0-9A-F]{2}>", token):
        return bytes([int(token[3:5], 16)])
    if "\u2581" in token:
        return token.replace("\u2581", " ").encode()
    if all(letter in _LETTERS for letter in token):
        return bytes(_LETTERS[letter] for letter in token)
    return token.encode()
