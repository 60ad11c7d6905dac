"""Quotation marks in TSV: around cells, as spreadsheets and pandas write them, or part of the texts, as in MS MARCO."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from dearlite.errors import counted

_CELL = re.compile(r'"([^"]*(?:""[^"]*)*)"(?=[\t\r\n]|\Z)|([^"\t\r\n]*)(?=[\t\r\n]|\Z)')


def has_quoted_cells(lines: Sequence[str], name: str, *, complete: bool) -> tuple[bool, str]:
    """True if the quotation marks of a TSV file are around its cells, and a note where both readings are possible.

    `lines` are the first of the file; with `complete` all of them. Marks are around cells if no cell has one in another
    place and every row has as many cells as the header, and if there is a sign that a writer of CSV set them: a doubled
    mark, a tab or a line end within a cell, or a column in which every cell has them.
    """
    text = "".join(lines)
    if '"' not in text:
        return False, ""
    rows = list(_rows(text, complete))
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        return False, ""
    quoted = [[cell is not None for cell in row] for row in rows]
    within = [cell for row in rows for cell in row if cell is not None]
    broken = any(re.search(r"[\t\r\n]", cell) for cell in within)
    columns = list(zip(*quoted[1:], strict=True))
    signs = broken or any('""' in cell for cell in within) or all(quoted[0])
    signs = signs or (len(rows) > 2 and any(map(all, columns)))
    if not within or broken:
        return signs, ""
    reading = "are around cells, as in CSV, and are left out" if signs else "are read as part of the texts"
    return signs, f"{name}: the quotation marks of {counted(len(within), 'cell')} {reading}"


def _rows(text: str, complete: bool) -> Iterator[list[str | None]]:
    """The rows by the rules of CSV, of each cell the text between its quotation marks, None without them.

    Ends with an empty row where the rules are broken; the last row of an incomplete text may be cut.
    """
    position, row = 0, list[str | None]()
    while position < len(text):
        if not row and text[position] in "\r\n":  # a blank line
            position += 1
            continue
        cell = _CELL.match(text, position)
        if cell is None:
            if complete or '"' not in text[position:].rpartition("\n")[2]:
                yield []
            return
        row.append(cell[1])
        position = cell.end()
        if position == len(text) or text[position] in "\r\n":
            yield row
            row = []
        position += 1
    if row:  # the text ends with a tab: the last cell is empty
        yield [*row, None]
