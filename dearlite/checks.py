"""Checks of argument values that several modules share."""

from __future__ import annotations

import operator

from dearlite.errors import UsageError


def instance(name: str, value: object, kind: type, example: str) -> None:
    """Raises UsageError unless `value` is a `kind`; the message shows `example`."""
    if not isinstance(value, kind):
        raise UsageError(f"{name} is a {type(value).__name__}: give {example}")


def whole_number(name: str, value: object, least: int = 1, *, otherwise: str = "") -> int:
    """`value` as an int of at least `least`; NumPy's integers count. Raises UsageError, also for a bool.

    `otherwise` ends the message with what else the argument may be.

    Example: whole_number("threads", 0) raises "threads is 0: it must be a whole number from 1".
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # TypeError is the answer for what has no index
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise UsageError(f"{name} is {value!r}: it must be a whole number from {least}{otherwise}")
    return number
