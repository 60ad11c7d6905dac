"""The modes of a listwise model that order windows, and the ways of those that sort, as tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from dearlite.listwise.decoding import (
    Answer,
    Decoding,
    GenerationOptions,
    Order,
    Tokens,
    first,
    generate,
    permute,
    reason,
)
from dearlite.listwise.prompts import ListForm
from dearlite.listwise.sorts import PAIRWISE_SORTS, SETWISE_SORTS, Sort
from dearlite.listwise.think_prompts import ThinkForm
from dearlite.listwise.thinking import think
from dearlite.options import Listwise, ListwiseMode


@dataclass(frozen=True, slots=True)
class Mode:
    """A decoding mode of a listwise model."""

    reasoned: bool  # True if the prompt asks for reasoning
    opened: bool  # True if the prompt ends with the answer's "["
    decode: Callable[[Tokens, Answer, GenerationOptions], Decoding[Order]]


MODES: dict[str, Mode] = {
    "permute": Mode(False, True, lambda prompt, answer, _: permute(prompt, answer)),
    "first": Mode(False, True, lambda prompt, answer, _: first(prompt, answer)),
    "reason": Mode(True, False, reason),
    "generate": Mode(False, False, generate),
}
SORTING_MODES: dict[ListwiseMode, dict[str, Sort]] = {"setwise": SETWISE_SORTS, "pairwise": PAIRWISE_SORTS}


def decode_of(name: str, form: ListForm) -> Callable[[Tokens, Answer, GenerationOptions], Decoding[Order]]:
    """The decoding of a window in the mode `name` with the prompt `form`."""
    if name == "reason" and isinstance(form, ThinkForm):
        return partial(think, picks=False)
    return MODES[name].decode


def fields_of(options: Listwise) -> tuple[str, ...]:
    """The fields of `options` that decide an order, beside the prompt form: of the mode's windows, or of its sort."""
    own = ("sort", "sort_k", "group_size") if options.sorts else ("window", "stride") if options.has_windows else ()
    return ("mode", *own, "passage_tokens", "reasoning_tokens", "passes")
