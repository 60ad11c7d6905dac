"""The head of a sentence-transformers cross-encoder: pooling, layers and the score, as a table of kinds of modules.

A head is read from the folder's modules (source/modules.py) and safetensors, checked module by module, and run by torch
on one pair without padding, both when the model is traced and for the reference scores. Meaning and defaults are those
of sentence-transformers 6.2 (sentence_transformer/modules/, base/modules/).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dearlite.errors import CheckpointError, UsageError, need
from dearlite.export.source.checkpoint import (
    WEIGHTS,
    Checkpoint,
    Floats,
    name_some,
    read_header,
    read_rows,
    refuse_pickle,
    row_count,
)
from dearlite.export.source.families import label_count
from dearlite.export.source.modules import MODULES, SCORES, TEXT, TOKENS, Module, chain_of
from dearlite.files.hashing import sha256_of


@dataclass(frozen=True, slots=True)
class Value:
    """A value between modules: its width, and True if it has a row for each token."""

    width: int
    by_token: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadModule:
    """A module of a head: a key of `KINDS`, the names of the values that it reads and writes, and its tensors."""

    kind: str
    reads: str
    writes: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Floats] = field(default_factory=dict)
    file: Path | None = None  # the file of its tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The modules after the transformer, whose `output` they find under `name`; `max_tokens` is the folder's limit."""

    output: str
    name: str
    modules: tuple[HeadModule, ...]
    max_tokens: int | None

    @property
    def pooling(self) -> str:
        """The hidden states that the score is read from, as the manifest names them: "first-token", "mean+max"."""
        modes = [mode for module in self.modules for mode in module.settings.get("modes", ())]
        return "+".join(_POOLINGS[mode].name for mode in modes) or "first-token"

    def sha256s(self) -> dict[str, str]:
        """The sha256 of each file of tensors, by folder and name."""
        files = [module.file for module in self.modules if module.file is not None]
        return {f"{file.parent.name}/{file.name}": sha256_of(file) for file in files}


def read_head(checkpoint: Checkpoint) -> Head | None:
    """The head that the folder's modules describe; None for a model that transformers scores pairs with by itself.

    Raises UsageError for a module or setting that is not supported, and CheckpointError for files that do not fit.
    """
    folder, config = checkpoint.folder, checkpoint.config
    chain = chain_of(folder, [str(name) for name in config.get("architectures") or ()], tuple(KINDS))
    if chain is None:
        return None
    labels = chain.output == "logits"
    width = label_count(config) or 2 if labels else config.get("hidden_size") or config.get("dim")
    if type(width) is not int:
        raise CheckpointError(f"{folder / 'config.json'} has hidden_size {width!r}: fetch it again")
    values = {chain.name: Value(width, by_token=not labels)}
    modules = []
    for part in chain.modules:
        if part.kind not in KINDS:  # a second Transformer
            raise part.refusal("stands behind the model, which is not supported")
        kind = KINDS[part.kind]
        reads, writes = kind.names(part)
        if reads not in values:
            raise part.refusal(f"reads {reads!r}, which no module before it writes")
        module, values[writes] = kind.read(part, reads, writes, values[reads])
        modules.append(module)
    score = values.get(SCORES)
    if score is None:
        raise UsageError(f"{folder / MODULES} has no module that writes {SCORES!r}: it gives no score of a pair")
    if score.by_token or score.width != 1:
        what = "a score for each token" if score.by_token else f"{score.width} scores of a pair"
        raise UsageError(f"{folder / MODULES} ends with {what}, and a scorer gives one: that is not supported")
    return Head(
        output=chain.output,
        name=chain.name,
        modules=tuple(modules),
        max_tokens=chain.max_tokens,
    )


def score_of(head: Head, output: Any, tensors: Mapping[str, Any]) -> Any:
    """The score of one pair, (1, 1), in torch. `output` is the transformer's; `tensors` are those of `tensors_of`."""
    values = {head.name: output}
    for number, module in enumerate(head.modules):
        own = {name: tensors[f"{number}.{name}"] for name in module.tensors}
        values[module.writes] = KINDS[module.kind].run(module, own, values[module.reads])
    return values[SCORES]


def tensors_of(head: Head) -> dict[str, Floats]:
    """The tensors of all modules, by number and name of the module's tensor: "1.linear.weight"."""
    return {f"{number}.{name}": t for number, module in enumerate(head.modules) for name, t in module.tensors.items()}


@dataclass(frozen=True, slots=True)
class _Pooling:
    """A mode of pooling: its name in the manifest, its flag in older files, and its value for (1, n, width)."""

    name: str
    flag: str
    run: Callable[[Any, Any], Any]  # (torch, hidden) -> (1, width)


def _weighted_mean(torch: Any, hidden: Any) -> Any:
    weights = torch.arange(1, hidden.shape[1] + 1, dtype=hidden.dtype).reshape(1, -1, 1)
    return (hidden * weights).sum(1) / weights.sum()


# In the order in which older files join the results of several modes.
_POOLINGS = {
    "cls": _Pooling("first-token", "pooling_mode_cls_token", lambda _, hidden: hidden[:, 0]),
    "max": _Pooling("max", "pooling_mode_max_tokens", lambda _, hidden: hidden.max(1).values),
    "mean": _Pooling("mean", "pooling_mode_mean_tokens", lambda _, hidden: hidden.mean(1)),
    "mean_sqrt_len_tokens": _Pooling(
        "mean-sqrt",
        "pooling_mode_mean_sqrt_len_tokens",
        lambda torch, hidden: hidden.sum(1) / torch.ones_like(hidden[:, :, 0]).sum(1, keepdim=True).sqrt(),
    ),
    "weightedmean": _Pooling("weighted-mean", "pooling_mode_weightedmean_tokens", _weighted_mean),
    "lasttoken": _Pooling("last-token", "pooling_mode_lasttoken", lambda _, hidden: hidden[:, -1]),
}
# The classes of torch that a Dense module may apply, each with its defaults.
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid", "ELU", "LeakyReLU", "Softplus", "Mish")
_ACTIVATION_PACKAGES = ("torch.nn", "torch.nn.modules.activation", "torch.nn.modules.linear")


def _read_pooling(part: Module, reads: str, writes: str, value: Value) -> tuple[HeadModule, Value]:
    modes = part.config.get("pooling_mode")
    if modes is None:
        modes = [mode for mode, pooling in _POOLINGS.items() if part.flag(pooling.flag, default=False)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes or not set(map(str, modes)) <= set(_POOLINGS):
        raise part.refusal(f"has pooling_mode {modes!r} (only {', '.join(_POOLINGS)})")
    _check_width(part, value, part.number("embedding_dimension", "word_embedding_dimension"))
    if not value.by_token:
        raise part.refusal(f"reads {reads!r}, which has no rows of tokens")
    module = HeadModule(kind=part.kind, reads=reads, writes=writes, settings={"modes": tuple(modes)})
    return module, Value(value.width * len(modes), by_token=False)


def _pool(module: HeadModule, _: Mapping[str, Any], hidden: Any) -> Any:
    torch = need("torch", extra="encoders")
    return torch.cat([_POOLINGS[mode].run(torch, hidden) for mode in module.settings["modes"]], dim=-1)


def _read_dense(part: Module, reads: str, writes: str, value: Value) -> tuple[HeadModule, Value]:
    columns, rows = part.number("in_features"), part.number("out_features")
    _check_width(part, value, columns)
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (rows, columns)}
    if part.flag("bias", default=True):
        shapes["linear.bias"] = (rows,)
    residual = part.flag("use_residual", default=False)
    if residual and rows != columns:
        shapes["residual.weight"] = (rows, columns)
    stated = str(part.config.get("activation_function", "torch.nn.Tanh"))
    package, _, name = stated.rpartition(".")
    if package not in _ACTIVATION_PACKAGES or name not in ACTIVATIONS:
        raise part.refusal(f"has activation_function {stated} (only {', '.join(ACTIVATIONS)} of torch.nn)")
    settings = {"activation": name, "residual": residual}
    return _layer(part, reads, writes, shapes, settings), Value(rows, value.by_token)


def _dense(module: HeadModule, tensors: Mapping[str, Any], x: Any) -> Any:
    torch = need("torch", extra="encoders")
    linear = torch.nn.functional.linear(x, tensors["linear.weight"], tensors.get("linear.bias"))
    out = getattr(torch.nn, module.settings["activation"])()(linear)
    if not module.settings["residual"]:
        return out
    projection = tensors.get("residual.weight")
    return out + (x if projection is None else torch.nn.functional.linear(x, projection))


def _read_layer_norm(part: Module, reads: str, writes: str, value: Value) -> tuple[HeadModule, Value]:
    width = part.number("dimension")
    _check_width(part, value, width)
    return _layer(part, reads, writes, {"norm.weight": (width,), "norm.bias": (width,)}, {}), value


def _layer_norm(_: HeadModule, tensors: Mapping[str, Any], x: Any) -> Any:
    torch, gain, bias = need("torch", extra="encoders"), tensors["norm.weight"], tensors["norm.bias"]
    return torch.nn.functional.layer_norm(x, gain.shape, gain, bias)


def _read_plain(part: Module, reads: str, writes: str, value: Value) -> tuple[HeadModule, Value]:
    return HeadModule(kind=part.kind, reads=reads, writes=writes), value


def _normalize(_: HeadModule, __: Mapping[str, Any], x: Any) -> Any:
    return need("torch", extra="encoders").nn.functional.normalize(x, p=2, dim=-1)


def _unchanged(_: HeadModule, __: Mapping[str, Any], x: Any) -> Any:
    return x


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of module: its reader, its value in torch, the fields of its config.json, and the values' names."""

    read: Callable[[Module, str, str, Value], tuple[HeadModule, Value]]
    run: Callable[[HeadModule, Mapping[str, Any], Any], Any]
    fields: tuple[str, ...]
    reads: str = TEXT
    writes: str = TEXT
    named: bool = False  # True if config.json may name other values

    def names(self, part: Module) -> tuple[str, str]:
        """The names of the values that `part` reads and writes. Raises UsageError for fields that it does not know."""
        known = self.fields + (_NAMES if self.named else ())
        if unknown := [name for name in part.config if name not in known]:
            raise part.refusal(f"has {name_some(unknown)}")
        if not self.named:
            return self.reads, self.writes
        reads = part.config.get(_NAMES[0]) or self.reads
        return str(reads), str(part.config.get(_NAMES[1]) or reads)


_NAMES = ("module_input_name", "module_output_name")
# The class of a module -> its kind.
KINDS = {
    "Pooling": Kind(
        _read_pooling,
        _pool,
        (
            *("embedding_dimension", "word_embedding_dimension", "pooling_mode", "include_prompt"),
            *(pooling.flag for pooling in _POOLINGS.values()),
        ),
        reads=TOKENS,
    ),
    "Dense": Kind(
        _read_dense, _dense, ("in_features", "out_features", "bias", "activation_function", "use_residual"), named=True
    ),
    "LayerNorm": Kind(_read_layer_norm, _layer_norm, ("dimension",)),
    "Normalize": Kind(_read_plain, _normalize, (), named=True),
    "Dropout": Kind(_read_plain, _unchanged, ("dropout",)),
}


def _layer(
    part: Module, reads: str, writes: str, shapes: Mapping[str, tuple[int, ...]], settings: Mapping[str, Any]
) -> HeadModule:
    """A module with the tensors `shapes`. Raises CheckpointError listing those that do not fit its config.json."""
    file = part.folder / WEIGHTS
    if not os.path.isfile(file):
        refuse_pickle(part.folder)
        raise CheckpointError(
            f"{part.folder} ({part.kind}) has no {WEIGHTS}: fetch a revision that has it, or save one"
        )
    specs = read_header(file)
    wrong = [f"{name} is missing" for name in shapes if name not in specs]
    wrong += [f"{name} fits nothing" for name in specs if name not in shapes]
    wrong += [
        f"{name} is {specs[name].shape}, not {sides}"
        for name, sides in shapes.items()
        if name in specs and specs[name].shape != sides
    ]
    if wrong:
        raise part.damage(f"does not describe {WEIGHTS} beside it: {name_some(wrong, 6, '; ')}")
    tensors = {name: read_rows(name, specs[name], 0, row_count(sides)).reshape(sides) for name, sides in shapes.items()}
    return HeadModule(kind=part.kind, reads=reads, writes=writes, settings=settings, tensors=tensors, file=file)


def _check_width(part: Module, value: Value, width: int) -> None:
    if value.width != width:
        raise part.damage(f"reads {width} numbers, and the module before it gives {value.width}")
