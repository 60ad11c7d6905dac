"""A chain of models as it is written, `minilm-l12:100` and then `dear-8b-listwise:30`.

What can be told before a model is loaded is told here: whether the files are there, and whether one stage can follow
another.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dearlite.errors import MissingExtra, ModelFileError, UsageError
from dearlite.models.formats import runner_of
from dearlite.models.registry import find_cascade, find_model

if TYPE_CHECKING:
    from dearlite.models.manifest import Manifest
    from dearlite.options import Long

DEFAULT_HEAD = 30  # what a later stage gets where nothing is said: DeAR's listwise stage reads the best 30


@dataclass(frozen=True, slots=True)
class Stage:
    """One model of a chain: a name of models.toml or a file, and how many documents it gets; None is all."""

    model: str
    depth: int | None = None


StageLike = str | Path | tuple[str | Path, int | None]


def parse_stage(given: StageLike) -> Stage:
    """A Stage out of `NAME`, `NAME:DEPTH` or (name, depth). Raises UsageError for a depth that is none.

    Example: "minilm-l12:100" -> Stage("minilm-l12", 100); a colon that no digits follow belongs to the name.
    """
    if isinstance(given, tuple):
        if len(given) != 2:
            raise UsageError(f"a stage is a model, or (model, depth): {given!r} is neither")
        model, depth = str(given[0]), given[1]
    else:
        model, colon, after = str(given).rpartition(":")
        number = after.removeprefix("-")
        if colon and model and number.isascii() and number.isdecimal() and not Path(given).is_file():
            depth = int(after)
        else:
            model, depth = str(given), None
    if depth is not None and (not isinstance(depth, int) or isinstance(depth, bool) or depth < 1):
        raise UsageError(f"stage {model} has depth {depth}: it is a whole number from 1, or none for all")
    return Stage(model, depth)


def parse_chain(given: Sequence[StageLike]) -> tuple[Stage, ...]:
    """The stages that are named; one name of a cascade in models.toml stands for its own.

    Where a later stage has no depth it gets the best 30, or as many as the stage before. Raises UsageError for a depth
    that is larger than the one before, and for a cascade within a chain.
    """
    if not given:
        raise UsageError("a chain needs a model: name one")
    stages = [parse_stage(one) for one in given]
    if len(stages) == 1 and (named := find_cascade(stages[0].model)) is not None:
        if stages[0].depth is not None:
            raise UsageError(f"{stages[0].model} is a cascade and has depths of its own: leave out :{stages[0].depth}")
        stages = [parse_stage(one) for one in named]
    whole = [stages[0]]
    for stage in stages[1:]:
        before = whole[-1].depth
        depth = stage.depth if stage.depth is not None else min(DEFAULT_HEAD, before or DEFAULT_HEAD)
        if before is not None and depth > before:
            raise UsageError(
                f"stage {stage.model} has depth {depth} and the one before it only {before}: "
                "a later stage gets a part of what the one before it ranked"
            )
        whole.append(Stage(stage.model, depth))
    for stage in whole if len(whole) > 1 else ():
        if find_cascade(stage.model) is not None:
            raise UsageError(f"{stage.model} is a cascade itself: write its stages out, or give it alone")
    return tuple(whole)


def check_chain(stages: Sequence[Stage], *, best_effort: bool = False) -> tuple[str, ...]:
    """Each stage's kind, "pointwise" or "listwise"; no model is loaded.

    Raises UsageError for a file that is missing or a pointwise stage after a listwise one, MissingExtra for a package
    that is not installed. With `best_effort` only the first stage has to be there; what is missing has kind "".
    """
    kinds = []
    for place, stage in enumerate(stages):
        try:
            runner = runner_of(find_model(stage.model))
            if importlib.util.find_spec(runner.package) is None:
                raise MissingExtra(
                    f"stage {stage.model} needs {runner.package}: pip install 'dearlite[{runner.extra}]'"
                )
            kind = runner.kind
        except (UsageError, ModelFileError, MissingExtra):
            if not (best_effort and place):
                raise
            kind = ""
        if kind == "pointwise" and "listwise" in kinds:
            raise UsageError(
                f"stage {stage.model} is pointwise and follows a listwise one, whose order its scores would undo: "
                "put the listwise stages last"
            )
        kinds.append(kind)
    return tuple(kinds)


def check_models(
    given: Sequence[StageLike], *, best_effort: bool = False, calibrated: bool = False, long: Long | None = None
) -> None:
    """Tells whatever `Reranker.load` and `rerank` would refuse of these models before one is loaded.

    With `calibrated` some stage has to turn its scores into probabilities.
    """
    stages = parse_chain(given)
    if len(stages) == 1:
        find_model(stages[0].model)
    else:
        check_chain(stages, best_effort=best_effort)
    if not calibrated and (long is None or long.passage_tokens is None):
        return
    manifests = list(_manifests(stages))
    if calibrated and manifests and all(one.calibration is None for one in manifests):
        names = " and ".join(one.name for one in manifests)
        raise UsageError(f"{names} carries no calibration, which --min-relevance needs: dearlite models calibrate")
    if long is not None and long.passage_tokens is not None and manifests:
        window = manifests[0].max_tokens
        if long.passage_tokens >= window:
            raise UsageError(
                f"passages of {long.passage_tokens} tokens are longer than the {window} that {manifests[0].name} reads "
                "with a query: take fewer"
            )


def _manifests(stages: Sequence[Stage]) -> Iterator[Manifest]:
    """Those of the pointwise stages whose files are there and whole."""
    from dearlite.models.bundle import Bundle

    for stage in stages:
        with suppress(UsageError, ModelFileError):
            path = find_model(stage.model)
            if runner_of(path).kind == "pointwise":
                yield Bundle(path).manifest
