"""Types of option values that click does not have: a duration, memory, GPU layers, a range of actors, a character."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import click

from dearlite.deadline import check_budget
from dearlite.errors import UsageError

Command = Callable[..., None]
Option = Callable[[Command], Command]  # the decorator that click.option returns

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "": 1.0}  # "ms" before "s": the first that the text ends with counts
_SIZES = {"gib": 2**30 / 1e6, "mib": 2**20 / 1e6, "gb": 1000.0, "mb": 1.0}
_DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


def with_options(command: Command, options: Sequence[Option]) -> Command:
    """`command` with `options`, which --help lists in this order and before the options that it has already."""
    for option in reversed(options):
        command = option(command)
    return command


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5 only
    """A duration in seconds as a float, from `5s`, `500ms`, `2m` or a bare number."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        unit = next(unit for unit in _UNITS if text.endswith(unit))
        try:
            return check_budget(float(text.removesuffix(unit)) * _UNITS[unit])
        except (ValueError, UsageError):
            self.fail(f"{str(value)!r} is not a time above 0, such as 5s, 500ms or 2m", param, ctx)


class Size(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5 only
    """An amount of memory in MB of 10^6 bytes as a float, from `8GB`, `512MB` or `1.5GiB`."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip().lower()
        unit = next((unit for unit in _SIZES if text.endswith(unit)), "")
        try:
            size = float(text.removesuffix(unit)) * _SIZES[unit]
        except (KeyError, ValueError):
            size = 0.0
        if not 0 < size < math.inf:
            self.fail(f"{str(value)!r} is not an amount of memory, such as 8GB or 512MB", param, ctx)
        return size


class GpuLayers(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5 only
    """A number of layers as an int, or None for `auto`."""

    name = "auto|n"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        text = str(value)
        if text == "auto":
            return None
        if not text.isdecimal():
            self.fail(f"{text!r} is neither auto, nor a whole number from 0", param, ctx)
        return int(text)


class ActorRange(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5 only
    """The smallest and the largest number of actors, from `N` or `MIN-MAX`. Example: "4" -> (4, 4)."""

    name = "n|min-max"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        text = str(value)
        least, _, most = text.partition("-")
        most = most or least
        if not (least.isdecimal() and most.isdecimal() and 1 <= int(least) <= int(most)):
            self.fail(f"{text!r} is neither a whole number from 1, nor a range MIN-MAX of them", param, ctx)
        return int(least), int(most)


class Delimiter(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5 only
    """One character that separates cells, from itself or its name. Example: "semicolon" -> ";"."""

    name = "char"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = _DELIMITERS.get(str(value).lower(), str(value))
        if len(text) != 1 or text in '"\r\n':
            self.fail(f"{str(value)!r} is not one character, such as ';' or tab", param, ctx)
        return text
