"""Decoding modes of a listwise model, as coroutines over token ids and logits.

A mode yields a `Step` (tokens to remove from the sequence, then tokens to read) and is sent the logits after the last
of them, (vocabulary,) float32, which are valid until its next step. The first step is the prompt. A mode never sees a
model: an engine can drive several side by side, and tests drive them with tables.
"""

from __future__ import annotations

import codecs
import re
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from dearlite.listwise.answers import THINK_END, read_order

Tokens = tuple[int, ...]
Result = TypeVar("Result")
# Reasoning ends where the model closes it, or begins an order itself.
_END_OF_REASONING = re.compile(rf"{re.escape(THINK_END)}|\[\d+\]\s*>\s*\[")
_RESERVE = 1.25  # times the time of an answer that a text leaves of a budget
_STOP_CHARACTERS = 64  # a match of the pattern above is shorter, unless it is mostly blanks


@dataclass(frozen=True, slots=True)
class Step:
    """The next move of a sequence: its last `drop` tokens are removed, then `tokens` (at least one) are read."""

    tokens: Tokens
    drop: int = 0


Decoding = Generator[Step, Any, Result]


@dataclass(frozen=True, slots=True)
class Order:
    """The order of a window: every position in it once, best first.

    `scores` are indexed by position: log-probabilities of the identifiers under the mask, in mode `first` only. `text`
    is the text that the model wrote before the order, or instead of it. `problems` are the faults of a written order.
    `hurried` is True if the end of a budget cut the text short.
    """

    positions: tuple[int, ...]
    scores: tuple[float, ...] | None = None
    text: str = ""
    problems: tuple[str, ...] = ()
    hurried: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """The token ids of an answer "[2] > [1] > [3]": `paths` has each identifier up to the next one.

    A path is the tokens of the identifier's digits and "] > [", so that the paths of 1 and 10 differ at the latest
    where the first one ends. `lead` opens an answer after written text: a blank line, and "[". `closing` is the lead
    that closes the tags of a text which was cut short.
    """

    lead: Tokens
    paths: tuple[Tokens, ...]
    names: tuple[str, ...]  # the identifiers as they are written
    closing: Tokens = ()

    @property
    def most_tokens(self) -> int:
        """The largest number of tokens that are read for the answer after a text."""
        return max(len(self.lead), len(self.closing)) + sum(map(len, self.paths))


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """Options of free text generation: the bytes of a token, the tokens that end a text, and a limit.

    `on_text` is called with each new piece of text, in whole characters. `left_s` gives the seconds that are left of a
    budget: the text ends where they are needed for the `answer_tokens` tokens of the answer.
    """

    token_bytes: Callable[[int], bytes]
    end_tokens: frozenset[int]
    max_tokens: int
    on_text: Callable[[str], None] | None = None
    left_s: Callable[[], float] | None = None
    answer_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """A written text and its tokens, of which the first `read` were read. `hurried`: the end of a budget cut it."""

    text: str
    tokens: list[int]
    read: int
    hurried: bool = False

    def cut(self, text: str, token_bytes: Callable[[int], bytes]) -> tuple[list[int], int]:
        """The unread tokens of `text`, a beginning of the written one, and the number of tokens read beyond it."""
        kept = tokens_within(self.tokens, len(text.encode()), token_bytes)
        return self.tokens[self.read : kept], max(0, self.read - kept)


def permute(prompt: Tokens, answer: Answer, *, drop: int = 0) -> Decoding[Order]:
    """A permutation of the window: greedy decoding under a mask that allows unused identifiers only.

    Tokens without an alternative (the rest of an identifier, "] > [") are read together with the next choice. The last
    identifier is no choice and is not read at all. `prompt` ends with the answer's opener; `drop` goes with the first
    step.
    """
    positions: list[int] = []
    unused = list(range(len(answer.paths)))
    unread = prompt  # tokens that are fixed, and not read yet
    while unused:
        candidates, depth, read = list(unused), 0, 0
        while len(candidates) > 1:
            branches = _branches(answer.paths, candidates, depth)
            if len(branches) > 1:
                logits = yield Step((*unread, *answer.paths[candidates[0]][read:depth]), drop)
                unread, read, drop = (), depth, 0
                candidates = branches[max(branches, key=lambda token: float(logits[token]))]
            depth += 1
        unread = (*unread, *answer.paths[candidates[0]][read:])
        unused.remove(candidates[0])
        positions.append(candidates[0])
    return Order(tuple(positions))


def first(prompt: Tokens, answer: Answer, *, drop: int = 0) -> Decoding[Order]:
    """An order and scores from one pass over the prompt (FIRST, arXiv 2406.15657): the first identifier's logits.

    A score is the log-probability of the whole identifier among the identifiers: a softmax over the tokens that can
    follow, summed over the forks, that is the depths at which paths differ. Where every identifier is one token this is
    FIRST's order; with longer ones (10 to 19 all begin with 1) each fork costs reading a token or two, not a pass.
    `prompt` ends with the answer's opener; `drop` goes with the first step.
    """
    count = len(answer.paths)
    scores = [0.0] * count
    forks = [
        (list(range(count)), 0, 0.0)
    ]  # positions whose paths agree so far, to which depth, at what log-probability
    unread, ahead = prompt, drop  # the prompt until it is read; tokens of a path that were read after it
    while forks:
        candidates, depth, score = forks.pop()
        while len(candidates) > 1 and len(_branches(answer.paths, candidates, depth)) == 1:
            depth += 1
        if len(candidates) == 1:
            scores[candidates[0]] = score
            continue
        path = answer.paths[candidates[0]][:depth]
        logits = yield Step((*unread, *path), ahead)
        unread, ahead = (), depth
        branches = _branches(answer.paths, candidates, depth)
        values = np.array([logits[token] for token in branches], np.float64)
        values -= np.logaddexp.reduce(values)
        forks += [(part, depth + 1, score + float(v)) for part, v in zip(branches.values(), values, strict=True)]
    positions = sorted(range(count), key=lambda position: -scores[position])
    return Order(tuple(positions), tuple(scores))


def reason(prompt: Tokens, answer: Answer, options: GenerationOptions) -> Decoding[Order]:
    """An order by `permute` after free reasoning. Reasoning costs tokens, and never the permutation.

    Generation ends at the token limit, at a token that ends a turn, after `</think>`, or where the model begins an
    order itself. That beginning is removed again: the order is decoded under the mask, after the reasoning.
    """
    written = yield from generate_text(prompt, options, _END_OF_REASONING)
    match = _END_OF_REASONING.search(written.text)
    text = written.text[: match.start()] if match and match[0].startswith("[") else written.text
    unread, excess = written.cut(text, options.token_bytes)
    order = yield from permute((*unread, *answer.lead), answer, drop=excess)
    return Order(order.positions, text=text.removesuffix(THINK_END).strip(), hurried=written.hurried)


def generate(prompt: Tokens, answer: Answer, options: GenerationOptions) -> Decoding[Order]:
    """An order parsed strictly from free text, as the published code does; for comparison.

    Documents that the text does not name follow the named ones in the window's order, and `problems` lists them.
    """
    text = yield from write(prompt, options, None)
    positions, problems = read_order(text, answer.names)
    missing = [position for position in range(len(answer.names)) if position not in positions]
    return Order((*positions, *missing), text=text, problems=problems)


def write(prompt: Tokens, options: GenerationOptions, stop: re.Pattern[str] | None) -> Decoding[str]:
    """Greedy text after `prompt`, up to the token limit, a token that ends a turn, or a match of `stop`."""
    return (yield from generate_text(prompt, options, stop)).text


def generate_text(prompt: Tokens, options: GenerationOptions, stop: re.Pattern[str] | None) -> Decoding[Written]:
    """Greedy text after `prompt`."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text, tokens, read, hurried = "", list[int](), 0, False
    logits = yield Step(prompt)
    start = time.perf_counter()
    while True:
        token = int(np.argmax(logits))
        if token in options.end_tokens:
            break
        tokens.append(token)
        new = decoder.decode(options.token_bytes(token))
        text += new
        if options.on_text is not None and new:
            options.on_text(new)
        # A match of `stop` is short: searching the end of the text is enough, however long the text is.
        if len(tokens) >= options.max_tokens or (stop is not None and stop.search(text[-_STOP_CHARACTERS:])):
            break
        if options.left_s is not None:
            token_s = (time.perf_counter() - start) / max(1, read)
            hurried = options.left_s() < _RESERVE * token_s * options.answer_tokens
            if hurried:
                break
        logits = yield Step((token,))
        read += 1
    return Written(text + decoder.decode(b"", final=True), tokens, read, hurried)


def tokens_within(tokens: Sequence[int], size: int, token_bytes: Callable[[int], bytes]) -> int:
    """The number of leading `tokens` that end within the first `size` bytes of their text."""
    end = 0
    for count, token in enumerate(tokens):
        end += len(token_bytes(token))
        if end > size:
            return count
    return len(tokens)


def _branches(paths: Sequence[Tokens], positions: Sequence[int], depth: int) -> dict[int, list[int]]:
    """`positions` grouped by the token that their path has at `depth`."""
    branches: dict[int, list[int]] = {}
    for position in positions:
        branches.setdefault(paths[position][depth], []).append(position)
    return branches
