"""Readers of document files, one record at a time. FORMATS has one entry per format; each also reads `.gz`.

Each record has a location ("docs.jsonl:7"), so that an error can name it.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeVar

from dearlite.documents import Document, as_document
from dearlite.errors import InvalidInput, UsageError, first_line, need
from dearlite.readable import readable

# (location, record); the record is an InvalidInput if it cannot be read
Record = tuple[str, object | InvalidInput]
T = TypeVar("T")
_UTF8_REMEDY = "save the file as UTF-8 (for example: iconv -f LATIN1 -t UTF-8)"


@dataclass(slots=True)
class DocumentFile:
    """The documents of a file, and one line for each record that was skipped."""

    documents: list[Document] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def read_documents(path: str, *, format: str | None = None, skip_bad: bool = False) -> DocumentFile:
    """The documents of `path`; "-" is standard input.

    `format` is a name in FORMATS; None takes the one of the file's suffix, and JSON Lines for standard input. With
    `skip_bad` an unusable record is left out and reported; otherwise it raises InvalidInput.
    """
    if format is not None and format not in FORMATS:
        raise UsageError(f"no document format {format!r}: it is one of {', '.join(FORMATS)}")
    reader = FORMATS[format] if format else reader_for(path)
    name = "<stdin>" if path == "-" else Path(path).name
    file, locations = DocumentFile(), dict[str, str]()
    with open_stream(path) as stream:
        for where, record in report_damage(reader(stream, name), name):
            try:
                if isinstance(record, InvalidInput):
                    raise record
                document = as_document(record, where)
                if document.id is not None and document.id in locations:
                    first = locations[document.id]
                    raise InvalidInput(f"{where}: id {document.id!r} is already at {first}: ids must be unique")
            except InvalidInput as err:
                if not skip_bad:
                    raise InvalidInput(f"{err} (or go on without it: --skip-bad)") from None
                file.skipped.append(str(err))
                continue
            if document.id is not None:
                locations[document.id] = where
            file.documents.append(document)
    if not file.documents:
        raise InvalidInput(f"{name} holds no {'usable ' if file.skipped else ''}documents: nothing to rank")
    return file


def reader_for(path: str) -> Callable[[BinaryIO, str], Iterator[Record]]:
    """The reader for the suffix of `path`. Raises UsageError for an unknown suffix."""
    if path == "-":
        return FORMATS["jsonl"]
    suffixes = [suffix.lower().lstrip(".") for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] == "gz":
        suffixes.pop()
    if suffixes and suffixes[-1] in FORMATS:
        return FORMATS[suffixes[-1]]
    raise UsageError(f"{path}: cannot tell its format from its name: pass --docs-format, one of {', '.join(FORMATS)}")


def open_stream(path: str) -> BinaryIO:
    """The file's bytes, decompressed if they begin with gzip's two magic bytes; the name does not matter.

    Raises UsageError if the file cannot be opened.
    """
    if path == "-":
        raw: BinaryIO = sys.stdin.buffer
    else:
        try:
            raw = open(path, "rb")
        except OSError as err:
            raise UsageError(f"cannot read {path}: {err.strerror}") from None
    peek = getattr(raw, "peek", None)
    if peek is not None and peek(2)[:2] == b"\x1f\x8b":
        unzipped = gzip.GzipFile(fileobj=raw)
        unzipped.myfileobj = raw  # type: ignore[assignment]  # closes the file with it
        return unzipped  # type: ignore[return-value]
    return raw


def report_damage(items: Iterator[T], name: str) -> Iterator[T]:
    """`items` read from the file `name`. Raises InvalidInput on one line for damaged gzip and read errors."""
    try:
        yield from items
    except (EOFError, gzip.BadGzipFile, zlib.error) as err:
        raise InvalidInput(f"{name} is damaged gzip ({err}): fetch or compress it again") from None
    except OSError as err:
        raise InvalidInput(f"cannot read {name}: {err.strerror or err}") from None


def read_lines(stream: BinaryIO, name: str) -> Iterator[tuple[str, str | InvalidInput]]:
    """(location, text) of each line that is not blank; the text is an InvalidInput if the line is not UTF-8."""
    for number, raw in enumerate(stream, start=1):
        where = f"{name}:{number}"
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as err:
            byte = raw[err.start]
            yield (
                where,
                InvalidInput(f"{where} is not UTF-8 (byte 0x{byte:02x} at column {err.start + 1}): {_UTF8_REMEDY}"),
            )
            continue
        if line.strip():
            yield where, line


def _read_jsonl(stream: BinaryIO, name: str) -> Iterator[Record]:
    for where, line in read_lines(stream, name):
        if isinstance(line, InvalidInput):
            yield where, line
            continue
        try:
            yield where, json.loads(line)
        except (ValueError, RecursionError) as err:
            yield where, InvalidInput(f"{where} is not JSON ({_json_reason(err)}): each line must be one JSON object")


def _json_reason(err: Exception) -> str:
    if isinstance(err, json.JSONDecodeError):
        return f"{err.msg} at column {err.colno}"
    return "nested too deeply" if isinstance(err, RecursionError) else "a number in it is too long"


def _read_json(stream: BinaryIO, name: str) -> Iterator[Record]:
    data = stream.read()
    try:
        records = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise InvalidInput(f"{name}:{line} is not UTF-8 (byte 0x{data[err.start]:02x}): {_UTF8_REMEDY}") from None
    except (ValueError, RecursionError) as err:
        raise InvalidInput(f"{name} is not JSON ({err}): JSON Lines files end in .jsonl") from None
    if not isinstance(records, list):
        raise InvalidInput(f"{name} holds one {type(records).__name__}: it must be a list of documents")
    for number, record in enumerate(records, start=1):
        yield f"{name} item {number}", record


def _read_txt(stream: BinaryIO, name: str) -> Iterator[Record]:
    for where, line in read_lines(stream, name):
        if not isinstance(line, str):
            yield where, line
        elif readable(line):  # a line of invisible characters is as blank as one of spaces
            yield where, line.strip()


def _read_table(dialect: str) -> Callable[[BinaryIO, str], Iterator[Record]]:
    def read(stream: BinaryIO, name: str) -> Iterator[Record]:
        csv.field_size_limit(2**31 - 1)  # a document of a megabyte is one field
        # surrogateescape: a byte that is not UTF-8 makes only its own row an error
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        rows = csv.DictReader(text, dialect=dialect, restkey="", strict=True)
        try:
            if _has_bad_byte("".join(rows.fieldnames or ())):
                raise InvalidInput(f"{name}:1 is not UTF-8: {_UTF8_REMEDY}")
            for row in rows:
                where = f"{name}:{rows.line_num}"
                if any(isinstance(value, str) and _has_bad_byte(value) for value in row.values()):
                    yield where, InvalidInput(f"{where} is not UTF-8: {_UTF8_REMEDY}")
                else:
                    yield where, {key: value for key, value in row.items() if key}
        except csv.Error as err:
            raise InvalidInput(f"{name}:{rows.line_num} is not {dialect} ({err})") from None

    return read


def _has_bad_byte(text: str) -> bool:
    """True if `surrogateescape` replaced a byte of `text`."""
    return any("\udc80" <= char <= "\udcff" for char in text)


def _read_parquet(stream: BinaryIO, name: str) -> Iterator[Record]:
    return read_group(stream, name, None)


def read_group(stream: BinaryIO, name: str, group: int | None) -> Iterator[Record]:
    """The records of a Parquet file, or of its row group `group`."""
    parquet = need("pyarrow.parquet", extra="parquet")
    arrow = need("pyarrow", extra="parquet")
    try:  # a file is read in batches; a pipe must be held in memory
        table = parquet.ParquetFile(stream if stream.seekable() else io.BytesIO(stream.read()))
        number = 0
        for batch in table.iter_batches(row_groups=None if group is None else [group]):
            for record in batch.to_pylist():
                number += 1
                yield f"{name} row {number}", record
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as err:
        raise InvalidInput(f"{name} is not Parquet ({first_line(err)})") from None


class _PlainTabs(csv.excel_tab):
    quoting = csv.QUOTE_NONE  # in TSV collections a quotation mark is part of the text


csv.register_dialect("dearlite-tsv", _PlainTabs)

FORMATS: dict[str, Callable[[BinaryIO, str], Iterator[Record]]] = {
    "jsonl": _read_jsonl,
    "ndjson": _read_jsonl,
    "json": _read_json,
    "csv": _read_table("excel"),
    "tsv": _read_table("dearlite-tsv"),
    "txt": _read_txt,
    "parquet": _read_parquet,
}
