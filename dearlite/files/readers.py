"""Readers of document files, one record at a time. FORMATS has one entry per format; each also reads `.gz`.

Each record has a location ("docs.jsonl:7"), so that an error can name it.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from dearlite.documents import Document, as_document
from dearlite.errors import InvalidInput, UsageError, counted, first_line, need
from dearlite.fields import ID_FIELDS, TEXT_FIELDS, USUAL, Fields, find_field, is_known, rival_field
from dearlite.files.json_files import Record, parsed_line, read_json, read_json_lines
from dearlite.files.lines import read_lines
from dearlite.files.streams import open_stream, remedy_for_ending, report_damage
from dearlite.files.tables import TableOptions, csv_reader, read_table
from dearlite.readable import readable


@dataclass(slots=True)
class DocumentFile:
    """The documents of a file with their locations, one line for each record that was skipped, and remarks."""

    documents: list[Document] = field(default_factory=list)
    locations: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def check_run_ids(self) -> None:
        """Raises InvalidInput for equal ids, also that of a document without id, named by its position: of a run."""
        names = [str(number) if doc.id is None else doc.id for number, doc in enumerate(self.documents)]
        repeated = next((name for name, count in Counter(names).items() if count > 1), None)
        if repeated is not None:
            first, second, *_ = (where for name, where in zip(names, self.locations, strict=True) if name == repeated)
            raise InvalidInput(
                f"{second}: id {repeated!r} is already at {first}, and a run names each document once: name another "
                "field (--id-field, '' for positions), or choose another --format"
            )

    def note_ids(self, *, positions: bool) -> None:
        """Adds remarks on equal ids, and with `positions` on documents that are named by their position."""
        counts = Counter(document.id for document in self.documents if document.id is not None)
        repeated = [doc_id for doc_id, count in counts.items() if count > 1]
        if repeated:
            self.notes.append(
                f"{counted(len(repeated), 'document id occurs', 'document ids occur')} more than once "
                f"(first {repeated[0]!r}): all their documents are ranked"
            )
        without = [number for number, document in enumerate(self.documents) if document.id is None]
        records = [self.documents[number].record for number in without]
        names = dict.fromkeys(str(name) for record in records if isinstance(record, Mapping) for name in record)
        if positions and names:
            has = ", ".join(map(repr, list(names)[:6]))
            ids = "its position, from 0, is its id" if len(without) == 1 else "their positions, from 0, are their ids"
            self.notes.append(
                f"{counted(len(without), 'document has', 'documents have')} no id under a known name "
                f"({self.locations[without[0]]} first; it has {has}): {ids}; name the field with --id-field"
            )


def read_documents(
    path: str,
    *,
    format: str | None = None,
    skip_bad: bool = False,
    fields: Fields = USUAL,
    delimiter: str | None = None,
) -> DocumentFile:
    """The documents of `path`; "-" is standard input.

    `format` is a name in FORMATS; None takes the one of the file's suffix, and JSON Lines for standard input. `fields`
    names the fields of a record, `delimiter` the character between the cells of CSV and TSV. With `skip_bad` an
    unusable record is left out and reported; otherwise it raises InvalidInput. Documents may have equal ids.
    """
    if format is not None and format not in FORMATS:
        raise UsageError(f"no document format {format!r}: it is one of {', '.join(FORMATS)}")
    name = "<stdin>" if path == "-" else Path(path).name
    form = format or format_for(path)
    file = DocumentFile()
    options = TableOptions(delimiter, fields.text if isinstance(fields.text, str) else None, notes=file.notes)
    has_title, rivals, guessed = False, False, path == "-" and format is None
    with open_stream(path) as stream:
        for where, record in _documents_in(report_damage(_reader(form, options)(stream, name), name), name, fields):
            try:
                if isinstance(record, InvalidInput):
                    raise record
                if form == "txt" and format is None and not file.documents:
                    _check_text(str(record), where)
                document = as_document(record, where, fields)
            except InvalidInput as err:
                if not skip_bad:
                    remedy = "or go on without it: --skip-bad"
                    if not file.documents and "is not JSON" in str(err):
                        remedy = _STDIN if guessed else f"for another format: --docs-format; {remedy}"
                    raise InvalidInput(f"{err} ({remedy})") from None
                file.skipped.append(str(err))
                continue
            if fields.text is None and not rivals and isinstance(record, Mapping):
                rivals = _note_rivals(file, record, where)
            has_title = has_title or bool(document.title)
            file.documents.append(document)
            file.locations.append(where)
    if not file.documents:
        reason = f" ({file.skipped[0]}{'; ' + _STDIN if guessed else ''})" if file.skipped else ""
        raise InvalidInput(f"{name} holds no {'usable ' if file.skipped else ''}documents: nothing to rank{reason}")
    if isinstance(fields.title, str) and fields.title and not has_title:
        raise UsageError(f"no document of {name} has a field {fields.title!r} for its title: correct --title-field")
    return file


def _note_rivals(file: DocumentFile, record: Mapping[Any, Any], where: str) -> bool:
    """True, with a remark in the file's notes, if `record` has two fields with texts of a document."""
    name, other = rival_field(record, _TEXTS)
    if other:
        file.notes.append(
            f"{where} has the fields {name!r} and {other!r}: {name!r} is ranked (--text-field for another)"
        )
    return bool(other)


# text fields that hold a file's name or a number where another field holds the text
_NAMES_OF_FILES = ("chunk", "document", "doc")
_TEXTS = tuple(name for name in TEXT_FIELDS if name not in _NAMES_OF_FILES)
_LONGEST_HEADER = 10_000  # characters
_STDIN = "standard input is read as JSON Lines; pass --docs-format for another format, txt for a text per line"
# fields of an object whose list holds first-stage results: those are many queries, and the work of `batch`
_QUERY = ("query", "queries", "question")


def _reader(format: str, options: TableOptions) -> Callable[[BinaryIO, str], Iterator[Record]]:
    """The reader of a format with the caller's options. Raises UsageError for a delimiter where there is none."""
    if format in DELIMITERS:
        return lambda stream, name: read_table(stream, name, DELIMITERS[format], options)
    if options.delimiter is not None:
        raise UsageError(f"--delimiter is for CSV and TSV, not for {format}: leave it out, or pass --docs-format csv")
    return FORMATS[format]


def _documents_in(records: Iterator[Record], name: str, fields: Fields) -> Iterator[Record]:
    """`records`; of a file that is one object around a list, the items of the list."""
    first = next(records, None)
    second = None if first is None else next(records, None)
    if first is None:
        return
    if second is not None or not isinstance(first[1], Mapping) or fields.text is not None:
        yield from chain([first] if second is None else [first, second], records)
        return
    record = first[1]
    text_name, text = find_field(record, TEXT_FIELDS, first[0])
    lists = [field for field, value in record.items() if isinstance(value, list) and value]
    is_table = all(isinstance(value, (list, Mapping)) for value in record.values())
    if isinstance(text, (list, Mapping)) and is_table and text_name not in ("document", "doc"):
        raise InvalidInput(
            f"{name} holds whole columns ({', '.join(map(repr, list(record)[:6]))}): write one object per document "
            "(pandas: df.to_json(FILE, orient='records', lines=True))"
        )
    if text is not None or not lists:
        yield first
        return
    if any(field in record for field in _QUERY):
        raise InvalidInput(f"{name} holds a query with its documents: rerank it with dearlite batch {name}")
    if len(lists) > 1:
        raise InvalidInput(
            f"{name} holds an object with several lists ({', '.join(map(repr, lists[:6]))}): give the documents' list"
        )
    for number, item in enumerate(record[lists[0]], start=1):
        yield f"{name} {lists[0]} {number}", item


def reader_for(path: str, options: TableOptions | None = None) -> Callable[[BinaryIO, str], Iterator[Record]]:
    """The reader for the suffix of `path`, of a table with `options`. Raises UsageError for an unknown suffix."""
    return _reader(format_for(path), options or TableOptions())


def format_for(path: str) -> str:
    """The format of the suffix of `path`, JSON Lines for standard input. Raises UsageError for an unknown suffix."""
    if path == "-":
        return "jsonl"
    if not path:
        raise UsageError("the name of the documents' file is empty: name a file")
    suffixes = [suffix.lower().lstrip(".") for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] == "gz":
        suffixes.pop()
    if suffixes and suffixes[-1] in FORMATS:
        return suffixes[-1]
    if os.path.isdir(path):
        raise UsageError(f"cannot read {path}: it is a folder; name a file, with a document per line or per record")
    if not os.path.lexists(path):
        raise UsageError(f"cannot read {path}: no such file or folder")
    if remedy := remedy_for_ending(path):
        raise UsageError(remedy)
    raise UsageError(f"{path}: cannot tell its format from its name: pass --docs-format, one of {', '.join(FORMATS)}")


def _check_text(line: str, where: str) -> None:
    """Raises UsageError if the first line of a .txt file is a record or a header: its rows would be taken for texts."""
    form = "jsonl" if line.startswith("{") and isinstance(parsed_line(line), Mapping) else ""
    # A line of megabytes is a document, whatever it begins with: it is not looked at for names of columns.
    for name, delimiter in DELIMITERS.items() if len(line) <= _LONGEST_HEADER else ():
        cells = line.split(delimiter)
        if any(is_known(cell, ID_FIELDS) for cell in cells) and any(is_known(cell, TEXT_FIELDS) for cell in cells):
            form = name
    if form:
        raise UsageError(f"{where} looks like {form.upper()}: pass --docs-format {form}, or txt for a text per line")


def _read_txt(stream: BinaryIO, name: str) -> Iterator[Record]:
    for where, line in read_lines(stream, name):
        if not isinstance(line, str):
            yield where, line
        elif readable(line):  # a line of invisible characters is as blank as one of spaces
            yield where, line.strip()


def _read_parquet(stream: BinaryIO, name: str) -> Iterator[Record]:
    return read_group(stream, name, None)


def read_group(stream: BinaryIO, name: str, group: int | None) -> Iterator[Record]:
    """The records of a Parquet file, or of its row group `group`."""
    parquet = need("pyarrow.parquet", extra="parquet")
    arrow = need("pyarrow", extra="parquet")
    try:  # a file is read in batches; a pipe must be held in memory
        table = parquet.ParquetFile(stream if stream.seekable() else io.BytesIO(stream.read()))
        columns = Counter(table.schema_arrow.names)
        if repeated := [column for column, count in columns.items() if count > 1]:  # a mapping would keep the last
            raise InvalidInput(f"{name} has two columns of the name {repeated[0]!r}: rename or remove one of them")
        number = 0
        for batch in table.iter_batches(row_groups=None if group is None else [group]):
            for record in batch.to_pylist():
                number += 1
                yield f"{name} row {number}", record
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as err:
        raise InvalidInput(f"{name} is not Parquet ({first_line(err)})") from None


DELIMITERS = {"csv": ",", "tsv": "\t"}
FORMATS: dict[str, Callable[[BinaryIO, str], Iterator[Record]]] = {
    "jsonl": read_json_lines,
    "ndjson": read_json_lines,
    "json": read_json,
    "csv": csv_reader(","),
    "tsv": csv_reader("\t"),
    "txt": _read_txt,
    "parquet": _read_parquet,
}
