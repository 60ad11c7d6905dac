"""Options of the fields of documents: which hold text, id and title, and the delimiter of tables.

`field_options` adds them to a command, which gets them as one argument, `reading`: Reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from typing import Any

import click

from dearlite.cli.options.types import Command, Delimiter, Option, with_options
from dearlite.fields import Fields

_FIELDS: tuple[Option, ...] = (
    click.option(
        "--text-field",
        metavar="NAME",
        help="Field or column that holds the text of a document, or a path to it, such as payload.body. "
        "[default: the known names]",
    ),
    click.option(
        "--id-field", metavar="NAME", help="Field or column that holds the id; '' for none. [default: the known names]"
    ),
    click.option(
        "--title-field", metavar="NAME", help="Field or column that holds the title; '' for none. [default: title]"
    ),
    click.option(
        "--delimiter",
        type=Delimiter(),
        metavar="CHAR",
        help="Character between the cells of CSV and TSV, such as ';' or tab. [default: from the header]",
    ),
)


@dataclass(frozen=True, slots=True)
class Reading:
    """The fields of documents, and the delimiter of tables, None for the one of the header."""

    fields: Fields
    delimiter: str | None


def field_options(command: Command) -> Command:
    """`command` with the options; it is called with them as one argument, `reading`: Reading."""

    @wraps(command)
    def callback(
        *, text_field: str | None, id_field: str | None, title_field: str | None, delimiter: str | None, **others: Any
    ) -> None:
        fields = Fields(text=text_field or None, id=id_field, title=title_field)
        command(reading=Reading(fields, delimiter), **others)

    return with_options(callback, _FIELDS)
