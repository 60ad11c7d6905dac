"""Loads what `models.chain.resolve` found. The classes are imported by the names in `models.formats`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from threading import RLock
from types import MappingProxyType
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from dearlite.errors import UsageError
from dearlite.models.chain import Model, ResolvedStage, resolve
from dearlite.models.formats import CASCADE
from dearlite.models.registry import find_model

# option -> the models that take it
GOES_WITH = {
    "gpu_layers": "a model in a GGUF",
    "adapter": "a listwise model",
    "instruction": "a model whose prompt has a place for it",
    "prompt": "a language model in a GGUF that states no score of its own",
    "language": "a ranking by words, as bm25",
}
_ONE_MODEL = {"low_memory": False, "best_effort": False, "adaptive": False}


def load(
    model: Model,
    options: Mapping[str, Any],
    listwise: Mapping[str, Any],
    cascade: Mapping[str, bool],
    pointwise: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """The Reranker for `model`: `listwise` and `pointwise` are options of such models, `cascade` those of cascades.

    Raises UsageError for an option that does not apply to the model, and what `resolve` and the classes raise.
    """
    chain = resolve(model, best_effort=cascade["best_effort"], prompt=pointwise.get("prompt"))
    listwise = {name: value for name, value in listwise.items() if value is not None}
    pointwise = {name: value for name, value in pointwise.items() if value is not None}
    own = {**listwise, **pointwise}
    taken = {name for stage in chain.stages if stage.runner is not None for name in stage.runner.options}
    unused = [name for name in own if name not in taken]
    verb, them = ("goes", "it") if len(unused) == 1 else ("go", "them")
    if "instruction" in own:
        chain.check_instruction()
    if not chain.cascade:
        (stage,) = chain.stages
        if unused:
            raise UsageError(
                f"{' and '.join(unused)} {verb} with {GOES_WITH[unused[-1]]}, and {stage.name} is {stage.kind}: leave "
                f"{them} out"
            )
        if unused := [name for name, value in cascade.items() if value]:
            raise UsageError(f"{' and '.join(unused)}: an option of cascades, and {stage.name} is one model: name two")
        return _load(stage, options, _own(stage, own))
    if unused:
        raise UsageError(
            f"{' and '.join(unused)} {verb} with {GOES_WITH[unused[-1]]}, and no stage is one: leave {them} out"
        )
    loaded: WeakValueDictionary[Path, Any] = WeakValueDictionary()  # a file in two stages is loaded once
    links = [
        (
            stage.name,
            stage.depth,
            stage.kind,
            _loader(stage, loaded, options, _own(stage, own)),
        )
        for stage in chain.stages
    ]
    module, name = CASCADE
    reranker = getattr(import_module(module), name).of(links, **cascade)
    stages = [(lasting_name(stage.model), stage.depth) for stage in chain.stages]
    if (adapter := listwise.get("adapter")) is not None:
        listwise["adapter"] = lasting_name(adapter)
    reranker.recipe = Recipe(stages, options, listwise, cascade, pointwise)
    return reranker


@dataclass(frozen=True, slots=True)
class Recipe:
    """The arguments of `load` for a Reranker. It is pickled in place of the model, and loads it again.

    `key` identifies the arguments and the files as they are now.
    """

    model: str | Sequence[tuple[str, int | None]]
    options: Mapping[str, Any]
    listwise: Mapping[str, Any] = field(default_factory=dict)
    cascade: Mapping[str, bool] = field(default_factory=dict)
    pointwise: Mapping[str, Any] = field(default_factory=dict)
    key: tuple[object, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = [self.model] if isinstance(self.model, str) else [name for name, _ in self.model]
        files = [*names, *filter(None, [self.listwise.get("adapter")])]
        object.__setattr__(self, "key", (repr(self), *map(_state_of_file, files)))

    def __reduce__(self) -> Any:
        return Recipe, (self.model, self.options, self.listwise, self.cascade, self.pointwise)

    def load(self) -> Any:
        """A Reranker like the one that this recipe is of. It shares the model of one that is open in this process.

        A process started by multiprocessing keeps the model that it unpickled last, for its next task.
        """
        with _loaded_once:
            for original in list(_sharers.get(self.key, ())):  # one with another instruction shares the model too
                if original.recipe == self and (copy := original.share()) is not None:
                    return copy
            reranker = load(self.model, self.options, self.listwise, {**_ONE_MODEL, **self.cascade}, self.pointwise)
            remember(reranker.recipe, reranker.sharers)
            processes = sys.modules.get("multiprocessing.process")
            if processes is not None and processes.parent_process() is not None:
                _kept[:] = [reranker.share()]
            return reranker


# Key of a recipe -> the open Rerankers of its model. A set lives as long as one of them does.
_sharers: WeakValueDictionary[tuple[object, ...], WeakSet[Any]] = WeakValueDictionary()
_kept: list[Any] = []  # the model that a process of a pool keeps
_loaded_once = RLock()


def remember(recipe: Recipe, sharers: WeakSet[Any]) -> None:
    """Makes the model of `sharers` known: `recipe` shares it from now on."""
    _sharers[recipe.key] = sharers


def _forget() -> None:
    """Forgets the parent's models in a forked process, where their threads are missing."""
    global _loaded_once  # noqa: PLW0603  # the parent's may be held by a thread that is missing here
    _loaded_once = RLock()
    _sharers.clear()
    _kept.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _state_of_file(model: str | Path) -> tuple[int, ...] | None:
    """Time, size and number of the file of `model`; None if there is none."""
    try:
        state = find_model(str(model)).stat()
    except (UsageError, OSError):
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino


def lasting_name(model: str | Path) -> str:
    """A model's name, or the absolute path of a file: a process with another working folder finds the same."""
    path = Path(model)
    return str(path.absolute()) if os.path.isfile(path) else str(model)


def _own(stage: ResolvedStage, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options that a stage takes: of a cascade, an instruction goes to the stages that have a place for it."""
    taken = () if stage.runner is None else stage.runner.options
    own = {name: value for name, value in options.items() if name in taken}
    if stage.prompt is not None and "prompt" in taken:
        own["prompt"] = stage.prompt  # as models.toml names it, if the caller does not
    if "instruction" in own and not stage.takes_instruction:
        del own["instruction"]
    return own


def _loader(
    stage: ResolvedStage,
    loaded: WeakValueDictionary[Path, Any],
    options: Mapping[str, Any],
    own: Mapping[str, Any],
) -> Callable[[], Any]:
    def load_stage() -> Any:
        if stage.failure is not None:
            raise stage.failure
        if stage.path is None:  # a lexical stage
            return _load(stage, options, own)
        path = stage.path.resolve()
        reranker = loaded.get(path)
        if reranker is None:
            reranker = loaded[path] = _load(stage, options, own)
        return reranker

    return load_stage


def _load(stage: ResolvedStage, options: Mapping[str, Any], own: Mapping[str, Any]) -> Any:
    assert stage.runner is not None
    make = getattr(import_module(stage.runner.module), stage.runner.name)
    return make(stage.take_source(), **options, **own)
