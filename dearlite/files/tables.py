"""Readers of CSV and TSV: a header with the names of the columns, and a row per record. No cell is lost in silence.

A row that does not fit is an error of its own, so that the rows after it can be read.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import BinaryIO

from dearlite.errors import InvalidInput, counted
from dearlite.fields import ID_FIELDS, QUERY_FIELDS, QUERY_ID_FIELDS, TEXT_FIELDS, TITLE_FIELDS, is_known
from dearlite.files.json_files import Record
from dearlite.files.quoting import has_quoted_cells
from dearlite.files.streams import utf8_remedy

Row = tuple[int, list[str] | InvalidInput]  # number of its first line, cells
Line = tuple[int, str]

_TEXTS = (*TEXT_FIELDS, *TITLE_FIELDS, *QUERY_FIELDS)
_NAMES = (*_TEXTS, *ID_FIELDS, *QUERY_ID_FIELDS)
_DELIMITERS = ",\t;|"
_NAMES_OF_DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "pipe"}
_EXCEL_LINE = re.compile(r'"?sep=(.)"?\s*$', re.IGNORECASE)
_BAD_BYTE = re.compile("[\udc80-\udcff]")
_WINDOW = 10_000  # lines of a TSV file that decide if quotation marks are around its cells


@dataclass(slots=True)
class TableOptions:
    """The caller's delimiter of a table and its column of texts. `notes` gets remarks, a line each.

    A collection's TSV of an id and a text is not expected to have a header: with `collection` this is not told.
    """

    delimiter: str | None = None
    text: str | None = None  # None: a known name
    collection: bool = False
    notes: list[str] = field(default_factory=list)


def read_table(stream: BinaryIO, name: str, delimiter: str, options: TableOptions | None = None) -> Iterator[Record]:
    """A record per row of a table, by the names in its first row; `delimiter` is that of the file's ending.

    Another delimiter is taken if the caller, or a line `sep=;` of Excel, names it, or if only with it the header names
    a text. Raises InvalidInput for a header without a text, or with two columns of one name.
    """
    csv.field_size_limit(2**31 - 1)  # a document of a megabyte is one field
    options = options or TableOptions()
    lines = _lines(stream)
    first = next(lines, None)
    if first is None:
        return
    if first[1].lstrip().startswith(("{", "[")):
        raise InvalidInput(
            f"{name}:{first[0]} is JSON, not a header: name the file .jsonl, or pass --docs-format jsonl"
        )
    excel = _EXCEL_LINE.match(first[1])
    if excel:
        first = next(lines, None)
        if first is None:
            return
    chosen = options.delimiter or (excel and excel[1]) or _delimiter_of(first[1], delimiter, options)
    rows = _rows(chain([first], lines), name, chosen, options)
    number, header = next(rows, (0, []))
    if isinstance(header, InvalidInput):
        raise header
    columns = _columns(header, f"{name}:{number}", chosen, options)
    if columns is None:  # MS MARCO's collections have no header
        if not options.collection:
            options.notes.append(f"{name} has no header: its two columns are read as id and text")
        columns, rows = ["_id", "text"], chain([(number, header)], rows)
    yield from _records(rows, name, columns, len(header), chosen, options)


def _records(
    rows: Iterator[Row], name: str, columns: list[str], width: int, delimiter: str, options: TableOptions
) -> Iterator[Record]:
    """The records of `rows`. `width` is the number of cells of the header; those after the last name must be empty."""
    short: list[str] = []
    text_at = min(number for number, column in enumerate(columns) if _is_text(column, options))
    for number, cells in rows:
        where = f"{name}:{number}"
        if isinstance(cells, InvalidInput):
            yield where, cells
        elif any(map(_has_bad_byte, cells)):
            raw = delimiter.join(cells).encode(errors="surrogateescape")
            yield where, InvalidInput(f"{where} is not UTF-8: {utf8_remedy(raw)}")
        elif len(columns) > 1 and [cell.removeprefix("\ufeff") for cell in cells] == columns:
            yield where, InvalidInput(f"{where} repeats the header, as joined files do: remove it")
        elif len(cells) > width or any(cells[len(columns) :]):
            yield where, InvalidInput(_beyond(where, cells, columns, delimiter))
        else:
            if len(cells) < len(columns):
                short.append(where)
            record = dict(zip(columns, cells, strict=False))
            if len(cells) <= text_at:
                missing = ", ".join(columns[len(cells) :])
                yield (
                    where,
                    InvalidInput(
                        f"{where} has {counted(len(cells), 'cell')} instead of {len(columns)}: it has no {missing}"
                    ),
                )
            else:
                yield where, record
    if short:
        options.notes.append(
            f"{name}: {counted(len(short), 'row has', 'rows have')} fewer cells than the header ({short[0]} first): "
            "the others count as empty"
        )


def _beyond(where: str, cells: list[str], columns: list[str], delimiter: str) -> str:
    rest = delimiter.join(cells[len(columns) :])
    remedy = (
        "take the tabs out of the text" if delimiter == "\t" else "put the text in quotation marks"
    ) + ", or say what separates the cells (--delimiter)"
    cells_are = counted(len(cells), "cell")
    return f"{where} has {cells_are} instead of {len(columns)} ({rest[:40]!r} is beyond the last): {remedy}"


def _is_text(column: str, options: TableOptions) -> bool:
    return is_known(column, (options.text,) if options.text else _TEXTS)


def _columns(header: list[str], where: str, delimiter: str, options: TableOptions) -> list[str] | None:
    """The names of the columns; None if the first row is none of names but, in TSV, an id and a text."""
    if any(map(_has_bad_byte, header)):
        raw = delimiter.join(header).encode(errors="surrogateescape")
        raise InvalidInput(f"{where} is not UTF-8: {utf8_remedy(raw)}")
    while header and not header[-1].strip():
        header = header[:-1]
    repeated = [column for column, count in Counter(map(str.strip, header)).items() if column and count > 1]
    if repeated:
        raise InvalidInput(f"{where} has two columns of the name {repeated[0]!r}: rename or remove one of them")
    if not any(_is_text(column, options) for column in header):
        if delimiter == "\t" and len(header) == 2 and not options.text and not any(is_known(c, _NAMES) for c in header):
            return None
        raise InvalidInput(_no_text(header, where, delimiter, options))
    return [column if column.strip() else f"Unnamed: {number}" for number, column in enumerate(header)]  # as pandas


def _no_text(header: list[str], where: str, delimiter: str, options: TableOptions) -> str:
    """The message for a header that names no text."""
    has = ", ".join(repr(column[:40]) for column in header[:6])
    if options.text:
        return f"{where} has no column {options.text!r} for its text (it has {has})"
    others = [other for other in _DELIMITERS if len(header) == 1 and other != delimiter and other in header[0]]
    name = _NAMES_OF_DELIMITERS.get(delimiter, repr(delimiter))
    if others:
        remedy = (
            f"cells are separated by a {name}; if it is a {_NAMES_OF_DELIMITERS[others[0]]}: --delimiter {others[0]!r}"
        )
    elif len(header) == 1:
        remedy = (
            "write the names of the columns in the first row (id, text), or pass --docs-format txt for a text per line"
        )
    else:
        remedy = "name the column that is the text (--text-field), or write the names of the columns in the first row"
    return f"{where} has no text among its columns (it has {has}): {remedy}"


def _delimiter_of(header: str, usual: str, options: TableOptions) -> str:
    """`usual`, unless another delimiter is the only one with which `header` names a text."""

    def names_a_text(delimiter: str) -> bool:
        try:
            cells = next(csv.reader([header], delimiter=delimiter), [])
        except csv.Error:
            return False
        return any(_is_text(cell, options) for cell in cells)

    if names_a_text(usual):
        return usual
    others = [other for other in _DELIMITERS if names_a_text(other)]
    return others[0] if len(others) == 1 else usual


def _lines(stream: BinaryIO) -> Iterator[Line]:
    """Number and text of each line from the first that is not blank; bytes that are not UTF-8 become surrogates."""
    started = False
    with io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="") as text:
        for number, line in enumerate(text, start=1):
            started = started or bool(line.strip())
            if started:
                yield number, line


def _rows(lines: Iterator[Line], name: str, delimiter: str, options: TableOptions) -> Iterator[Row]:
    """The rows that are not blank. In TSV quotation marks are text, unless they are around cells as in CSV."""
    if delimiter != "\t":
        return _quoted_rows(lines, name, delimiter)
    window = list(islice(lines, _WINDOW))
    quoted, note = has_quoted_cells([line for _, line in window], name, complete=len(window) < _WINDOW)
    if note:
        options.notes.append(note)
    lines = chain(window, lines)
    return _quoted_rows(lines, name, delimiter) if quoted else _plain_rows(lines)


def _plain_rows(lines: Iterator[Line]) -> Iterator[Row]:
    for number, line in lines:
        if line.strip("\r\n"):
            yield number, line.rstrip("\r\n").split("\t")


def _quoted_rows(lines: Iterator[Line], name: str, delimiter: str) -> Iterator[Row]:
    """Rows by the rules of CSV. After a row that breaks them, reading goes on with the line after its first."""
    waiting: deque[Line] = deque()
    used: list[Line] = []

    def feed() -> Iterator[str]:
        while True:
            line = waiting.popleft() if waiting else next(lines, None)
            if line is None:
                return
            used.append(line)
            yield line[1]

    def start() -> Iterator[list[str]]:
        return csv.reader(feed(), delimiter=delimiter, strict=True)

    rows = start()
    while True:
        used.clear()
        try:
            cells = next(rows, None)
        except csv.Error as err:
            number = used[0][0]
            waiting.extendleft(reversed(used[1:]))
            rows = start()
            yield number, InvalidInput(f"{name}:{number} {_damage(err)}")
            continue
        if cells is None:
            return
        if cells:
            yield used[0][0], _after_spaces(cells, used, f"{name}:{used[0][0]}", delimiter)


def _damage(err: csv.Error) -> str:
    if "end of data" in str(err):
        return 'has a quoted cell that is never closed: double a quotation mark that is part of a text ("")'
    if "expected after" in str(err):
        return 'has a quotation mark within a quoted cell: double it ("")'
    return f"is not CSV ({err})"


def _after_spaces(cells: list[str], lines: list[Line], where: str, delimiter: str) -> list[str] | InvalidInput:
    """`cells`; where spaces stand before a quoted cell, which CSV takes for text, the cells without these spaces."""
    if not any(cell.startswith(" ") and cell.lstrip(" ").startswith('"') for cell in cells):
        return cells
    text = "".join(line for _, line in lines)
    if not re.search(f'(?:^|{re.escape(delimiter)}) +"', text):
        return cells
    try:
        (again,) = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    except (csv.Error, ValueError):
        return InvalidInput(f"{where} has a space before a quotation mark: remove it, so that it opens a cell")
    return again


def _has_bad_byte(text: str) -> bool:
    """True if `surrogateescape` replaced a byte of `text`."""
    return not text.isascii() and _BAD_BYTE.search(text) is not None


def csv_reader(delimiter: str) -> Callable[[BinaryIO, str], Iterator[Record]]:
    """The reader of tables with `delimiter`, as a function of a stream and a name."""

    def read(stream: BinaryIO, name: str) -> Iterator[Record]:
        return read_table(stream, name, delimiter)

    return read
