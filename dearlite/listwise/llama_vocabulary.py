"""A GGUF's vocabulary: texts to token ids as llama.cpp does it, with special tokens only where they are meant."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from dearlite.errors import ModelFileError
from dearlite.listwise.chat_template import PromptPart, encode_parts, pattern_of

_CONTROL, _USER_DEFINED = 3, 4  # tokenizer.ggml.token_type, as in llama.h's llama_token_type


class LlamaVocabulary:
    """Encodes for one loaded model. Safe to use from several threads: the library only reads here."""

    def __init__(self, llama: Any, objects: Any, metadata: dict[str, Any]) -> None:
        """`llama` is the library, `objects.model` its pointer to the model, `metadata` the file's own."""
        self._llama = llama
        self._objects = objects  # the vocabulary is a part of the model: it must not be freed before this
        self._vocab = llama.llama_model_get_vocab(objects.model)
        self.size: int = llama.llama_vocab_n_tokens(self._vocab)
        texts, types = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.token_type")
        if not texts or not types or len(texts) != self.size or len(types) != self.size:
            raise ModelFileError("the model file has no vocabulary with types: export it again")
        kinds = {text: (number, kind) for number, (text, kind) in enumerate(zip(texts, types, strict=True))}
        self._special = {t: n for t, (n, kind) in kinds.items() if kind in (_CONTROL, _USER_DEFINED) and t}
        # The library finds these in any text. A text of blanks stays one: it is no instruction to the model.
        own = [t for t, (_, kind) in kinds.items() if kind == _USER_DEFINED and len(t) > 1 and t.strip(" \u2581\n\t")]
        self._found_anywhere = pattern_of(own)
        self._pieces = lru_cache(maxsize=None)(self._piece)

    @property
    def bos(self) -> int | None:
        """The token that opens every text, None where the model wants none."""
        token: int = self._llama.llama_vocab_bos(self._vocab)
        return token if self._llama.llama_vocab_get_add_bos(self._vocab) and token >= 0 else None

    def token_text(self, token: int) -> str:
        """A special token as its model's template writes it, empty for none."""
        return self._llama.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace") if token >= 0 else ""

    @property
    def template_tokens(self) -> dict[str, str]:
        """What a chat template may write by name."""
        llama, vocab = self._llama, self._vocab
        return {
            "bos_token": self.token_text(llama.llama_vocab_bos(vocab)),
            "eos_token": self.token_text(llama.llama_vocab_eos(vocab)),
        }

    def end_tokens(self) -> frozenset[int]:
        """The tokens that end a turn or a text."""
        return frozenset(n for n in self._special.values() if self._llama.llama_vocab_is_eog(self._vocab, n))

    def token_bytes(self, token: int) -> bytes:
        """The bytes of a token in running text; none for a control token."""
        return self._pieces(token)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, in which nothing is special: "<|eot_id|>" is the tokens of ten characters."""
        if self._found_anywhere is None or not self._found_anywhere.search(text):
            return self._plain(text)
        ids, start = [], 0
        for match in self._found_anywhere.finditer(text):  # cut inside, so that it is not found
            ids += self._plain(text[start : match.start() + 1])
            start = match.start() + 1
        return ids + self._plain(text[start:])

    def encode_prompt(self, parts: Sequence[PromptPart]) -> list[int]:
        """The ids of a prompt (`chat_template.encode_parts`)."""
        return encode_parts(parts, self.encode, self._special, self.bos)

    def encode_after(self, anchor: str, text: str) -> tuple[int, ...]:
        """The ids of `text` where it follows `anchor`. Raises ModelFileError where the two are not told apart."""
        before, whole = self.encode(anchor), self.encode(anchor + text)
        if whole[: len(before)] != before:
            raise ModelFileError(
                f"the model's tokenizer joins {anchor!r} and {text!r}: it cannot be asked for an order"
            )
        return tuple(whole[len(before) :])

    def _plain(self, text: str) -> list[int]:
        data = text.encode()
        room = len(data) + 8  # a token has a byte at least, but for a blank that may be put before it
        ids = (ctypes.c_int32 * room)()
        count = self._llama.llama_tokenize(self._vocab, data, len(data), ids, room, False, False)
        if count < 0:
            raise ModelFileError("the model's tokenizer cannot encode this text: verify the file")
        return ids[:count]

    def _piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        size = self._llama.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = self._llama.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[: max(0, size)]
