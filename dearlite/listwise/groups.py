"""Prompts of comparisons as token ids, and the coroutine that reads one after another in the same sequence.

Comparisons of a query begin alike. What the next prompt has in common with the tokens that are in the sequence stays
there, and only the rest is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dearlite.errors import ModelFileError, UsageError
from dearlite.listwise.answers import THINK_END
from dearlite.listwise.decoding import (
    Answer,
    Decoding,
    GenerationOptions,
    Order,
    Result,
    Step,
    Tokens,
    first,
    generate_text,
    tokens_within,
)
from dearlite.listwise.group_prompts import GroupForm
from dearlite.listwise.tokens import Passage, PromptEncoder, Vocabulary, WindowPrompt
from dearlite.templates.chat import ChatTemplate

_ANSWER = "<answer>"
_END_OF_THINKING = re.compile(f"{THINK_END}|{_ANSWER}")


class GroupEncoder(PromptEncoder):
    """Encodes the prompts of comparisons for one model."""

    form: GroupForm
    _unit, _size_option = "group", "--group-size"

    def __init__(self, vocabulary: Vocabulary, form: GroupForm, template: ChatTemplate | None) -> None:
        """`template` is the model's chat template. Raises ModelFileError if neither it nor a frame of `form` exists."""
        if form.frame is None and template is None:
            raise ModelFileError(
                "the model file has no chat template, which this prompt form needs: take --prompt setwise"
            )
        super().__init__(vocabulary, form, template)
        self._ending = self._vocabulary.encode_after("", f" {_ANSWER}[")
        self._closing = self._vocabulary.encode_after("", f" {THINK_END} {_ANSWER}[")

    def compare(self, query: str, passages: Sequence[Passage], room: int) -> WindowPrompt:
        """The prompt of one comparison of at most `room` tokens. Raises as `encode`."""
        return self.encode(query, passages, room=room, reasoned=False, opened=not self.form.thinks)

    def answer_tokens(self, count: int) -> int:
        """The most tokens that are read after the prompt of `count` passages, without the reasoning."""
        return len(self._closing) + max(map(len, self.answer(count).paths))

    def decide(self, prompt: Tokens, count: int, generation: GenerationOptions) -> Decoding[Order]:
        """The decoding of one comparison: the order of the labels by their probability, after reasoning if `thinks`."""
        if self.form.thinks:
            return think(prompt, self.answer(count), generation, self._closing)
        return first(prompt, self.answer(count))

    def _encode_answer(self, count: int) -> Answer:
        """The labels' tokens. Raises ModelFileError unless they part, so that no label is the beginning of another."""
        names, closer = self.form.identifiers(count), self.form.closer
        start = "" if self.form.opener.endswith("[") else " "
        texts = [f"{start}{name}{closer}" for name in names]
        paths = [self._vocabulary.encode_after(self.form.opener[-1:], text) for text in texts]
        readable = [
            b"".join(map(self._vocabulary.token_bytes, path)) == text.encode()
            for path, text in zip(paths, texts, strict=True)
        ]
        alike = any(a != b and a == b[: len(a)] for a in paths for b in paths) or len(set(paths)) < count
        if not all(readable) or alike:
            raise ModelFileError(
                f"the model's tokenizer cannot tell {count} labels apart, from {names[0]} to {names[-1]}: take a "
                "smaller --group-size or another --prompt"
            )
        return Answer(self._ending, tuple(paths), tuple(names))

    @property
    def _opener(self) -> str:
        return self.form.opener


def think(prompt: Tokens, answer: Answer, generation: GenerationOptions, closing: Tokens) -> Decoding[Order]:
    """`first` after free reasoning, which ends at </think>, where an answer begins, at a turn's end, or at the limit.

    Whatever the model wrote, the tags are closed and the label is decoded under the mask: `answer.lead` follows
    </think>, and `closing`, which has this tag, any other end. An answer that the model began itself is removed.
    """
    text, tokens, read = yield from generate_text(prompt, generation, _END_OF_THINKING)
    match = _END_OF_THINKING.search(text)
    closed = match is not None and match[0] == THINK_END
    cut = match.start() if match is not None and not closed else len(text)
    kept = tokens_within(tokens, len(text[:cut].encode()), generation.token_bytes)
    lead = answer.lead if closed else closing
    order = yield from first((*tokens[read:kept], *lead), answer, drop=max(0, read - kept))
    thought = text[:cut].removesuffix(THINK_END).strip().removeprefix("<think>").strip()
    return Order(order.positions, order.scores, text=thought)


def continued(decoding: Decoding[Result], held: list[int]) -> Decoding[Result]:
    """`decoding`, whose first step is a whole prompt, in a sequence with the tokens `held`.

    Of the prompt, the tokens that it has in common with `held` are not read again. `held` is changed with the sequence.
    """
    step = next(decoding)
    shared = 0
    for a, b in zip(held, step.tokens[:-1], strict=False):  # one token at least is read, for its logits
        if a != b:
            break
        shared += 1
    step = Step(step.tokens[shared:], len(held) - shared)
    while True:
        logits = yield step
        if step.drop:
            del held[-step.drop :]
        held += step.tokens
        try:
            step = decoding.send(logits)
        except StopIteration as end:
            result: Result = end.value
            return result


def check_reasoning(form: GroupForm, changed: bool, name: str) -> None:
    """Raises UsageError if the number of reasoning tokens is `changed` for a form that asks for no reasoning."""
    if changed and not form.thinks:
        raise UsageError(
            f"the prompt form {name!r} asks for no reasoning: leave out --reasoning-tokens, or take rank-r1"
        )
