"""The template of one model of a family: the table's words, with the model's own chat template, specials and limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from dearlite.errors import ModelFileError
from dearlite.templates.chat import ChatTemplate, Turn
from dearlite.templates.encoder import TemplateEncoder
from dearlite.templates.families import FAMILIES, Family
from dearlite.templates.template import Template, escaped, pieces_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWords:
    """The parts of a template that are the model's: `encode` makes ids without special tokens, `special` maps those.

    `chat` is its chat template, if it has one. `around` are the special tokens that its tokenizer puts before and after
    a text, as words. `positions` is the longest prompt that it was trained for, `hidden` its width.
    """

    encode: Callable[[str], list[int]]
    special: Mapping[str, int]
    chat: ChatTemplate | None = None
    around: tuple[str, str] = ("", "")
    positions: int | None = None
    hidden: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """A template, the limit of a prompt in tokens, and the makers' map from score to probability, if they have one."""

    template: Template
    max_tokens: int
    activation: dict[str, float] | None


def assemble(name: str, model: ModelWords, *, max_tokens: int | None = None) -> Assembled:
    """The template of a model of the family `name`; `max_tokens` replaces the makers' limit.

    Raises ModelFileError for a family that needs a chat template where the model has none.
    """
    family = FAMILIES[name]
    parts, instructed = _words(name, family, model)
    template = Template(parts=parts, instructed=instructed, instruction=family.instruction)
    outside = _tokens_outside_texts(template, model) if family.counts_texts else 0
    total = max_tokens or family.max_tokens + outside
    total = total if model.positions is None else min(total, model.positions)
    if family.query_share is not None:
        part, whole = family.query_share
        template = replace(template, max_query_tokens=(total - outside) * part // whole)
    activation = {"scale": family.scale, "bias": family.bias(model.hidden)} if family.scale else None
    return Assembled(template=template, max_tokens=total, activation=activation)


def _words(name: str, family: Family, model: ModelWords) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The parts of a prompt without and with an instruction."""
    if family.chat and model.chat is not None:
        turns = (family.chat, family.chat_instructed)
        parts, instructed = (rendered(model.chat, (("user", text),)) if text else () for text in turns)
    elif family.likelihood:
        parts, instructed = _within((model.around[0], ""), (family.chat,)), ()
    elif family.chat:
        raise ModelFileError(f"it has no chat template, which --prompt {name} needs: name another prompt")
    else:
        parts, instructed = family.parts, family.instructed
    if family.own_specials:
        parts, instructed = (_within(model.around, words) for words in (parts, instructed))
    return ((*parts, "{query}") if family.likelihood else parts), instructed


def rendered(chat: ChatTemplate, turns: Sequence[Turn]) -> tuple[str, ...]:
    """The words that the chat template puts around the turns, whose texts have the slots, as one part."""
    return ("".join(escaped(part.text) if part.special else part.text for part in chat.parts(turns)),)


def _within(around: tuple[str, str], parts: tuple[str, ...]) -> tuple[str, ...]:
    if not parts:
        return parts
    before, after = map(escaped, around)
    words = (before + parts[0], *parts[1:])
    return (*words[:-1], words[-1] + after)


def _tokens_outside_texts(template: Template, model: ModelWords) -> int:
    """The number of tokens of the parts before the first slot's and after the last slot's."""
    slots = [number for number, part in enumerate(template.parts) if any(slot for _, slot in pieces_of(part))]
    outside = (*template.parts[: slots[0]], *template.parts[slots[-1] + 1 :])
    empty = Template(parts=(*outside, "{query}{document}"))
    return TemplateEncoder(empty, model.encode, model.special, max_tokens=2**31).fixed
