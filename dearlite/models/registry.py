"""Named models: the entries of models.toml, and of the user's own models.toml in DEARLITE_HOME. Facts only."""

from __future__ import annotations

import dataclasses
import os
import sys
import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dearlite.errors import UnknownModel, UsageError, first_line
from dearlite.installing import pip_install
from dearlite.models.entries import CascadeEntry, LexicalEntry, ModelEntry
from dearlite.models.registry_values import faults, is_name
from dearlite.models.requirements import disk_mb, licence_of, missing_extra

DEFAULT_MODEL = "minilm-l12"


Entry = ModelEntry | CascadeEntry | LexicalEntry
_KINDS: dict[str, type[Entry]] = {"cascade": CascadeEntry, "lexical": LexicalEntry}


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
    if sys.platform != "darwin" or os.path.isdir(cache):
        return cache
    return Path(platformdirs.user_data_dir("dearlite"))


def load_registry() -> dict[str, ModelEntry]:
    """Every named model, the user's own (DEARLITE_HOME/models.toml) after the shipped ones, which it may replace."""
    return {name: entry for name, entry in _tables().items() if isinstance(entry, ModelEntry)}


def load_cascades() -> dict[str, CascadeEntry]:
    """Every named cascade, the user's own after the shipped ones."""
    return {name: entry for name, entry in _tables().items() if isinstance(entry, CascadeEntry)}


def load_lexical() -> dict[str, LexicalEntry]:
    """Every named ranking by words."""
    return {name: entry for name, entry in _tables().items() if isinstance(entry, LexicalEntry)}


def find_cascade(name: str) -> tuple[str, ...] | None:
    """The stages of the cascade `name`; None if no cascade has this name."""
    entry = load_cascades().get(name)
    return None if entry is None else entry.stages


def is_registered(name: str) -> bool:
    """True for the name of an entry of models.toml, of any kind."""
    return name in _tables()


def registered_name(name: str) -> str:
    """The name in models.toml of a model that is called `name`: its own, an alias, or its repository at the Hub.

    A file, and a name that no entry has, is returned unchanged. Raises UsageError for a repository or an alias that
    several entries state.

    Example: "cross-encoder/ms-marco-MiniLM-L-12-v2" -> "minilm-l12".
    """
    tables = _tables()
    if name in tables or os.path.isfile(name):
        return name
    lower = name.lower()
    entries = [entry for entry in tables.values() if isinstance(entry, ModelEntry)]
    names = [e.name for e in entries if lower in (e.repository.lower(), *map(str.lower, e.aliases))]
    if len(names) > 1:
        raise UsageError(f"{name} has several models here: name one of them, {' or '.join(names)}")
    return names[0] if names else name


def find_entry(name: str) -> ModelEntry | None:
    """The entry of a model by its name, alias or repository; None for a file and an unknown name."""
    return load_registry().get(registered_name(name))


def find_model(name: str) -> Path:
    """The file for a model's name, alias or repository, or for a path. Raises UnknownModel with the nearest names."""
    path = Path(name)
    if path.suffix in (".dear", ".gguf") or os.path.isfile(path):
        if not os.path.isfile(path):
            raise UsageError(f"no model file {name}: `dearlite models` lists the models that have a name")
        return path
    known, name = load_registry(), registered_name(name)
    if name not in known:
        cascades = load_cascades()
        if name in cascades:
            raise UsageError(f"{name} is a cascade ({', '.join(cascades[name].stages)}): name one of its models here")
        raise unknown_model(name)
    file = model_file(known[name])
    if not os.path.isfile(file):
        raise UsageError(f"{name} is not on this machine: {how_to_get(known[name], file)}")
    return file


def model_file(entry: ModelEntry) -> Path:
    """The path of the entry's file, which need not exist; a file under a former name stays in use."""
    if entry.embedded is not None:
        return Path(str(resources.files("dearlite").joinpath(entry.embedded)))
    suffix = ".gguf" if entry.kind == "listwise" or entry.file else ".dear"
    folder = home() / "models"
    former = (folder / (name + suffix) for name in entry.aliases if is_name(name))
    path = folder / (entry.name + suffix)
    return path if os.path.isfile(path) else next((other for other in former if os.path.isfile(other)), path)


def unknown_model(name: str, *, files: bool = True) -> UsageError:
    """The error for a `name` of no model file in models.toml: the nearest names, or what is made of OWNER/NAME.

    `files`: the caller takes a model file too.
    """
    if name in load_lexical():
        return UsageError(f"{name} compares words and has no file: it is the first stage of a chain, {name}:100")
    if "/" in name:
        short = name.rstrip("/").rpartition("/")[2]
        return UnknownModel(
            f"no model {name!r}: models of the Hub are exported first: `hf download {name} --local-dir {short}`, then "
            f"`dearlite export {short} -o {short}.dear` (or .gguf); `dearlite models` lists those with a name"
        )
    known = [*load_registry(), *load_cascades(), *load_lexical()]
    near = ", ".join(get_close_matches(name, known, n=4, cutoff=0.4)) or "none is close"
    file = ", or give a model file" if files else ""
    return UnknownModel(f"no model {name!r} (nearest: {near}): `dearlite models` lists them{file}")


def check_all_here(names: Sequence[str]) -> None:
    """Raises UsageError that names all models that are not on this machine, if there are several among `names`."""
    entries = [entry for entry in map(find_entry, dict.fromkeys(names)) if entry is not None]
    missing = [entry for entry in entries if not os.path.isfile(model_file(entry))]
    if len(missing) < 2:
        return
    commands = []
    for entry in missing:
        consent = "" if entry.commercial else " --accept-licence"
        size = "" if entry.download_mb is None else f" ({entry.download_mb / 1000:.1f} GB)"
        commands.append(f"`dearlite models get {entry.name}{consent}`{size}")
    listed = " and ".join(entry.name for entry in missing)
    raise UsageError(
        f"{listed} are not on this machine: {', '.join(commands)}; `dearlite models show NAME` has the details of each"
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


def _shipped() -> Path:
    """models.toml beside the modules (a wheel), or one level up (a checkout, which an editable install points to)."""
    package = Path(__file__).parents[1]
    for folder in (package, package.parent):
        if os.path.isfile(folder / "models.toml"):
            return folder / "models.toml"
    if getattr(sys, "frozen", False):
        raise UsageError(
            "models.toml is missing from this app, which was frozen without dearlite's data: collect it when the app "
            "is built (PyInstaller: --collect-data dearlite)"
        )
    raise UsageError("models.toml is missing from this installation: install dearlite again")


def _tables() -> dict[str, Entry]:
    """Every entry by name, the user's own after the shipped ones, which it may replace."""
    tables = _parsed(_shipped(), "models.toml")
    own = home() / "models.toml"
    try:
        return {**tables, **(_parsed(own, str(own)) if own.is_file() else {})}
    except OSError as err:
        raise UsageError(f"cannot read {own}: {err.strerror}") from None


def _parsed(path: Path, label: str) -> dict[str, Entry]:
    """The file's entries; it is parsed again only when its size or modification time has changed."""
    status = path.stat()
    return _parse(path, label, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _parse(path: Path, label: str, mtime_ns: int, size_bytes: int) -> dict[str, Entry]:
    try:
        tables = tomllib.loads(path.read_bytes().decode("utf-8-sig"))  # Notepad writes a BOM
    except (ValueError, RecursionError) as err:  # TOMLDecodeError, UnicodeDecodeError, a number of too many digits
        raise UsageError(f"{label} is not TOML ({first_line(err)}): mend it") from None
    return {name: _entry(name, table, label) for name, table in tables.items()}


def _entry(name: str, table: Any, where: str) -> Entry:
    if not isinstance(table, dict):
        raise UsageError(f"{where}: {name} is no table: write [{name}]")
    if not is_name(name):
        raise UsageError(
            f"{where}: [{name!r}] names a model, and its file cannot have that name: take letters, digits, - and _"
        )
    kind = _KINDS.get(str(table.get("kind")), ModelEntry)
    specs = {spec.name: spec for spec in dataclasses.fields(kind) if spec.name != "name"}
    needed = {spec.name for spec in specs.values() if spec.default is spec.default_factory is dataclasses.MISSING}
    wrong = [f"unknown key {key!r}" for key in table if key not in specs]
    wrong += [f"missing key {key!r}" for key in specs if key in needed and key not in table]
    wrong += faults({key: (str(spec.type), table[key]) for key, spec in specs.items() if key in table})
    if wrong:
        raise UsageError(f"{where}: [{name}] has {'; '.join(wrong)}: mend it")
    made = {"stages": tuple, "aliases": tuple, "quality": MappingProxyType}  # values that TOML has in another type
    values = {key: made[key](value) if key in made else value for key, value in table.items()}
    return kind(name=name, **values)
