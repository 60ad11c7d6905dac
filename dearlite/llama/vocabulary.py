"""The vocabulary of a GGUF: token ids as llama.cpp makes them, with special tokens only in a template's own words."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from dearlite.errors import ModelFileError
from dearlite.templates.chat import PromptPart, Strips, encode_after, encode_parts, pattern_of

_CONTROL, _USER_DEFINED = 3, 4  # tokenizer.ggml.token_type, as in llama.h's llama_token_type


class LlamaVocabulary:
    """The tokenizer of one loaded model. Safe to use from several threads: the library only reads here."""

    def __init__(self, llama: Any, objects: Any, metadata: dict[str, Any]) -> None:
        """`llama` is the library, `objects.model` its pointer to the model, `metadata` that of the file."""
        self._llama = llama
        self._objects = objects  # the vocabulary is part of the model, which must not be freed before this object
        self._vocab = llama.llama_model_get_vocab(objects.model)
        self.size: int = llama.llama_vocab_n_tokens(self._vocab)
        texts, types = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.token_type")
        if not texts or not types or len(texts) != self.size or len(types) != self.size:
            raise ModelFileError("the model file has no vocabulary with token types: export it again")
        kinds = {text: (number, kind) for number, (text, kind) in enumerate(zip(texts, types, strict=True))}
        # the text of each special token with its id
        self.special_tokens = {t: n for t, (n, kind) in kinds.items() if kind in (_CONTROL, _USER_DEFINED) and t}
        # The library finds user-defined tokens in any text. Tokens of blanks are left to it: they instruct no model.
        user_defined = [
            t for t, (_, kind) in kinds.items() if kind == _USER_DEFINED and len(t) > 1 and t.strip(" \u2581\n\t")
        ]
        self._user_defined = pattern_of(user_defined)
        before, after = (frozenset(metadata.get(f"dearlite.{side}") or ()) for side in ("lstrip", "rstrip"))
        self._strips = Strips(before, after)
        self._cached_bytes = lru_cache(maxsize=None)(self._token_bytes)

    @property
    def bos(self) -> int | None:
        """The token that begins every text; None if the model has none."""
        token: int = self._llama.llama_vocab_bos(self._vocab)
        return token if self._llama.llama_vocab_get_add_bos(self._vocab) and token >= 0 else None

    def token_text(self, token: int) -> str:
        """The text of a special token as the chat template writes it; empty for a negative id, which is no token."""
        return self._llama.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace") if token >= 0 else ""

    def special_ids(self) -> dict[str, int]:
        """The ids of the tokens that begin and end a text and separate two, those that the model has."""
        llama, vocab = self._llama, self._vocab
        ids = {"bos": llama.llama_vocab_bos, "eos": llama.llama_vocab_eos, "sep": llama.llama_vocab_sep}
        numbers = {name: read(vocab) for name, read in ids.items()}
        return {name: number for name, number in numbers.items() if number >= 0}

    @property
    def template_tokens(self) -> dict[str, str]:
        """The tokens that are variables of a chat template."""
        llama, vocab = self._llama, self._vocab
        return {
            "bos_token": self.token_text(llama.llama_vocab_bos(vocab)),
            "eos_token": self.token_text(llama.llama_vocab_eos(vocab)),
        }

    def end_tokens(self) -> frozenset[int]:
        """The tokens that end a turn or a text."""
        return frozenset(n for n in self.special_tokens.values() if self._llama.llama_vocab_is_eog(self._vocab, n))

    def token_bytes(self, token: int) -> bytes:
        """The bytes of a token in running text; empty for a control token."""
        return self._cached_bytes(token)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, in which nothing is a special token: "<|eot_id|>" is encoded as ten characters."""
        if self._user_defined is None or not self._user_defined.search(text):
            return self._plain(text)
        ids, start = [], 0
        for match in self._user_defined.finditer(text):  # split inside the match, so that the library does not find it
            ids += self._plain(text[start : match.start() + 1])
            start = match.start() + 1
        return ids + self._plain(text[start:])

    def encode_prompt(self, parts: Sequence[PromptPart]) -> list[int]:
        """The ids of a prompt (`chat_template.encode_parts`)."""
        return encode_parts(parts, self.encode, self.special_tokens, self.bos, self._strips)

    def encode_after(self, anchor: str, text: str) -> tuple[int, ...]:
        """The ids of `text` where it follows `anchor`. Raises ModelFileError if a token spans both."""
        return encode_after(self.encode, anchor, text)

    def _plain(self, text: str) -> list[int]:
        data = text.encode()
        room = len(data) + 8  # a token has at least one byte, except for a blank that may be added in front
        ids = (ctypes.c_int32 * room)()
        count = self._llama.llama_tokenize(self._vocab, data, len(data), ids, room, False, False)
        if count < 0:
            raise ModelFileError("the model's tokenizer cannot encode this text: verify the file")
        return ids[:count]

    def _token_bytes(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        size = self._llama.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = self._llama.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[: max(0, size)]
