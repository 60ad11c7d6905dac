"""manifest.json of a `.dear` file: what the model is, as frozen dataclasses. Unknown and missing keys are errors."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from dearlite.errors import ModelFileError

SCHEMA = 1
DTYPES = {"float32": 4, "float16": 2, "int8": 1, "uint8": 1, "int32": 4, "int64": 8}  # name -> bytes an element


@dataclass(frozen=True, slots=True)
class Build:
    """One graph of the bundle: the device it is for, how rows are laid out, and what the machine must be able to do.

    `layout` is an entry of `backends.onnx.LAYOUTS`; `tensors` are the names that the graph takes from weights.bin.
    `requires` names capabilities of `devices.CAPABILITIES`; the first
    build in the manifest whose device and capabilities fit is taken.
    """

    device: str
    graph: str
    layout: str
    quantisation: str
    requires: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside the bundle."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor inside weights.bin: `offset` in bytes from the member's start, little-endian, C order."""

    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size_bytes(self) -> int:
        count = 1
        for side in self.shape:
            count *= side
        return count * DTYPES[self.dtype]


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything the runtime needs to know about a model; no behaviour is chosen by anything else."""

    kind: str  # "pointwise"
    name: str
    architecture: str
    prompt: str  # an entry of prompts.PAIR_FORMS
    pooling: str  # where the score is read: "first-token", "mean", "last-token", "last-position"
    max_tokens: int  # of the whole pair, special tokens included
    licence: str
    source: dict[str, str]
    builds: tuple[Build, ...]
    members: dict[str, Member]
    tensors: dict[str, Tensor]
    calibration: dict[str, Any] | None = None
    schema: int = SCHEMA

    def to_json(self) -> bytes:
        """The manifest as it stands in the file: the same bytes for the same facts."""
        return (json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n").encode()


def parse_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in `data`. Raises ModelFileError, opening with `where`, for anything that is not schema 1."""
    try:
        raw = json.loads(data)
        schema = raw["schema"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModelFileError(
            f"{where}: its manifest.json is not a dearlite manifest: the file is damaged or foreign"
        ) from None
    if schema != SCHEMA:
        raise ModelFileError(
            f"{where}: it has manifest schema {schema!r}, this dearlite reads {SCHEMA}: update dearlite"
        )
    try:
        raw["builds"] = tuple(
            _fields(Build, b | {n: tuple(b.get(n, ())) for n in ("requires", "tensors")}) for b in raw["builds"]
        )
        raw["members"] = {name: _fields(Member, m) for name, m in raw["members"].items()}
        raw["tensors"] = {
            name: _fields(Tensor, {**t, "shape": tuple(t["shape"])}) for name, t in raw["tensors"].items()
        }
        manifest: Manifest = _fields(Manifest, raw)
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise ModelFileError(
            f"{where}: its manifest.json does not fit schema {SCHEMA} ({err}): export the model again"
        ) from None
    return manifest


def _fields(cls: type[Any], raw: dict[str, Any]) -> Any:
    """`cls(**raw)` with the values' types checked; unknown, missing and mistyped keys are told together."""
    specs = {spec.name: spec for spec in dataclasses.fields(cls)}
    optional = {n for n, s in specs.items() if s.default is not dataclasses.MISSING}
    wrong = [f"unknown key {key!r}" for key in sorted(set(raw) - set(specs))]
    wrong += [f"missing key {key!r}" for key in sorted(set(specs) - set(raw) - optional)]
    scalars = {"str": str, "int": int}
    for name in set(raw) & set(specs):
        kind = scalars.get(str(specs[name].type))
        if kind is not None and (not isinstance(raw[name], kind) or isinstance(raw[name], bool)):
            wrong.append(f"{name!r} is no {kind.__name__}")
    if cls is Manifest and not isinstance(raw.get("source", {}), dict):
        wrong.append("'source' is no object")
    if cls is Tensor and raw.get("dtype") not in DTYPES:
        wrong.append(f"dtype {raw.get('dtype')!r} is not one of {', '.join(DTYPES)}")
    if cls is Tensor and not all(isinstance(side, int) and side >= 0 for side in raw.get("shape", ())):
        wrong.append(f"shape {raw.get('shape')!r} is not of whole numbers")
    if wrong:
        raise ValueError("; ".join(wrong))
    return cls(**raw)
