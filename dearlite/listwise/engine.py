"""The llama.cpp engine of listwise models: runs several decodings side by side in one context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event
from typing import Any, TypeVar

from dearlite.listwise.decoding import Decoding, Step
from dearlite.llama.context import BATCH_TOKENS, Plan
from dearlite.llama.model import LlamaModel

Result = TypeVar("Result")
_ALONE_TOKENS = 32  # a longer step is read without the other sequences: it fills a call by itself


class LlamaBackend(LlamaModel):
    """A loaded listwise model."""

    def run(
        self,
        decodings: Sequence[Decoding[Result]],
        room: int,
        *,
        cancel: Event | None = None,
        on_tokens: Callable[[int], None] | None = None,
    ) -> list[Result]:
        """The results of the decodings, which run side by side, each in a sequence with room for `room` tokens.

        `on_tokens` is called with the number of tokens that each call read. Raises Interrupted when `cancel` is set,
        ScoringError if a decoding needs more than its room. Errors of the decodings pass through.
        """
        with self.turn(cancel):
            self.open(Plan(room, len(decodings)))
            try:
                return self._drive(decodings, cancel, on_tokens)
            finally:
                for decoding in decodings:
                    decoding.close()

    def _drive(
        self, decodings: Sequence[Decoding[Result]], cancel: Event | None, on_tokens: Callable[[int], None] | None
    ) -> list[Result]:
        """The results of the decodings: reads the tokens of their steps and sends them the logits, until all end."""
        results: dict[int, Result] = {}
        unread: dict[int, list[int]] = {}  # sequence -> tokens of its step that are not read yet

        def take(sequence: int, step: Step) -> None:
            if step.drop:
                self.drop(sequence, step.drop)
            unread[sequence] = list(step.tokens)

        def advance(sequence: int, logits: Any) -> None:
            try:
                take(sequence, decodings[sequence].send(logits))
            except StopIteration as end:
                results[sequence] = end.value
                unread.pop(sequence, None)

        for sequence in range(len(decodings)):
            advance(sequence, None)
        while unread:
            long = next((s for s, tokens in unread.items() if len(tokens) > _ALONE_TOKENS), None)
            # Equal numbers of tokens per sequence: the library reads its weights once for each distinct number.
            share = BATCH_TOKENS if long is not None else min(map(len, unread.values()))
            batch = {s: unread[s][:share] for s in ([long] if long is not None else unread)}
            complete = {s for s, tokens in batch.items() if len(tokens) == len(unread[s])}
            self.read(batch, complete, cancel)
            if on_tokens is not None:
                on_tokens(sum(map(len, batch.values())))
            row = -1
            for sequence, tokens in batch.items():
                row += len(tokens)
                del unread[sequence][: len(tokens)]
                if sequence in complete:
                    advance(sequence, self.logits(row))
        return [results[sequence] for sequence in range(len(decodings))]
