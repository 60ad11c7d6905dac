"""The needs of a model that is fetched or made: packages, disk, and the acceptance of its licence."""

from __future__ import annotations

import importlib.util

from dearlite.errors import MissingExtra, UsageError
from dearlite.installing import pip_install
from dearlite.models.entries import ModelEntry
from dearlite.models.registry_values import TRACED


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
