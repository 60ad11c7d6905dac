"""manifest.json of a `.dear` file as frozen dataclasses. Unknown and missing keys are errors."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from math import prod
from typing import Any

from dearlite.errors import ModelFileError
from dearlite.models.attention import AttentionReading
from dearlite.templates.template import Template, read_template

SCHEMAS = (1, 2, 3, 4)
# Keys that are written only where there is a value, and the schema that brought each.
_SCHEMA_OF = {"template": 2, "activation": 2, "pair_limited": 3, "attention": 4}
DTYPES = {"float32": 4, "float16": 2, "int8": 1, "uint8": 1, "int32": 4, "int64": 8}  # name -> bytes per element


# Names of the embedding of tokens: of decoders, of the embedded model, of encoders that optimum traced.
_EMBEDDING = re.compile(r"^embedding$|^words\.table$|(word_embeddings|tok_embeddings|embed_tokens)\.weight(\.rows)?$")


@dataclass(frozen=True, slots=True)
class Build:
    """One graph of the bundle, and the machines that can run it.

    `device` is "cpu" or "cuda"; `graph` the name of its member; `layout` the layout of its input rows, a key of
    `pointwise.engine.LAYOUTS`. `requires` names capabilities of the machine, keys of
    `pointwise.onnxruntime.CAPABILITIES`; `tensors` names the tensors of weights.bin that the graph uses. The engine
    takes the first build of the manifest whose device and capabilities fit.
    """

    device: str
    graph: str
    layout: str
    quantisation: str
    requires: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """The size and sha256 of a file inside the bundle."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor inside weights.bin, little-endian, in C order. `offset` counts bytes from the start of weights.bin."""

    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size_bytes(self) -> int:
        """Size in bytes, without the padding after it."""
        return prod(self.shape) * DTYPES[self.dtype]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The facts that decide how the runtime runs a model. Nothing else does, neither its name nor its tensors."""

    kind: str  # "pointwise" or "attention"
    name: str
    architecture: str
    prompt: str  # a key of pointwise.prompts.PAIR_FORMS, or the name of `template`
    pooling: (
        str  # position that the score is read at: "first-token", "mean", "last-token", "last-position"; "attention"
    )
    max_tokens: int  # of the pair, or of the prompt of a list, special tokens included
    licence: str
    source: dict[str, str]
    builds: tuple[Build, ...]
    members: dict[str, Member]
    tensors: dict[str, Tensor]
    calibration: dict[str, Any] | None = None
    schema: int = SCHEMAS[0]
    template: Template | None = None  # the words of the prompt, for a model that reads query and document in one text
    activation: dict[str, Any] | None = None  # the map from score to probability that the model's makers publish
    pair_limited: bool = False  # the int8 weights make exact products on every CPU (pair_limit.py)
    attention: AttentionReading | None = None  # of an attention reranker

    @property
    def embedding_rows(self) -> int | None:
        """The number of tokens that the model's embedding has; None if no tensor has one of its usual names."""
        for name, tensor in self.tensors.items():
            if _EMBEDDING.search(name) and len(tensor.shape) == 2:
                return tensor.shape[0]
        return None

    def to_json(self) -> bytes:
        """The content of manifest.json. Equal manifests give equal bytes."""
        record = dataclasses.asdict(self)
        for name, schema in _SCHEMA_OF.items():
            del record[name]
            value = getattr(self, name)
            if value is not None and value is not False:
                record[name] = _plain(value)
                record["schema"] = max(record["schema"], schema)
        return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()


def parse_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in `data`. Raises ModelFileError, whose message begins with `where`, if it does not fit."""
    try:
        raw = json.loads(data)
        schema = raw["schema"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModelFileError(
            f"{where}: its manifest.json is not a dearlite manifest: the file is damaged or foreign"
        ) from None
    if schema not in SCHEMAS or isinstance(schema, bool):
        known = f"{', '.join(map(str, SCHEMAS[:-1]))} and {SCHEMAS[-1]}"
        raise ModelFileError(
            f"{where}: its manifest has schema {schema!r}, and this dearlite reads schemas {known}: update dearlite"
        )
    try:
        raw["builds"] = tuple(
            _record(Build, build | {key: tuple(build.get(key, ())) for key in ("requires", "tensors")})
            for build in raw["builds"]
        )
        raw["members"] = {name: _record(Member, member) for name, member in raw["members"].items()}
        raw["tensors"] = {
            name: _record(Tensor, {**tensor, "shape": tuple(tensor["shape"])})
            for name, tensor in raw["tensors"].items()
        }
        if raw.get("template") is not None:
            raw["template"] = read_template(raw["template"], where)
        if raw.get("attention") is not None:
            raw["attention"] = _record(AttentionReading, raw["attention"])
        manifest: Manifest = _record(Manifest, raw)
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise ModelFileError(
            f"{where}: its manifest.json does not fit schema {schema} ({err}): export the model again"
        ) from None
    return manifest


def _plain(value: Any) -> Any:
    """`value` as JSON has it."""
    if isinstance(value, AttentionReading):
        return dataclasses.asdict(value)
    return value.record() if isinstance(value, Template) else value


def _record(cls: type[Any], raw: dict[str, Any]) -> Any:
    """`cls(**raw)`, with checked types. Raises ValueError that lists all unknown, missing and mistyped keys."""
    specs = {spec.name: spec for spec in dataclasses.fields(cls)}
    optional = {name for name, spec in specs.items() if spec.default is not dataclasses.MISSING}
    wrong = [f"unknown key {key!r}" for key in sorted(set(raw) - set(specs))]
    wrong += [f"missing key {key!r}" for key in sorted(set(specs) - set(raw) - optional)]
    scalars = {"str": str, "int": int, "bool": bool}
    for name in set(raw) & set(specs):
        stated = str(specs[name].type)
        kind = scalars.get(stated)
        if kind is not None and (not isinstance(raw[name], kind) or (kind is int and isinstance(raw[name], bool))):
            wrong.append(f"{name!r} is not of type {kind.__name__}")
        absent = raw[name] is None and stated.endswith("| None")
        if stated.startswith("dict[") and not absent and not isinstance(raw[name], dict):
            wrong.append(f"{name!r} is not an object")
        if stated == "tuple[str, ...]" and not all(isinstance(item, str) for item in raw[name]):
            wrong.append(f"{name!r} is not a list of names")
    if cls is Tensor and raw.get("dtype") not in DTYPES:
        wrong.append(f"dtype {raw.get('dtype')!r} is not one of {', '.join(DTYPES)}")
    if cls is Tensor and not all(isinstance(side, int) and side >= 0 for side in raw.get("shape", ())):
        wrong.append(f"shape {raw.get('shape')!r} is not a list of whole numbers from 0")
    if wrong:
        raise ValueError("; ".join(wrong))
    return cls(**raw)
