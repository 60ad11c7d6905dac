"""How a listwise model is asked for an order: the modes, as coroutines over token ids and logits.

A mode yields a `Step` (tokens to take back, then tokens to read) and is sent the logits after the last of them,
(vocabulary,) float32, which hold until its next step. The first step is the prompt. It never sees a model, so several
can be driven together, and tests drive them with tables.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from dearlite.listwise.answers import THINK_END, read_order

Tokens = tuple[int, ...]
Result = TypeVar("Result")
# Where reasoning ends: the model says so, or begins an order of its own.
_DECIDES = re.compile(rf"{re.escape(THINK_END)}|\[\d+\]\s*>\s*\[")
_STOP_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Step:
    """What a sequence does next: its last `drop` tokens are taken back, then `tokens`, one at least, are read."""

    tokens: Tokens
    drop: int = 0


Decoding = Generator[Step, Any, Result]


@dataclass(frozen=True, slots=True)
class Order:
    """Places in the window, best first, and how they came about. Each of the window's places is there once.

    `scores` are by place: log-probabilities of the identifiers under the mask, in mode `first` only. `text` is what the
    model wrote before, or instead of, the order. `problems` say what was wrong with a written order.
    """

    places: tuple[int, ...]
    scores: tuple[float, ...] | None = None
    text: str = ""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The token ids of an answer "[2] > [1] > [3]": `paths` are each identifier up to the next one.

    A path is the identifier's digits and "] > [", so that 1 and 10 part at the latest where the first one ends. `lead`
    opens an answer after text that was written: a blank line, and "[".
    """

    lead: Tokens
    paths: tuple[Tokens, ...]
    names: tuple[str, ...]  # the identifiers as they are written


@dataclass(frozen=True, slots=True)
class Writing:
    """What free writing needs to know: a token's bytes, which tokens end it, how many are allowed, who listens."""

    piece: Callable[[int], bytes]
    ends: frozenset[int]
    max_tokens: int
    on_text: Callable[[str], None] | None = None


def permute(prompt: Tokens, answer: Answer, *, drop: int = 0) -> Decoding[Order]:
    """A full permutation, always: greedy decoding where only identifiers that are not used yet can be said.

    Tokens that are forced (the rest of an identifier, "] > [") are read together with the next real choice, and the
    last identifier, which is no choice, is not read at all. `prompt` ends with the opener; `drop` is the first step's.
    """
    places: list[int] = []
    unused = list(range(len(answer.paths)))
    said = prompt  # forced, and not read yet
    while unused:
        left, depth, read = list(unused), 0, 0
        while len(left) > 1:
            branches = _branches(answer.paths, left, depth)
            if len(branches) > 1:
                logits = yield Step((*said, *answer.paths[left[0]][read:depth]), drop)
                said, read, drop = (), depth, 0
                left = branches[max(branches, key=lambda token: float(logits[token]))]
            depth += 1
        said = (*said, *answer.paths[left[0]][read:])
        unused.remove(left[0])
        places.append(left[0])
    return Order(tuple(places))


def first(prompt: Tokens, answer: Answer) -> Decoding[Order]:
    """An order and scores out of one pass over the prompt (FIRST, arXiv 2406.15657): what the model would say first.

    A score is the log-probability of the whole identifier among the identifiers: the logits at each place where they
    part, as a softmax over the tokens that can follow there. Where every identifier is one token this is FIRST's order;
    of longer ones (10 to 19 all begin with 1) each fork costs reading a token or two, not a pass. `prompt` ends with
    the opener.
    """
    count = len(answer.paths)
    scores = [0.0] * count
    forks = [(list(range(count)), 0, 0.0)]  # places that agree so far, up to which depth, and how probable that is
    unread, ahead = prompt, 0  # of the prompt; and how many tokens of a path were read after it
    while forks:
        left, depth, score = forks.pop()
        while len(left) > 1 and len(_branches(answer.paths, left, depth)) == 1:
            depth += 1
        if len(left) == 1:
            scores[left[0]] = score
            continue
        path = answer.paths[left[0]][:depth]
        logits = yield Step((*unread, *path), ahead)
        unread, ahead = (), depth
        branches = _branches(answer.paths, left, depth)
        values = np.array([logits[token] for token in branches], np.float64)
        values -= np.logaddexp.reduce(values)
        forks += [(part, depth + 1, score + float(v)) for part, v in zip(branches.values(), values, strict=True)]
    places = sorted(range(count), key=lambda place: -scores[place])
    return Order(tuple(places), tuple(scores))


def reason(prompt: Tokens, answer: Answer, writing: Writing) -> Decoding[Order]:
    """The model writes first, `permute` decides then: reasons cost tokens, and never the permutation.

    Writing ends at the budget, at a token that ends a turn, after `</think>`, or where the model begins an order of its
    own, which is taken back: the order is asked for under the mask, in the light of what was written.
    """
    text, tokens, read = yield from _write(prompt, writing, _DECIDES)
    match = _DECIDES.search(text)
    cut = match.start() if match and match[0].startswith("[") else len(text)
    kept = _tokens_within(tokens, len(text[:cut].encode()), writing.piece)
    unread = tokens[read:kept]  # the last token was chosen, and perhaps not read
    order = yield from permute((*unread, *answer.lead), answer, drop=max(0, read - kept))
    return Order(order.places, text=text[:cut].removesuffix(THINK_END).strip())


def generate(prompt: Tokens, answer: Answer, writing: Writing) -> Decoding[Order]:
    """The published way, for comparison: free writing, and a strict reading of it.

    What the text does not name keeps the window's order after what it names, and `problems` says so.
    """
    text, _, _ = yield from _write(prompt, writing, None)
    places, problems = read_order(text, answer.names)
    missing = [place for place in range(len(answer.names)) if place not in places]
    return Order((*places, *missing), text=text, problems=problems)


def _write(prompt: Tokens, writing: Writing, stop: re.Pattern[str] | None) -> Decoding[tuple[str, list[int], int]]:
    """Greedy text after `prompt`: the text, its tokens, and how many of these were read."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text, tokens, read = "", list[int](), 0
    logits = yield Step(prompt)
    while True:
        token = int(np.argmax(logits))
        if token in writing.ends:
            break
        tokens.append(token)
        new = decoder.decode(writing.piece(token))
        text += new
        if writing.on_text is not None and new:
            writing.on_text(new)
        # The stop needs little text before it: a look at the end is enough, however long the text is.
        if len(tokens) >= writing.max_tokens or (stop is not None and stop.search(text[-_STOP_CHARACTERS:])):
            break
        logits = yield Step((token,))
        read += 1
    return text + decoder.decode(b"", final=True), tokens, read


def _tokens_within(tokens: Sequence[int], size: int, piece: Callable[[int], bytes]) -> int:
    """How many of the first `tokens` lie wholly within the first `size` bytes of their text."""
    end = 0
    for count, token in enumerate(tokens):
        end += len(piece(token))
        if end > size:
            return count
    return len(tokens)


def _branches(paths: Sequence[Tokens], left: Sequence[int], depth: int) -> dict[int, list[int]]:
    """The places in `left` by the token that their path has at `depth`."""
    branches: dict[int, list[int]] = {}
    for place in left:
        branches.setdefault(paths[place][depth], []).append(place)
    return branches
