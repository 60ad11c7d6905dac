"""Named models: the entries of models.toml, and of the user's own models.toml in DEARLITE_HOME. Facts only."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dearlite.errors import MissingExtra, UnknownModel, UsageError, first_line, pip_install
from dearlite.models.registry_values import TRACED, faults, is_name

DEFAULT_MODEL = "minilm-l12"


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One table of models.toml.

    `max_tokens` limits the whole pair or prompt, `max_query_tokens` the query's share of it where its authors state
    one. `base` is the repository of the model under a LoRA. `embedded` is the file inside this package, None for a
    model whose file is made by `dearlite export`. `download_mb` is the size of the download that this needs, base
    included; `size_mb` and `memory_mb` are those of the file and of the process that runs it. `golden` names the
    published scores that `dearlite models verify` compares the file with; `known_difference` is how far these are
    known to lie from the scores of a file whose weights its publisher rounded. `file` is a file of the repository that
    is used as it is published; without it the model's file is made by an export.

    `parameters` counts all parameters; `matrix_parameters` those of the matrices that every token passes through: no
    embedding, and no output matrix of the vocabulary where only a score is read. `quality` maps benchmarks (see
    registry_values.QUALITY) to published nDCG@10. `commercial` is False for a licence that forbids commercial use, or
    that could not be read.
    """

    name: str
    kind: str
    repository: str
    architecture: str
    prompt: str
    pooling: str
    max_tokens: int
    licence: str
    size_mb: int
    memory_mb: int
    revision: str = "main"
    base: str = ""
    max_query_tokens: int | None = None
    download_mb: int | None = None
    embedded: str | None = None
    golden: str = ""
    known_difference: float | None = None
    about: str = ""
    file: str = ""
    commercial: bool = True
    parameters: int | None = None
    matrix_parameters: int | None = None
    layers: int | None = None
    hidden: int | None = None
    quality: Mapping[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class CascadeEntry:
    """A table of models.toml of kind "cascade": a chain of models, each `NAME` or `NAME:DEPTH`."""

    name: str
    kind: str
    stages: tuple[str, ...]
    about: str = ""


def home() -> Path:
    """The folder of exported and downloaded models: DEARLITE_HOME, or the platform's cache folder.

    On macOS it is the folder of application data, as programs that clean up empty ~/Library/Caches there; files that an
    earlier version left in the cache folder stay in use.
    """
    if set_home := os.environ.get("DEARLITE_HOME"):
        try:
            return Path(set_home).expanduser()
        except RuntimeError:
            raise UsageError(
                f"DEARLITE_HOME is {set_home!r}, and no home folder of that user is known: give the whole path"
            ) from None
    import platformdirs

    cache = Path(platformdirs.user_cache_dir("dearlite"))
    if sys.platform != "darwin" or cache.is_dir():
        return cache
    return Path(platformdirs.user_data_dir("dearlite"))


def load_registry() -> dict[str, ModelEntry]:
    """Every named model, the user's own (DEARLITE_HOME/models.toml) after the shipped ones, which it may replace."""
    return {name: entry for name, entry in _tables().items() if isinstance(entry, ModelEntry)}


def load_cascades() -> dict[str, CascadeEntry]:
    """Every named cascade, the user's own after the shipped ones."""
    return {name: entry for name, entry in _tables().items() if isinstance(entry, CascadeEntry)}


def find_cascade(name: str) -> tuple[str, ...] | None:
    """The stages of the cascade `name`; None if no cascade has this name."""
    entry = load_cascades().get(name)
    return None if entry is None else entry.stages


def find_model(name: str) -> Path:
    """The file for a model's name, or for a path to one. Raises UnknownModel with the nearest names."""
    path = Path(name)
    if path.suffix in (".dear", ".gguf") or path.is_file():
        if not path.is_file():
            raise UsageError(f"no model file {name}: `dearlite models` lists the models that have a name")
        return path
    known = load_registry()
    if name not in known:
        cascades = load_cascades()
        if name in cascades:
            raise UsageError(f"{name} is a cascade ({', '.join(cascades[name].stages)}): name one of its models here")
        raise unknown_model(name)
    file = model_file(known[name])
    if not file.is_file():
        raise UsageError(f"{name} is not on this machine: {how_to_get(known[name], file)}")
    return file


def model_file(entry: ModelEntry) -> Path:
    """The path of the entry's file, which need not exist."""
    if entry.embedded is not None:
        return Path(str(resources.files("dearlite").joinpath(entry.embedded)))
    suffix = ".gguf" if entry.kind == "listwise" or entry.file else ".dear"
    return home() / "models" / (entry.name + suffix)


def unknown_model(name: str, use: str = "-m {}") -> UnknownModel:
    """The error for a `name` that models.toml does not have: the nearest names, or what is made of OWNER/NAME.

    `use` is what the caller types for a registered model's name, {}.
    """
    known = load_registry()
    if "/" in name:
        return UnknownModel(_of_the_hub(name, known, use))
    near = ", ".join(get_close_matches(name, [*known, *load_cascades()], n=4, cutoff=0.4)) or "none is close"
    file = ", or give a model file" if use.startswith("-m") else ""
    return UnknownModel(f"no model {name!r} (nearest: {near}): `dearlite models` lists them{file}")


def _of_the_hub(name: str, known: Mapping[str, ModelEntry], use: str) -> str:
    """The error for `name`, OWNER/NAME of a repository: its name here, or the commands that make a file of it."""
    names = [entry.name for entry in known.values() if entry.repository.lower() == name.lower()]
    if names:
        return f"no model {name!r}: that repository's model is {' or '.join(names)} here ({use.format(names[0])})"
    short = name.rstrip("/").rpartition("/")[2]
    return (
        f"no model {name!r}: models of the Hub are exported first: `hf download {name} --local-dir {short}`, then "
        f"`dearlite export {short} -o {short}.dear` (or .gguf); `dearlite models` lists those with a name"
    )


def how_to_get(entry: ModelEntry, file: Path) -> str:
    """The command that makes or fetches the entry's `file`, with download, disk and a missing extra.

    Without the size of the download also the place to put the file at; and the same model as it is published, if
    models.toml has it as NAME-gguf.
    """
    consent = "" if entry.commercial else " --accept-licence"
    does = f"`dearlite models get {entry.name}{consent}` {'fetches it to' if entry.file else 'makes it at'} {file}"
    notes = "" if entry.commercial else f"; licence {licence_of(entry)}"
    if (extra := missing_extra(entry)) is not None:
        notes += f"; first {pip_install(extra)}"
    twin = load_registry().get(f"{entry.name}-gguf")
    other = "" if twin is None or not twin.file else f", or `dearlite models get {twin.name}` fetches it without export"
    if entry.download_mb is None:
        return f"{does} (the size of the download is not stated{notes}), or put its file there{other}"
    source = f"{entry.repository} and {entry.base}" if entry.base else entry.repository
    return (
        f"{does} (downloads {entry.download_mb / 1000:.1f} GB from {source}; "
        f"needs {disk_mb(entry) / 1000:.1f} GB of disk, the download included{notes}){other}"
    )


def missing_extra(entry: ModelEntry) -> str | None:
    """The extra that `models get` needs for the entry's file and that is not installed; None if nothing is missing."""
    extra, missing = _needs(entry)
    return extra if missing else None


def check_extra(entry: ModelEntry) -> None:
    """Raises MissingExtra if a package that fetches or makes the entry's file is missing; nothing is downloaded."""
    extra, missing = _needs(entry)
    if missing:
        does = "fetch" if entry.file else "make"
        raise MissingExtra(f"{missing[0]} is needed to {does} {entry.name} and is not installed: {pip_install(extra)}")


def _needs(entry: ModelEntry) -> tuple[str, list[str]]:
    """The extra that fetches or makes the entry's file, and those of its modules that are not installed."""
    extra, modules = "export", ["huggingface_hub"]
    if entry.embedded is not None:
        modules = []
    elif not entry.file and entry.architecture in TRACED:
        extra, modules = "encoders", ["torch", "transformers", "optimum", "onnx", *modules]
    elif not entry.file:
        modules.append("gguf" if entry.kind == "listwise" else "onnx")
    return extra, [name for name in modules if importlib.util.find_spec(name) is None]


def disk_mb(entry: ModelEntry) -> int:
    """The disk that the entry's file and its download need together. The download stays in the Hub's cache."""
    if entry.file:
        return entry.download_mb or entry.size_mb  # a published file is both, by a link
    return (entry.download_mb or 0) + entry.size_mb


def licence_of(entry: ModelEntry) -> str:
    """The licence, with the words that it forbids commercial use where it does."""
    return entry.licence if entry.commercial else f"{entry.licence}, not for commercial use"


def check_licence(entry: ModelEntry, *, accepted: bool) -> None:
    """Raises UsageError for a licence that forbids commercial use, unless the user has accepted it."""
    if not (entry.commercial or accepted):
        raise UsageError(
            f"{entry.name} has the licence {licence_of(entry)}: add --accept-licence (accept_licence=True) if your use "
            "is allowed"
        )


def _shipped() -> Path:
    """models.toml beside the modules (a wheel), or one level up (a checkout, which an editable install points to)."""
    package = Path(__file__).parents[1]
    for folder in (package, package.parent):
        if (folder / "models.toml").is_file():
            return folder / "models.toml"
    if getattr(sys, "frozen", False):
        raise UsageError(
            "models.toml is missing from this app, which was frozen without dearlite's data: collect it when the app "
            "is built (PyInstaller: --collect-data dearlite)"
        )
    raise UsageError("models.toml is missing from this installation: install dearlite again")


def _tables() -> dict[str, ModelEntry | CascadeEntry]:
    """Every entry by name, the user's own after the shipped ones, which it may replace."""
    tables = _parsed(_shipped(), "models.toml")
    own = home() / "models.toml"
    try:
        return {**tables, **(_parsed(own, str(own)) if own.is_file() else {})}
    except OSError as err:
        raise UsageError(f"cannot read {own}: {err.strerror}") from None


def _parsed(path: Path, label: str) -> dict[str, ModelEntry | CascadeEntry]:
    """The file's entries; it is parsed again only when its size or modification time has changed."""
    status = path.stat()
    return _parse(path, label, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _parse(path: Path, label: str, mtime_ns: int, size_bytes: int) -> dict[str, ModelEntry | CascadeEntry]:
    try:
        tables = tomllib.loads(path.read_bytes().decode("utf-8-sig"))  # Notepad writes a BOM
    except (ValueError, RecursionError) as err:  # TOMLDecodeError, UnicodeDecodeError, a number of too many digits
        raise UsageError(f"{label} is not TOML ({first_line(err)}): mend it") from None
    return {name: _entry(name, table, label) for name, table in tables.items()}


def _entry(name: str, table: Any, where: str) -> ModelEntry | CascadeEntry:
    if not isinstance(table, dict):
        raise UsageError(f"{where}: {name} is no table: write [{name}]")
    if not is_name(name):
        raise UsageError(
            f"{where}: [{name!r}] names a model, and its file cannot have that name: take letters, digits, - and _"
        )
    kind = CascadeEntry if table.get("kind") == "cascade" else ModelEntry
    specs = {spec.name: spec for spec in dataclasses.fields(kind) if spec.name != "name"}
    needed = {spec.name for spec in specs.values() if spec.default is spec.default_factory is dataclasses.MISSING}
    wrong = [f"unknown key {key!r}" for key in table if key not in specs]
    wrong += [f"missing key {key!r}" for key in specs if key in needed and key not in table]
    wrong += faults({key: (str(spec.type), table[key]) for key, spec in specs.items() if key in table})
    if wrong:
        raise UsageError(f"{where}: [{name}] has {'; '.join(wrong)}: mend it")
    if kind is CascadeEntry:
        return CascadeEntry(**{**table, "name": name, "stages": tuple(table["stages"])})
    return ModelEntry(**{**table, "name": name, "quality": MappingProxyType(table.get("quality", {}))})
