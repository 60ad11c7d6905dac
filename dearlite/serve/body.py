"""The JSON object of a request: its fields are read by name and type, and those that were not read are known."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NoReturn

from dearlite.errors import InvalidInput
from dearlite.files.json_files import TwoValues, object_of

_MOST = 2**31  # of a number in a request
_SHOWN_NAMES = 8


def parse_json(data: bytes, what: str = "the body") -> Any:
    """The JSON value in `data`, which messages call `what`.

    Raises InvalidInput, also for NaN, numbers beyond a float, two values of a field, invalid UTF-8 and brackets nested
    too deeply.
    """
    try:
        return json.loads(
            data.decode("utf-8-sig"),
            parse_constant=partial(_no_constant, what),
            parse_float=partial(_finite, what),
            object_pairs_hook=object_of,
        )
    except UnicodeDecodeError as err:
        raise InvalidInput(f"{what} is not UTF-8 (byte 0x{data[err.start]:02x} at {err.start}): send UTF-8") from None
    except RecursionError:
        raise InvalidInput(f"{what} is nested too deeply: send a flat list of documents") from None
    except TwoValues as err:
        raise InvalidInput(f"{what} {err}") from None
    except InvalidInput:
        raise
    except ValueError as err:
        raise InvalidInput(f"{what} is not JSON ({err}): send a JSON object") from None


def _no_constant(what: str, name: str) -> NoReturn:
    raise InvalidInput(f"{what} holds {name}, which is not JSON: send a number or null")


def _finite(what: str, text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise InvalidInput(f"{what} holds {text[:20]}, which is out of range: send a number up to 1e308")
    return number


class Body:
    """The fields of a request. Each reader marks its field as read; null is a field that is left out.

    Of several names of one field the first with a value counts; `overruled` has the others that differ from it.
    """

    def __init__(self, value: object) -> None:
        """Raises InvalidInput unless `value` is a JSON object."""
        if not isinstance(value, Mapping):
            raise InvalidInput(f"the body is {kind_of(value)}: send an object with a query and documents")
        self._fields: Mapping[str, Any] = value
        self._read: set[str] = set()
        self.overruled: dict[str, str] = {}  # a field -> the one that counts in its place

    def value(self, *names: str) -> tuple[str, Any]:
        """The first of the fields `names` that has a value, and the value; the first name and None without one."""
        self._read.update(names)
        values = [(name, self._fields[name]) for name in names if self._fields.get(name) is not None]
        if not values:
            return names[0], None
        self.overruled.update({name: values[0][0] for name, value in values[1:] if value != values[0][1]})
        return values[0]

    def has(self, name: str) -> bool:
        """True if the field has a value; it does not count as read."""
        return self._fields.get(name) is not None

    def texts(self, name: str) -> list[str]:
        """A list of strings, empty if it is left out. Raises InvalidInput for another value."""
        values = self.value(name)[1]
        if values is None:
            return []
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise InvalidInput(f"{name} must be a list of strings")
        return values

    def text(self, *names: str) -> str | None:
        """A string, or the text of an object that has one. Raises InvalidInput for another value."""
        name, value = self.value(*names)
        if isinstance(value, Mapping) and isinstance(value.get("text"), str):
            value = value["text"]
        if value is not None and not isinstance(value, str):
            raise InvalidInput(f"{name} is {kind_of(value)}: it must be a string")
        return value

    def flag(self, *names: str) -> bool | None:
        """True or false. Raises InvalidInput for another value."""
        name, value = self.value(*names)
        if value is not None and not isinstance(value, bool):
            raise InvalidInput(f"{name} is {kind_of(value)}: it must be true or false")
        return value

    def number(self, *names: str) -> float | None:
        """A finite number. Raises InvalidInput for another value."""
        name, value = self.value(*names)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InvalidInput(f"{name} is {kind_of(value)}: it must be a number")
        if not -_MOST <= value <= _MOST or (isinstance(value, float) and math.isnan(value)):
            raise InvalidInput(f"{name} is out of range: it must be a number up to {_MOST}")
        return value

    def whole(self, *names: str, least: int = 0) -> int | None:
        """A whole number from `least`. Raises InvalidInput for another value."""
        name, value = self.value(*names)
        number = self.number(name)
        if number is None:
            return None
        if number != int(number) or number < least:
            raise InvalidInput(f"{name} is {value}: it must be a whole number from {least}")
        return int(number)

    def items(self, *names: str) -> tuple[str, list[Any]]:
        """A list, and the name of its field. Raises InvalidInput for another value, and for an empty list."""
        name, value = self.value(*names)
        if value is None:
            raise InvalidInput(f"{name} is missing: send a list of strings")
        if not isinstance(value, list):
            raise InvalidInput(f"{name} is {kind_of(value)}: it must be a list of strings or of objects with a text")
        if not value:
            raise InvalidInput(f"{name} is empty: send at least one document")
        return name, value

    def without_effect(self) -> list[str]:
        """A sentence about the fields that were not read, and one about each that another field overrules."""
        sentences = [f"the field {name!a} has no effect beside {winner}" for name, winner in self.overruled.items()]
        if unread := self.unread():
            names = ", ".join(ascii(name[:40]) for name in unread[:_SHOWN_NAMES])
            sentences.append(f"fields without effect here: {names}" + (", ..." if len(unread) > _SHOWN_NAMES else ""))
        return sentences

    def unread(self) -> list[str]:
        """The names of the fields that have a value and that no reader was called for."""
        return [name for name, value in self._fields.items() if name not in self._read and value is not None]


def kind_of(value: object) -> str:
    """The kind of a JSON value in words."""
    names = {str: "a string", bool: "true or false", list: "a list", type(None): "null", dict: "an object"}
    return names.get(type(value), "a number")


def documents_are(number: int, total: int) -> str:
    """The subject and verb of a sentence about documents. Example: 1, 2 -> "1 of 2 documents is"."""
    return f"{number} of {total} documents {'is' if number == 1 else 'are'}"
