"""A name, a file or a chain of them, and the model that runs it. The kinds are imported by the names in `runners`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from dearlite.errors import UsageError
from dearlite.models.chain import StageLike, check_chain, parse_chain, parse_stage
from dearlite.models.formats import CASCADE, runner_of
from dearlite.models.registry import DEFAULT_MODEL, find_cascade, find_model

Model = str | Path | Sequence[StageLike] | None


def load(
    model: Model,
    options: Mapping[str, Any],
    listwise: Mapping[str, Any],
    cascade: Mapping[str, bool],
) -> Any:
    """The Reranker for `model`: `listwise` options are for listwise models, `cascade` ones for chains."""
    chain = [model or DEFAULT_MODEL] if model is None or isinstance(model, (str, Path)) else list(model)
    only = parse_stage(chain[0]) if len(chain) == 1 else None
    if only is not None and only.depth is None and find_cascade(only.model) is None:
        return load_file(find_model(only.model), options, listwise)
    stages = parse_chain(chain)
    kinds = check_chain(stages, best_effort=cascade["best_effort"])
    given = _set(listwise)
    if given and "listwise" not in kinds:
        raise UsageError(f"{' and '.join(given)} go with a listwise model, and no stage is one")
    module, name = CASCADE
    links = [
        (
            Path(stage.model).stem,
            stage.depth,
            kind,
            _loader(stage.model, options, given if kind == "listwise" else {}),
        )
        for stage, kind in zip(stages, kinds, strict=True)
    ]
    return getattr(import_module(module), name).of(links, **cascade)


def load_file(path: Path, options: Mapping[str, Any], listwise: Mapping[str, Any]) -> Any:
    """The model in the file at `path`."""
    runner, given = runner_of(path), _set(listwise)
    if given and runner.kind != "listwise":
        raise UsageError(f"{' and '.join(given)} go with a listwise model, and {path.name} is pointwise")
    return getattr(import_module(runner.module), runner.name)(path, **options, **given)


def _loader(model: str, options: Mapping[str, Any], listwise: Mapping[str, Any]) -> Callable[[], Any]:
    return lambda: load_file(find_model(model), options, listwise)


def _set(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
