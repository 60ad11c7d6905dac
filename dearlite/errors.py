"""Every error that a user can meet. Each message names the thing, the reason and the remedy, on one line.

DearliteError            exit 1: something failed
├── UsageError           exit 2: the call itself is wrong (also a ValueError)
│   └── UnknownModel
├── InvalidInput         a query or a document that cannot be ranked
├── BundleError          a model file that is damaged, foreign or too new
├── DeviceUnavailable    the device that was asked for cannot be had
├── MissingExtra         an optional package is not installed
├── OutOfMemory          memory ran out, and there is nothing left to do less of
├── ScoringError         the model gave something that is no score
└── Cancelled            the caller's event was set
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


class DearliteError(Exception):
    """Base of all errors meant for users; `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(DearliteError, ValueError):
    """The call is wrong: an option, a name or a path that cannot be meant."""

    exit_code = 2


class UnknownModel(UsageError):
    """No model of that name, and no file either."""


class InvalidInput(DearliteError, ValueError):
    """A query or document that cannot be ranked."""


class BundleError(DearliteError):
    """A model file that is truncated, edited, foreign or of a later schema."""


class DeviceUnavailable(DearliteError):
    """The device that was asked for by name cannot be had."""


class MissingExtra(DearliteError, ImportError):
    """A package of an optional extra is not installed."""


class OutOfMemory(DearliteError):
    """Memory ran out with one document at work."""


class ScoringError(DearliteError):
    """The model gave a value that is no score (NaN or infinite)."""


class Cancelled(DearliteError):
    """The caller's `cancel` event was set before the work was done."""

    def __init__(self, done: int, total: int) -> None:
        super().__init__(f"cancelled after {done} of {total} documents")
        self.done, self.total = done, total


def need(module: str, *, extra: str | None) -> ModuleType:
    """The imported `module`; raises MissingExtra naming the extra that installs it, or what it imports first.

    `extra` is None for a dependency of dearlite itself, which `pip install dearlite` brings.

    A module of dearlite's own may miss what its extra brings; another package that is there, and whose own import
    breaks, is not missing: that error is shown as it is.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as err:
        missing = (err.name or "").partition(".")[0]
        if missing != module.partition(".")[0] and not module.startswith("dearlite."):
            raise
        package = "dearlite" if extra is None else f"'dearlite[{extra}]'"
        raise MissingExtra(f"{missing} is needed here and is not installed: pip install {package}") from err
