"""JSON of results: valid for every reader, whatever the caller's records hold."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from dearlite.errors import warn

_COMMANDS = re.compile(r"[\x7f-\x9f]")  # a terminal obeys some of them, and JSON leaves them as they are


class JsonText:
    """Makes JSON that can be encoded as UTF-8, and counts what JSON cannot hold: NaN and infinite numbers become null.

    Numbers of NumPy are numbers; values of other types are written as their text.
    """

    def __init__(self) -> None:
        self.nulls = 0

    def __call__(self, value: Any, indent: int | None = None) -> str:
        """`value` as JSON."""
        try:
            text = _dumps(value, indent, ascii_only=False)
        except ValueError:  # a number that JSON cannot hold
            value = self._with_nulls(value)
            text = _dumps(value, indent, ascii_only=False)
        try:
            text.encode()
        except UnicodeEncodeError:  # half a surrogate pair in the caller's record: escape it, as JSON does
            text = _dumps(value, indent, ascii_only=True)
        return text

    def warn(self) -> None:
        """Warns once of the numbers that were replaced, if there were any."""
        if self.nulls:
            numbers = "1 number is" if self.nulls == 1 else f"{self.nulls} numbers are"
            warn(f"{numbers} NaN or infinite, which JSON cannot hold: written as null")

    def _with_nulls(self, value: Any) -> Any:
        """A copy of `value` with None in place of each number that is not finite."""
        if isinstance(value, Mapping):
            return {name: self._with_nulls(item) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._with_nulls(item) for item in value]
        if isinstance(value, float):
            self.nulls += not math.isfinite(value)
            return value if math.isfinite(value) else None
        if isinstance(value, (str, int, type(None))):
            return value
        return self._with_nulls(_plain(value))


def json_text(value: Any, indent: int | None = None) -> str:
    """`value` as JSON, as `JsonText` makes it, with its warning."""
    to_json = JsonText()
    text = to_json(value, indent)
    to_json.warn()
    return text


def write_rows(rows: Iterable[Any], stream: TextIO) -> None:
    """Writes `rows` to `stream` as JSON Lines, as `JsonText` makes them, with its warning."""
    to_json = JsonText()
    stream.writelines(to_json(row) + "\n" for row in rows)
    to_json.warn()


def _dumps(value: Any, indent: int | None, *, ascii_only: bool) -> str:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent, default=_plain, allow_nan=False)
    return text if ascii_only or (text.isascii() and "\x7f" not in text) else _COMMANDS.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _plain(value: Any) -> Any:
    """A NumPy number or array as Python's own; any other value as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
