"""Columns of runs and judgements: how a file separates them, and which are the query, the document and the number.

Text (spaces, tabs, commas, semicolons, with a header or without), JSON, JSON Lines and Parquet. `trec` decides what the
numbers mean.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from dearlite.errors import InvalidInput, counted
from dearlite.fields import ID_FIELDS, QUERY_ID_FIELDS
from dearlite.files.lines import read_lines
from dearlite.files.readers import reader_for
from dearlite.files.streams import open_stream, report_damage

Row = tuple[str, Sequence[object] | InvalidInput]  # location, cells
_WORDS = {"query": "qid", "document": "docid"}
_SAMPLE = 20  # lines that decide how a file separates its columns
_RECORDS = {".jsonl", ".ndjson", ".parquet"}


def plain_name(name: object) -> str:
    """A column's name without case, spaces and punctuation: `Query-ID` and `query_id` are "queryid"."""
    return re.sub(r"[\W_]", "", str(name)).lower()


# role -> names of its column, in order of precedence, as `plain_name` gives them
_QUERY = ("queryid", "qid", *map(plain_name, QUERY_ID_FIELDS[2:]), "topicid", "topic", "qno", "query")
_DOCUMENT = (
    *("docno", "corpusid", "docid", "documentid", "pid", "passageid", "did"),
    *map(plain_name, ID_FIELDS),
    *("doc", "document", "passage"),
)
QRELS = {
    "query": _QUERY,
    "document": _DOCUMENT,
    "grade": ("relevance", "rel", "grade", "label", "judgment", "judgement", "qrel", "score", "relevancelabel", "gain"),
}
RUN = {
    "query": _QUERY,
    "document": _DOCUMENT,
    "score": ("score", "sim", "similarity", "rsv"),
    "rank": ("rank", "ranking", "position"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The columns of a kind of file: `roles` for headers, `widths` (number of columns -> roles) for other files."""

    kind: str  # "a run" or "qrels", for messages
    roles: Mapping[str, Sequence[str]]
    numbers: Sequence[str]  # roles of which one at least must be there
    widths: Mapping[int, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Table:
    """An open file: `columns` is role -> position of its cell, `width` the number of columns of a file of text."""

    columns: Mapping[str, int]
    rows: Iterator[Row]
    width: int = 0


@contextmanager
def open_table(path: str | Path, layout: Layout) -> Iterator[Table]:
    """The rows of the file `path`. Raises InvalidInput if its columns are not those of `layout`."""
    name = Path(path).name
    with closing(open_stream(str(path))) as stream:
        suffixes = [suffix.lower() for suffix in Path(path).suffixes if suffix.lower() != ".gz"]
        suffix = suffixes[-1] if suffixes else ""
        if suffix == ".json":
            yield _of_json(stream, name, layout)
        elif suffix in _RECORDS:
            yield _of_records(report_damage(reader_for(str(path))(stream, name), name), name, layout)
        else:
            yield _of_lines(report_damage(read_lines(stream, name), name), name, layout)


def column_roles(
    names: Sequence[object], roles: Mapping[str, Sequence[str]], numbers: Sequence[str], where: str
) -> dict[str, int] | None:
    """Role -> position in `names`; None unless they name a query, a document and one of `numbers`.

    Of two columns for one role the first in order of precedence counts; two of one name raise InvalidInput.
    """
    plain = [plain_name(name) for name in names]
    columns: dict[str, int] = {}
    for role, spellings in roles.items():
        for spelling in spellings:
            if spelling not in plain or plain.index(spelling) in columns.values():
                continue
            if plain.count(spelling) > 1:
                raise InvalidInput(f"{where} has two columns {names[plain.index(spelling)]!r}: keep one")
            columns[role] = plain.index(spelling)
            break
    complete = "query" in columns and "document" in columns and any(role in columns for role in numbers)
    return columns if complete else None


# text


def _of_lines(lines: Iterator[tuple[str, str | InvalidInput]], name: str, layout: Layout) -> Table:
    first = list(islice(lines, _SAMPLE))
    texts = [line for _, line in first if isinstance(line, str)]
    rest = chain(first, lines)
    if not texts:
        return Table({}, ((where, line) for where, line in rest if isinstance(line, InvalidInput)))
    if texts[0].lstrip().startswith(('{"', '["', "[{")):
        raise InvalidInput(f"{name} looks like JSON: name the file .json or .jsonl")
    separator = _separator(texts, layout)
    at = next(number for number, (_, line) in enumerate(first) if isinstance(line, str))
    header = separator.cells(texts[0])
    columns = column_roles(header, layout.roles, layout.numbers, first[at][0])
    if columns is not None:
        width, words = len(header), " ".join(header)
        rest = chain(first[:at], first[at + 1 :], lines)
    else:
        counts = Counter(len(separator.cells(line, layout.widths)) for line in texts)
        width = next((width for width, _ in counts.most_common() if width in layout.widths), max(layout.widths))
        roles = layout.widths[width]
        columns = {role: position for position, role in enumerate(roles) if role in layout.roles or role == "number"}
        words = " ".join(_WORDS.get(role, role) for role in roles)
    return Table(columns, _split_rows(rest, separator, width, f"{width} of {layout.kind} ({words})"), width)


def _split_rows(
    lines: Iterator[tuple[str, str | InvalidInput]], separator: _Separator, width: int, words: str
) -> Iterator[Row]:
    widths = (width,)
    for where, line in lines:
        if isinstance(line, InvalidInput):
            yield where, line
            continue
        cells = separator.cells(line, widths)
        if len(cells) == width:
            yield where, cells
        else:
            hint = _hint(line, len(cells))
            yield where, InvalidInput(f"{where} has {counted(len(cells), 'column')} instead of the {words}{hint}")


@dataclass(frozen=True, slots=True)
class _Separator:
    """The separation of the cells of a file: by `delimiter`, as CSV does, or by tabs or words (None).

    With `tabs` a line is split at its tabs if that gives the number of cells that is expected, so that an id may hold
    spaces; otherwise, or if not, into words.
    """

    delimiter: str | None = None
    tabs: bool = False

    def cells(self, line: str, widths: Container[int] = ()) -> list[str]:
        """The cells of a line that should have one of `widths`; () expects nothing. What is no CSV is one cell."""
        line = line.strip("\r\n")
        if self.delimiter is not None:
            try:
                rows = csv.reader([line], delimiter=self.delimiter, skipinitialspace=True)
                return [cell.strip() for cell in next(rows, [])]
            except csv.Error:  # a carriage return within the line, a cell of more than 128 KiB
                return [line]
        words = line.split()
        if "\t" not in line or (not self.tabs and (not widths or len(words) in widths)):
            return words
        cells = [cell.strip() for cell in line.split("\t")]
        return cells if not widths or len(cells) in widths else words


def _separator(lines: Sequence[str], layout: Layout) -> _Separator:
    """The separator of a file with these first lines."""
    words = lines[0].split()
    for delimiter in ",;":
        if delimiter not in lines[0] or "\t" in lines[0]:
            continue
        cells = _Separator(delimiter).cells(lines[0])
        fits = len(cells) in layout.widths or column_roles(cells, layout.roles, layout.numbers, "") is not None
        is_list = all(word.endswith(delimiter) for word in words[:-1]) or f'"{delimiter}' in lines[0]
        if (fits and len(words) not in layout.widths) or (len(cells) > 2 and is_list):
            return _Separator(delimiter)
    if '"\t' in lines[0]:
        return _Separator("\t")
    is_header = column_roles(_Separator(tabs=True).cells(lines[0]), layout.roles, layout.numbers, "") is not None
    # TREC's own form may have tabs and spaces mixed: its second column, Q0 or 0, tells it
    is_trec = all(len(row) == max(layout.widths) and row[1] in ("0", "Q0") for row in map(str.split, lines))
    counts = {line.count("\t") + 1 for line in lines}
    return _Separator(tabs=is_header or (not is_trec and len(counts) == 1 and counts <= layout.widths.keys()))


def _hint(line: str, columns: int) -> str:
    """Words for a line whose shape is known, or nothing."""
    if line.lstrip().startswith("#"):
        return ": it looks like a comment, which these files do not have: remove it"
    return {6: ": it looks like a line of a run", 2: ": it has no number in a third column"}.get(columns, "")


# JSON and Parquet


def _of_json(stream: BinaryIO, name: str, layout: Layout) -> Table:
    """`{"query": {"document": number}}`, `{"query": ["document", …]}`, or a list of records."""
    try:
        data = json.loads(b"".join(report_damage(iter(stream), name)).decode("utf-8-sig"), object_pairs_hook=_object)
    except (ValueError, RecursionError) as err:
        raise InvalidInput(f"{name} is not JSON ({' '.join(str(err).split())}): write it again as JSON") from None
    if isinstance(data, list):
        return _of_records(((f"{name} item {number}", item) for number, item in enumerate(data, start=1)), name, layout)
    if not isinstance(data, dict):
        raise InvalidInput(
            f"{name} is one {type(data).__name__}: {layout.kind} is of the form {{query id: {{document id: number}}}}"
        )
    if column_roles(list(data), layout.roles, layout.numbers, name) is not None:
        return _of_records(iter([(name, data)]), name, layout)
    return Table({"query": 0, "document": 1, layout.numbers[0]: 2}, _nested(data, name, layout))


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object. Raises ValueError for two values of one name, of which json.loads would drop the first."""
    names = Counter(name for name, _ in pairs)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"{twice[0]!r} comes twice in an object")
    return dict(pairs)


def _nested(data: Mapping[str, object], name: str, layout: Layout) -> Iterator[Row]:
    for query_id, entries in data.items():
        where = f"{name}, query {query_id!r}"
        if isinstance(entries, Mapping):
            yield from ((f"{where}, document {key!r}", (query_id, key, value)) for key, value in entries.items())
        elif isinstance(entries, list) and layout.kind == "a run":
            yield from ((where, (query_id, key, -rank)) for rank, key in enumerate(entries, start=1))
        else:
            yield where, InvalidInput(f"{where} has a {type(entries).__name__}: it must be {{document id: number}}")


def _of_records(records: Iterator[tuple[str, object]], name: str, layout: Layout) -> Table:
    """Records with a field for each role."""
    order = tuple(layout.roles)

    def rows() -> Iterator[Row]:
        for where, record in records:
            if isinstance(record, InvalidInput):
                yield where, record
                continue
            keys = list(record) if isinstance(record, Mapping) else []
            columns = column_roles(keys, layout.roles, layout.numbers, where)
            if columns is not None:
                assert isinstance(record, Mapping)
                values = [record[keys[columns[role]]] if role in columns else None for role in order]
                yield where, values
            elif keys and all(isinstance(value, Mapping) for value in record.values()):  # type: ignore[attr-defined]
                for row_where, cells in _nested(record, where, layout):  # type: ignore[arg-type]
                    yield row_where, _spread(cells, order, layout)
            else:
                needs = f"a query id, a document id and a {' or a '.join(layout.numbers)}"
                has = f" (it has {', '.join(map(repr, keys[:6]))})" if keys else ""
                yield where, InvalidInput(f"{where} is no row of {layout.kind}{has}: it needs {needs}")

    return Table({role: position for position, role in enumerate(order)}, rows())


def _spread(
    cells: Sequence[object] | InvalidInput, order: Sequence[str], layout: Layout
) -> Sequence[object] | InvalidInput:
    if isinstance(cells, InvalidInput):
        return cells
    values = dict(zip(("query", "document", layout.numbers[0]), cells, strict=True))
    return [values.get(role) for role in order]
