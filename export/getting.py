"""`dearlite.export.get`: the file of a registered model, fetched as it is published or made by an export."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dearlite.errors import DearliteError, FetchError, ModelFileError, UsageError
from dearlite.export.options import ExportOptions, Report
from dearlite.export.pipeline import export_model
from dearlite.export.results import ExportResult
from dearlite.export.source.fetch import fetch_file
from dearlite.export.source.inputs import output_path
from dearlite.files.drafts import Draft
from dearlite.files.targets import reason_of
from dearlite.models.entries import ModelEntry
from dearlite.models.formats import runner_of
from dearlite.models.registry import find_entry, load_cascades, model_file, unknown_model
from dearlite.models.requirements import check_extra, check_licence, disk_mb, licence_of
from dearlite.templates.families import FAMILIES


@dataclass(frozen=True, slots=True, kw_only=True)
class GetResult:
    """The file of a registered model. `how` is "embedded", "here", "fetched" or "exported"; `export` is the export."""

    path: Path
    how: str
    size_bytes: int
    export: ExportResult | None = None


def get(name: str, *, accept_licence: bool = False, force: bool = False, report: Report | None = None) -> GetResult:
    """The file of the model `name` of models.toml: what is on this machine, or else fetched or exported.

    `name` may also be an alias, or the model's repository at the Hub. A model whose entry names a published file is
    fetched as it is, and every byte is compared with the Hub's hash. Any other is made by an export with the default
    options. With `force` a file on this machine is made again. `report` receives each note as one line, the licence
    before anything is fetched.

    Raises UsageError for a name that models.toml does not have and, without `accept_licence`, for a licence that
    forbids commercial use; FetchError for a download that failed, and what `export` raises.

    Examples:
        >>> from dearlite.export import get
        >>> get("minilm-l12").how
        'embedded'

    """
    entry = _entry_of(name)
    path = model_file(entry)
    if entry.embedded is not None or (os.path.isfile(path) and not force):
        how = "here" if entry.embedded is None else "embedded"
        return GetResult(path=path, how=how, size_bytes=path.stat().st_size)
    check_licence(entry, accepted=accept_licence)
    check_extra(entry)
    if not entry.file:
        options = ExportOptions(force=force, accept_licence=accept_licence)
        result = export_model(entry.name, options, report)
        return GetResult(path=result.path, how="exported", size_bytes=result.size_bytes, export=result)
    if report is not None:
        report(
            f"{entry.name}: licence {licence_of(entry)}; downloads {entry.size_mb / 1000:.1f} GB from "
            f"{entry.repository}, needs {disk_mb(entry) / 1000:.1f} GB of disk"
        )
    path = output_path(None, entry, force, suffix=".gguf")
    _fetch_to(path, entry, quiet=report is None)
    return GetResult(path=path, how="fetched", size_bytes=path.stat().st_size)


def _entry_of(name: str) -> ModelEntry:
    cascades = load_cascades()
    if name in cascades:
        stages = ", ".join(f"`dearlite models get {stage.partition(':')[0]}`" for stage in cascades[name].stages)
        raise UsageError(f"{name} is a cascade: get its models ({stages})")
    if (entry := find_entry(name)) is None:
        raise unknown_model(name, files=False)
    return entry


def _fetch_to(path: Path, entry: ModelEntry, *, quiet: bool) -> None:
    """Puts the entry's published file at `path`, once it is a model of the entry's kind."""
    fetch = partial(fetch_file, entry.repository, entry.file, entry.revision, quiet=quiet)
    try:
        fetched = fetch()
    except FetchError:
        if not os.path.isfile(path):
            raise
        fetched = fetch()  # a file that was changed in place has changed the cache's copy, which is gone now
    prompt = entry.prompt if entry.prompt in FAMILIES else None
    if (kind := runner_of(fetched, prompt)[0].kind) != entry.kind:
        raise ModelFileError(
            f"{entry.file} of {entry.repository} is a {kind} model, and models.toml calls {entry.name} {entry.kind}: "
            "correct its entry"
        )
    try:
        with Draft(path, folder=True) as draft:
            copy = draft.path / path.name
            _link_or_copy(fetched.resolve(), copy)
            draft.commit(copy)
    except OSError as err:
        raise DearliteError(f"cannot write {path}: {reason_of(err)}") from None


def _link_or_copy(source: Path, copy: Path) -> None:
    """Makes `copy`: on one disk the Hub's cache and it share the bytes; on two the file is copied, if there is room."""
    try:
        os.link(source, copy)
    except OSError:
        needed, free = source.stat().st_size, shutil.disk_usage(copy.parent).free
        if needed > free:
            raise DearliteError(
                f"{copy.name} needs {needed / 1e9:.1f} GB in {copy.parents[1]}, where {free / 1e9:.1f} GB are free: "
                "make room, or set DEARLITE_HOME to a folder on a larger disk"
            ) from None
        shutil.copyfile(source, copy)
