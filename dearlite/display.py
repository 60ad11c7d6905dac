"""Methods that show an object in a terminal or a notebook, with a renderer that is imported when it is first needed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def shown_by(module: str, function: str) -> Callable[[Any], Any]:
    """A method that returns `function(self)` of `module`. A record names its renderer so, and does not import it."""

    def show(self: Any) -> Any:
        return getattr(import_module(module), function)(self)

    return show
