"""A loaded model with the encoder of one prompt form: what every mode needs for its runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import Generic, TypeVar

from dearlite.deadline import TimedEvent
from dearlite.listwise.decoding import GenerationOptions
from dearlite.listwise.engine import LlamaBackend
from dearlite.listwise.tokens import PromptEncoder

Encoder_co = TypeVar("Encoder_co", bound=PromptEncoder, covariant=True)


@dataclass(frozen=True, slots=True)
class Runner(Generic[Encoder_co]):
    """A loaded model with an encoder. `most_tokens` is the length of its longest prompt with the answer."""

    backend: LlamaBackend
    encoder: Encoder_co
    model: str
    most_tokens: int
    end_tokens: frozenset[int]

    def generation(
        self,
        max_tokens: int,
        on_text: Callable[[str], None] | None,
        cancel: Event | None = None,
        answer_tokens: int = 0,
    ) -> GenerationOptions:
        """Options of a text of at most `max_tokens` that leaves the time of its answer, if `cancel` has a deadline."""
        left_s = cancel.left_s if isinstance(cancel, TimedEvent) else None
        return GenerationOptions(
            self.backend.vocabulary.token_bytes, self.end_tokens, max_tokens, on_text, left_s, answer_tokens
        )
