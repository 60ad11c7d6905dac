"""A listwise model's language model as a writer of text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event

from dearlite.errors import Cancelled, InvalidInput
from dearlite.foreign import naming
from dearlite.listwise.decoding import GenerationOptions, write
from dearlite.listwise.engine import LlamaBackend
from dearlite.llama.model import Interrupted
from dearlite.templates.chat import ChatTemplate, PromptPart, Turn


@dataclass(frozen=True, slots=True)
class Writer:
    """A loaded model that answers conversations; `most_tokens` limits a conversation with its answer."""

    model: str
    backend: LlamaBackend
    template: ChatTemplate
    end_tokens: frozenset[int]
    most_tokens: int

    def answer(
        self,
        turns: Sequence[Turn],
        opening: str,
        most: int,
        *,
        stop: re.Pattern[str] | None = None,
        cancel: Event | None = None,
    ) -> str:
        """The greedy answer to a conversation: `opening`, then at most `most` tokens, up to a match of `stop`.

        Texts of `turns` are plain text, in which nothing is a special token. Raises InvalidInput for a conversation
        that does not fit, Cancelled when `cancel` is set.
        """
        vocabulary = self.backend.vocabulary
        with naming(self.model, "the conversation"):
            ids = tuple(vocabulary.encode_prompt([*self.template.parts(turns), PromptPart(opening, False)]))
            if len(ids) + most > self.most_tokens:
                raise InvalidInput(f"the query is too long for {self.model}: shorten it")
            options = GenerationOptions(vocabulary.token_bytes, self.end_tokens, most)
            try:
                (text,) = self.backend.run([write(ids, options, stop)], len(ids) + most, cancel=cancel)
            except Interrupted:
                raise Cancelled(0, 0) from None
        return opening + text
