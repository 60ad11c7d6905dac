"""Decodings that write their reasoning in <think> tags first, and always end in a readable answer.

Whatever the model wrote, its thinking is closed for it, and the answer is decoded under a mask.
"""

from __future__ import annotations

import re

from dearlite.listwise.answers import THINK_END
from dearlite.listwise.decoding import (
    Answer,
    Decoding,
    GenerationOptions,
    Order,
    Tokens,
    first,
    generate_text,
    permute,
)

THINK_START = "<think>"
ANSWER = "<answer>"
_END_OF_THINKING = re.compile(re.escape(THINK_END))
_END_OR_ANSWER = re.compile(f"{THINK_END}|{ANSWER}")
_SENTENCE_ENDS = (".", "!", "?")


def think(prompt: Tokens, answer: Answer, options: GenerationOptions, *, picks: bool) -> Decoding[Order]:
    """`permute`, or with `picks` `first`, after thinking: it ends at </think>, a turn's end, the limit or an answer.

    `answer.lead` follows </think>, and `answer.closing`, which has this tag, any other end. An answer that the model
    began itself is removed.
    """
    written = yield from generate_text(prompt, options, _END_OR_ANSWER)
    match = _END_OR_ANSWER.search(written.text)
    closed = match is not None and match[0] == THINK_END
    text = written.text if closed or match is None else written.text[: match.start()]
    unread, excess = written.cut(text, options.token_bytes)
    decide = first if picks else permute
    order = yield from decide((*unread, *(answer.lead if closed else answer.closing)), answer, drop=excess)
    return Order(order.positions, order.scores, thought(text), hurried=written.hurried)


def judge(prompt: Tokens, answer: Answer, options: GenerationOptions) -> Decoding[Order]:
    """`first` of the answers after thinking: P(true) of Rank1 (arXiv 2502.18418) is exp(`scores[0]`).

    Thinking that does not end at </think> is cut behind its last sentence, as its authors do, and closed.
    """
    written = yield from generate_text(prompt, options, _END_OF_THINKING)
    match = _END_OF_THINKING.search(written.text)
    if match is not None and match.end() == len(written.text):
        text, closing = written.text, answer.lead
    else:  # never closed, or in a token that goes on behind the tag
        text = _whole_sentences(written.text) if match is None else written.text[: match.start()].rstrip()
        closing = answer.closing
    unread, excess = written.cut(text, options.token_bytes)
    order = yield from first((*unread, *closing), answer, drop=excess)
    return Order(order.positions, order.scores, thought(text), hurried=written.hurried)


def thought(text: str) -> str:
    """The thinking in `text`, without its tags."""
    return text.strip().removesuffix(THINK_END).strip().removeprefix(THINK_START).strip()


def _whole_sentences(text: str) -> str:
    """`text` up to its last sentence's end; all of it if it has none."""
    end = max(text.rfind(mark) for mark in _SENTENCE_ENDS)
    return text[: end + 1] if end >= 0 else text.rstrip()
