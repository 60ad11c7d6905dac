"""All prompt forms by name, and the mode that each is made for. A model file names one of them (`dearlite.prompt`)."""

from __future__ import annotations

from dearlite.errors import UsageError
from dearlite.listwise.group_prompts import GROUP_FORMS
from dearlite.listwise.prompts import LIST_FORMS, ListForm, find_form
from dearlite.listwise.think_prompts import JUDGE_FORMS, THINK_FORMS, JudgeForm, ThinkForm
from dearlite.options import SORTS, ListwiseMode

FORMS: dict[str, ListForm] = {**LIST_FORMS, **THINK_FORMS, **GROUP_FORMS, **JUDGE_FORMS}
_OWN = (*SORTS, "pointwise")  # modes with forms of their own


def mode_of(name: str) -> ListwiseMode:
    """The mode that the form called `name` is made for. Raises UsageError for a name that does not exist."""
    return _find(name).mode


def writes_reasons(mode: ListwiseMode | None, prompt: str | None) -> bool:
    """True if a call of `mode` with the form `prompt` writes reasoning, False if the model file decides that."""
    thinks = prompt is not None and prompt in FORMS and FORMS[prompt].reasoning == "think"
    return thinks if mode is None or mode in SORTS else mode in ("reason", "pointwise")


def window_form(name: str, mode: ListwiseMode) -> ListForm:
    """The form called `name` for the windows of `mode`. Raises UsageError for a form that does not go with it."""
    form = _find(name)
    if form.mode in _OWN:
        instead = " in place of --mode reason or --explain" if mode == "reason" else ""
        raise UsageError(f"the prompt form {name!r} goes with --mode {form.mode}: take that mode{instead}")
    if not isinstance(form, ThinkForm):
        return find_form(name, reasoned=mode == "reason")
    if mode not in ("reason", "generate"):
        raise UsageError(
            f"the prompt form {name!r} thinks before it answers: take --mode reason, or --prompt rankgpt with --mode "
            f"{mode} for an answer without thinking"
        )
    return form


def judge_form(name: str) -> JudgeForm:
    """The form called `name` for mode pointwise. Raises UsageError for a form of another mode."""
    form = _find(name)
    if not isinstance(form, JudgeForm):
        raise UsageError(f"the prompt form {name!r} is not one of mode pointwise: take {' or '.join(JUDGE_FORMS)}")
    return form


def _find(name: str) -> ListForm:
    if name not in tuple(FORMS):
        raise UsageError(f"no listwise prompt form {name!r}: it is one of {', '.join(FORMS)}")
    return FORMS[name]
