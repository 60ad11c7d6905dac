"""Prompts of comparisons as token ids, and the coroutine that reads one after another in the same sequence.

Comparisons of a query begin alike. What the next prompt has in common with the tokens that are in the sequence stays
there, and only the rest is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dearlite.errors import ModelFileError, UsageError
from dearlite.listwise.answers import THINK_END
from dearlite.listwise.decoding import Answer, Decoding, GenerationOptions, Order, Result, Step, Tokens, first
from dearlite.listwise.group_prompts import GroupForm
from dearlite.listwise.thinking import ANSWER, think
from dearlite.listwise.tokens import Passage, PromptEncoder, Vocabulary, WindowPrompt, labels_part
from dearlite.templates.chat import ChatTemplate


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
        self._lead = self.words(f" {ANSWER}[")
        self._closing = self.words(f" {THINK_END} {ANSWER}[")

    def compare(self, query: str, passages: Sequence[Passage], room: int) -> WindowPrompt:
        """The prompt of one comparison of at most `room` tokens. Raises as `encode`."""
        return self.encode(query, passages, room=room, reasoned=False, opened=not self.form.thinks)

    def _remedy(self, count: int, reasoned: bool) -> str:
        return super()._remedy(count, self.form.thinks)

    def answer_tokens(self, count: int) -> int:
        """The most tokens that are read after the prompt of `count` passages, without the reasoning."""
        answer = self.answer(count)
        return max(len(answer.lead), len(answer.closing)) + max(map(len, answer.paths))

    def decide(self, prompt: Tokens, count: int, generation: GenerationOptions) -> Decoding[Order]:
        """The decoding of one comparison: the order of the labels by their probability, after reasoning if `thinks`."""
        if self.form.thinks:
            return think(prompt, self.answer(count), generation, picks=True)
        return first(prompt, self.answer(count))

    def _encode_answer(self, count: int) -> Answer:
        """The labels' tokens. Raises ModelFileError unless they part, so that no label is the beginning of another."""
        names, closer = self.form.identifiers(count), self.form.closer
        start = "" if self.form.opener.endswith("[") else " "
        texts = [f"{start}{name}{closer}" for name in names]
        paths = [self._vocabulary.encode_after(self.form.opener[-1:], text) for text in texts]
        if not labels_part(self._vocabulary, paths, texts):
            raise ModelFileError(
                f"the model's tokenizer cannot tell {count} labels apart, from {names[0]} to {names[-1]}: take a "
                "smaller --group-size or another --prompt"
            )
        return Answer(self._lead, tuple(paths), tuple(names), self._closing)

    @property
    def _opener(self) -> str:
        return self.form.opener


def continued(decoding: Decoding[Result], held: list[int], *, afresh: bool = False) -> Decoding[Result]:
    """`decoding`, whose first step is a whole prompt, in a sequence with the tokens `held`.

    Of the prompt, the tokens that it has in common with `held` are not read again, unless
    `afresh`. `held` is changed with the sequence.
    """
    step = next(decoding)
    shared = 0
    for a, b in zip(
        [] if afresh else held, step.tokens[:-1], strict=False
    ):  # one token at least is read, for its logits
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


def form_for(form: GroupForm, has_template: bool) -> GroupForm:
    """`form`; for a model without a chat template, its only turn as plain text, if it has but one."""
    return form if has_template or len(form.head) > 1 else replace(form, frame="{user}")
