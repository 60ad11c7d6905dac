"""Loads what `models.chain.resolve` found. The classes are imported by the names in `models.formats`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any
from weakref import WeakValueDictionary

from dearlite.errors import UsageError
from dearlite.models.chain import Model, ResolvedStage, resolve
from dearlite.models.formats import CASCADE

# option -> the models that take it
GOES_WITH = {
    "gpu_layers": "a model in a GGUF",
    "adapter": "a listwise model",
    "instruction": "a model whose prompt has a place for it",
    "prompt": "a language model in a GGUF that states no score of its own",
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
    if "instruction" in own:
        chain.check_instruction()
    if not chain.cascade:
        (stage,) = chain.stages
        if unused:
            raise UsageError(
                f"{' and '.join(unused)} go with {GOES_WITH[unused[-1]]}, and {stage.name} is {stage.kind}"
            )
        if unused := [name for name, value in cascade.items() if value]:
            raise UsageError(f"{' and '.join(unused)}: an option of cascades, and {stage.name} is one model: name two")
        return _load(stage, options, _own(stage, own))
    if unused:
        raise UsageError(f"{' and '.join(unused)} go with {GOES_WITH[unused[-1]]}, and no stage is one")
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
    """The arguments of `load` for a Reranker. It is pickled in place of the model, and loads it again."""

    model: Model
    options: Mapping[str, Any]
    listwise: Mapping[str, Any] = field(default_factory=dict)
    cascade: Mapping[str, bool] = field(default_factory=dict)
    pointwise: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Any:
        """A Reranker like the one that this recipe is of."""
        return load(self.model, self.options, self.listwise, {**_ONE_MODEL, **self.cascade}, self.pointwise)


def lasting_name(model: str | Path) -> str:
    """A model's name, or the absolute path of a file: a process with another working folder finds the same."""
    path = Path(model)
    return str(path.absolute()) if path.is_file() else str(model)


def _own(stage: ResolvedStage, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options that a stage takes: of a cascade, an instruction goes to the stages that have a place for it."""
    taken = () if stage.runner is None else stage.runner.options
    own = {name: value for name, value in options.items() if name in taken}
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
        if stage.failure is not None or stage.path is None:
            raise stage.failure or AssertionError(f"stage {stage.model} has neither a file nor a failure")
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
