"""Readers of JSON: JSON Lines, and lists and objects over several lines.

The content decides, not the name of the file.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from itertools import accumulate, chain
from typing import Any, BinaryIO

from dearlite.errors import InvalidInput
from dearlite.files.lines import not_utf8, raw_lines

# (location, record); the record is an InvalidInput if it cannot be read
Record = tuple[str, object | InvalidInput]
_BLANK = re.compile(r"[ \t\r\n]*")


def read_json_lines(stream: BinaryIO, name: str) -> Iterator[Record]:
    """The records of JSON Lines; of a file that is one list its items; of objects over several lines the objects."""
    return _read(stream, name, listed=False)


def read_json(stream: BinaryIO, name: str) -> Iterator[Record]:
    """The items of a list; of a file that is JSON Lines its records; of a file that is one object, the object."""
    return _read(stream, name, listed=True)


def parsed_line(line: str) -> object:
    """The JSON value of `line`; an InvalidInput if it has none."""
    return _parsed(line.encode(), "the line")


def _read(stream: BinaryIO, name: str, *, listed: bool) -> Iterator[Record]:
    lines = raw_lines(stream)
    head: list[bytes] = []
    for raw in lines:
        head.append(raw)
        if raw.strip():
            break
    else:
        return
    parsed = _parsed(head[-1], f"{name}:{len(head)}")
    if isinstance(parsed, _NotJson) and parsed.whole:
        yield from _read_whole([*head, *lines], name, listed=listed)
        return
    rest = _read_each(lines, name, len(head) + 1)
    second = next(rest, None)
    if second is None and not isinstance(parsed, InvalidInput) and (listed or isinstance(parsed, list)):
        yield from _of_one_value(parsed, name)
    elif listed and isinstance(parsed, _NotJson):
        raise InvalidInput(f"{name} is not JSON ({parsed.reason}): {_REMEDY}")
    else:
        yield f"{name}:{len(head)}", parsed
        yield from chain([] if second is None else [second], rest)


def _read_each(lines: Iterator[bytes], name: str, start: int) -> Iterator[Record]:
    """A record per line that is not blank; `start` is the number of the first line."""
    for number, raw in enumerate(lines, start):
        if raw.strip():
            where = f"{name}:{number}"
            yield where, _parsed(raw, where)


def _read_whole(lines: list[bytes], name: str, *, listed: bool) -> Iterator[Record]:
    """The records of a file whose first line is no complete JSON value."""
    data = b"".join(lines)
    try:
        values = list(_values(data.decode()))
    except UnicodeDecodeError as err:
        ends = list(accumulate(map(len, lines)))  # the lines may end with carriage returns
        number = bisect_right(ends, err.start)
        start = err.start - (ends[number] - len(lines[number]))
        raise not_utf8(f"{name}:{number + 1}", lines[number], start) from None
    except (ValueError, RecursionError) as err:
        if not listed and _is_json_lines([raw for raw in lines if raw.strip()]):
            yield from _read_each(iter(lines), name, 1)
            return
        reason = str(err) if isinstance(err, TwoValues) else f"is not JSON ({_reason(err, name)}): {_REMEDY}"
        raise InvalidInput(f"{name} {reason}") from None
    if len(values) == 1:
        yield from _of_one_value(values[0][1], name)
        return
    for position, value in values:
        yield f"{name}:{data[:position].count(10) + 1}", value


def _is_json_lines(lines: list[bytes]) -> bool:
    """True if `lines`, of which the first is damaged, are JSON Lines: it is the only one, or others are objects."""
    first, *others = lines
    if first.lstrip().startswith(b"["):
        return False
    return not others or any(raw.startswith(b"{") and isinstance(_parsed(raw, ""), Mapping) for raw in others)


_REMEDY = "it must be JSON Lines, an object per line, or one list of objects"


def _of_one_value(value: object, name: str) -> Iterator[Record]:
    """The records of a file that is one JSON value."""
    if isinstance(value, list):
        for number, record in enumerate(value, start=1):
            yield f"{name} item {number}", record
    elif isinstance(value, Mapping):
        yield name, value
    else:
        raise InvalidInput(f"{name} holds one {type(value).__name__}: it must be a list of documents")


def _values(text: str) -> Iterator[tuple[int, object]]:
    """Position, in bytes, and value of each JSON value of `text`, which spaces and newlines separate."""
    position, end, size = 0, _after_blanks(text, 0), 0
    while end < len(text):
        size += len(text[position:end].encode())
        value, position = _DECODER.raw_decode(text, end)
        yield size, value
        size += len(text[end:position].encode())
        end = _after_blanks(text, position)


def _after_blanks(text: str, position: int) -> int:
    blank = _BLANK.match(text, position)
    return blank.end() if blank else position


class _NotJson(InvalidInput):
    """A line that is not JSON; `whole` is True if it may be the beginning of a file that is."""

    def __init__(self, where: str, reason: str, *, whole: bool) -> None:
        super().__init__(f"{where} is not JSON ({reason}): each line must be one JSON object")
        self.reason, self.whole = reason, whole


class TwoValues(ValueError):
    """An object has a field twice."""


def _parsed(raw: bytes, where: str) -> object:
    """The JSON value of a line; an InvalidInput if it has none."""
    try:
        line = raw.removeprefix(BOM_UTF8).decode().rstrip("\r\n")  # `cat` leaves the mark of each file
    except UnicodeDecodeError as err:
        return not_utf8(where, raw, err.start)
    try:
        return _DECODER.decode(line)
    except TwoValues as err:
        return InvalidInput(f"{where} {err}")
    except (ValueError, RecursionError) as err:
        whole = isinstance(err, json.JSONDecodeError) and (
            err.pos >= len(line.rstrip()) or (err.msg == "Extra data" and line.lstrip().startswith("{"))
        )
        return _NotJson(where, _reason(err, ""), whole=whole)


def _reason(err: Exception, name: str) -> str:
    if isinstance(err, json.JSONDecodeError):
        end = ", where it ends" if err.pos >= len(err.doc.rstrip()) else ""
        return f"{err.msg} at {f'line {err.lineno} ' if name else ''}column {err.colno}{end}"
    return "nested too deeply" if isinstance(err, RecursionError) else "a number in it is too long"


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of `pairs`. Raises TwoValues for a field with two values: JSON keeps the last in silence."""
    record = dict(pairs)
    if len(record) < len(pairs):
        for name, value in pairs:
            if repr(record[name]) != repr(value):
                raise TwoValues(f"has the field {name!r} twice with different values: keep one of them")
    return record


_DECODER = json.JSONDecoder(object_pairs_hook=object_of)
