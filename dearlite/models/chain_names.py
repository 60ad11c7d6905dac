"""The stages of a chain as they are written: `NAME:DEPTH`, (name, depth), and the named cascades of models.toml."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dearlite.checks import whole_number
from dearlite.errors import UsageError
from dearlite.models.registry import find_cascade, is_registered, load_lexical, registered_name

DEFAULT_HEAD = 30  # depth of a later stage without one: DeAR's listwise stage reads the best 30
DEFAULT_FOUND = 100  # documents that a lexical stage passes on, if it does not say: as in most papers on reranking

StageLike = str | Path | tuple[str | Path, int | None]


_LONGEST = 20  # digits of a depth: Python refuses to read a number of thousands


@dataclass(frozen=True, slots=True)
class Stage:
    """One model of a chain as it is written: a name of models.toml or a file, and its depth; None is all documents."""

    model: str
    depth: int | None = None


def parse_stage(text: StageLike) -> Stage:
    """A Stage from `NAME`, `NAME:DEPTH` or (name, depth). Raises UsageError for a depth that is not a whole number.

    An alias of a registered model, and its repository at the Hub, become its name.
    Example: "minilm-l12:100" -> Stage("minilm-l12", 100). A colon without digits after it belongs to the name,
    unless what is before it is registered.
    """
    if isinstance(text, tuple):
        if len(text) != 2:
            raise UsageError(f"a stage is a model, or (model, depth): {text!r} is neither")
        model, depth = str(text[0]), text[1]
    else:
        head, colon, after = str(text).rpartition(":")
        number = after.removeprefix("-")
        if (
            colon
            and head
            and number.isascii()
            and number.isdecimal()
            and len(number) < _LONGEST
            and not os.path.isfile(text)
        ):
            model, depth = head, int(after)
        else:
            model, depth = str(text), None
            if colon and is_registered(head) and not os.path.isfile(text):
                raise UsageError(f"the depth of stage {head} is {after!r}: it must be a whole number from 1")
    if depth is not None:
        depth = whole_number(f"the depth of stage {model}", depth, otherwise=", or None for all")
    return Stage(registered_name(model), depth)


def parse_chain(names: Sequence[StageLike]) -> tuple[Stage, ...]:
    """The stages of a chain; a single name of a cascade in models.toml is replaced by its stages.

    A later stage without a depth gets the best 30 documents, or as many as the stage before it. A lexical stage gets
    all documents; its depth, 100 without one, is that of the stage after it. Raises UsageError for a depth larger than
    the one before, and for a cascade within a chain.
    """
    if not names:
        raise UsageError("a chain needs a model: name one")
    stages = [parse_stage(name) for name in names]
    if len(stages) == 1 and (cascade := find_cascade(stages[0].model)) is not None:
        if stages[0].depth is not None:
            raise UsageError(f"{stages[0].model} is a cascade and has depths of its own: leave out :{stages[0].depth}")
        stages = [parse_stage(name) for name in cascade]
    stages, passed_on = _with_passed_on(stages)
    with_depths = [stages[0]]
    for stage in stages[1:]:
        before = with_depths[-1].depth or passed_on
        depth = stage.depth if stage.depth is not None else min(DEFAULT_HEAD, before or DEFAULT_HEAD)
        if before is not None and depth > before:
            raise UsageError(
                f"stage {stage.model} has depth {depth} and the one before it only {before}: "
                "a later stage gets a part of what the one before it ranked"
            )
        with_depths.append(Stage(stage.model, depth))
    for stage in with_depths if len(with_depths) > 1 else ():
        if find_cascade(stage.model) is not None:
            raise UsageError(f"{stage.model} is a cascade itself: write its stages out, or give it alone")
    return tuple(with_depths)


def _with_passed_on(stages: list[Stage]) -> tuple[list[Stage], int | None]:
    """`stages` with the depth of a lexical stage at the one after it, and this number; None without a lexical stage."""
    first, *others = stages
    if first.model not in load_lexical():
        return stages, None
    if not others:
        if first.depth is not None:
            raise UsageError(
                f"{first.model}:{first.depth} passes {first.depth} documents on, and no stage follows: name a model "
                f"after it, or leave :{first.depth} out"
            )
        return stages, None
    if len(others) == 1 and (cascade := find_cascade(others[0].model)) is not None:
        others = [parse_stage(name) for name in cascade]
    second = others[0]
    passed_on = first.depth or second.depth or DEFAULT_FOUND
    others[0] = Stage(second.model, passed_on if second.depth is None else second.depth)
    return [Stage(first.model), *others], passed_on
