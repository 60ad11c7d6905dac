"""Queries, documents, judgements and first-stage runs, read and checked together."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_NAMES = ("Collection", "make_collection", "open_collection")


def __getattr__(name: str) -> Any:
    """The names that scripts import from here, of `collection.collection`."""
    if name in _NAMES:
        return getattr(import_module("dearlite.offline.collection.collection"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
