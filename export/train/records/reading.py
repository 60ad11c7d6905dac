"""Reads files of training records; the caller's `parse` makes one record of each JSON object or Parquet row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from dearlite.errors import InvalidInput
from dearlite.files.readers import reader_for
from dearlite.files.streams import open_stream, report_damage

Record = TypeVar("Record")


def read_records(
    paths: Iterable[Path], parse: Callable[[object, str], Record], *, skip_bad: bool
) -> tuple[list[Record], int]:
    """The records of all files, in order, and the number of bad ones that `skip_bad` left out.

    `parse` gets a decoded value and its location ("train.jsonl:3"). Raises InvalidInput for the first record that
    cannot be decoded or parsed, unless `skip_bad`, and when no record is left.
    """
    records, skipped = [], 0
    for path in paths:
        with closing(open_stream(str(path))) as stream:
            for location, value in report_damage(reader_for(str(path))(stream, path.name), path.name):
                try:
                    if isinstance(value, InvalidInput):
                        raise value
                    records.append(parse(value, location))
                except InvalidInput:
                    if not skip_bad:
                        raise
                    skipped += 1
    if not records:
        raise InvalidInput("there is nothing to train on: no record is left")
    return records, skipped
