"""The encoders of prompt forms for one loaded model, each made once."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

from dearlite.errors import ModelFileError
from dearlite.listwise.answers import THINK_END
from dearlite.listwise.decoding import Answer
from dearlite.listwise.forms import judge_form, window_form
from dearlite.listwise.group_prompts import GroupForm, find_group_form
from dearlite.listwise.groups import GroupEncoder, check_reasoning, form_for
from dearlite.listwise.prompts import ListForm
from dearlite.listwise.settings import ModelSettings
from dearlite.listwise.think_prompts import JUDGE_FORMS, JudgeForm, ThinkForm
from dearlite.listwise.tokens import Passage, PromptEncoder, WindowPrompt, labels_part
from dearlite.options import DEFAULT_REASONING_TOKENS, Listwise, ListwiseMode
from dearlite.templates.chat import ChatTemplate


class ThinkEncoder(PromptEncoder):
    """Encodes prompts of windows for a model that thinks first."""

    form: ThinkForm

    def _encode_answer(self, count: int) -> Answer:
        opener = self.form.opener
        return replace(
            super()._encode_answer(count), lead=self.words(opener), closing=self.words(f" {THINK_END}{opener}")
        )


class JudgeEncoder(PromptEncoder):
    """Encodes prompts about single documents, and the two answers."""

    form: JudgeForm
    _unit = "prompt"

    def judged(self, query: str, passage: Passage, room: int) -> WindowPrompt:
        """The prompt about one document, of at most `room` tokens. Raises as `encode`."""
        return self.encode(query, [passage], room=room, reasoned=True, opened=False)

    def _encode_answer(self, count: int) -> Answer:
        """The answers' tokens, for one document. Raises ModelFileError unless they part."""
        texts = self.form.answers
        paths = [self._vocabulary.encode_after(">", text) for text in texts]
        if not labels_part(self._vocabulary, paths, texts):
            raise ModelFileError(
                f"the model's tokenizer cannot tell {' and '.join(map(repr, texts))} apart: take another --prompt"
            )
        return Answer((), tuple(paths), texts, self.words(self.form.closing))


class Encoders:
    """The encoders of one model. `template` is the source of its chat template, None without one."""

    def __init__(self, vocabulary: Any, settings: ModelSettings, template: str | None) -> None:
        self._vocabulary, self._settings, self._source = vocabulary, settings, template
        self._made: dict[ListForm, PromptEncoder] = {}

    def find(self, options: Listwise) -> tuple[str, PromptEncoder]:
        """The name and the encoder of the prompt form for `options`. Raises UsageError for a form of another mode."""
        assert options.mode is not None, "checked"
        name, form = self._form(options, options.mode)
        if form not in self._made:
            # A template is read for the forms that need it: one that cannot be read does not stop the others.
            template = self.template if form.frame is None else None
            self._made[form] = _ENCODERS[type(form)](self._vocabulary, form, template)
        return name, self._made[form]

    @cached_property
    def template(self) -> ChatTemplate | None:
        """The model's chat template; None for a file without one. Raises ModelFileError if it cannot be read."""
        return ChatTemplate(self._source, self._vocabulary.template_tokens) if self._source else None

    def _form(self, options: Listwise, mode: ListwiseMode) -> tuple[str, ListForm]:
        settings = self._settings
        if options.sorts:
            name, group = find_group_form(options, settings.prompt)
            check_reasoning(group, options.reasoning_tokens != DEFAULT_REASONING_TOKENS, name)
            return name, form_for(group, bool(self._source))
        if mode == "pointwise":
            name = options.prompt or (settings.prompt if settings.prompt in JUDGE_FORMS else next(iter(JUDGE_FORMS)))
            return name, judge_form(name)
        name = options.prompt or settings.prompt
        form = window_form(name, mode)
        if settings.identifiers_from is not None and name == settings.prompt and mode != "reason":
            form = replace(form, identifiers_from=settings.identifiers_from)
        return name, form


_ENCODERS: dict[type[ListForm], type[PromptEncoder]] = {
    ListForm: PromptEncoder,
    ThinkForm: ThinkEncoder,
    GroupForm: GroupEncoder,
    JudgeForm: JudgeEncoder,
}
