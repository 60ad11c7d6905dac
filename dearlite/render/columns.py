"""The columns of rankings as tables in CSV, TSV and Parquet: the fixed ones, and those that only some rankings have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dearlite.ranking import Hit, Ranking

Rankings = Mapping[str, Ranking]  # by query id


@dataclass(frozen=True, slots=True)
class Row:
    """A hit with its query's id and its ranking."""

    query_id: str
    ranking: Ranking
    hit: Hit


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its `name`, the `kind` of its cells (int, float or str), and the cell of a row, None for no value."""

    name: str
    kind: type
    cell: Callable[[Row], Any]


def columns_of(rankings: Rankings, *, named: bool) -> Sequence[Column]:
    """The fixed columns, and after them those that `rankings` have; if `named`, each row has its query."""
    hits = [hit for ranking in rankings.values() for hit in ranking]
    columns = [_QUERY_ID, *_FIXED, _QUERY] if named else [*_FIXED]
    if any(hit.relevance is not None for hit in hits):
        columns.append(_RELEVANCE)
    if any(ranking.fusion is not None for ranking in rankings.values()):
        columns.append(_BEST_QUERY)
    if any(hasattr(hit.document, "place_fields") for hit in hits):
        columns += _PLACE
    return columns


def cells_of(rankings: Rankings, columns: Sequence[Column]) -> Iterator[list[Any]]:
    """The cells of `columns`, a list per hit."""
    for query_id, ranking in rankings.items():
        for hit in ranking:
            row = Row(query_id, ranking, hit)
            yield [column.cell(row) for column in columns]


def _of_place(name: str) -> Callable[[Row], Any]:
    """The cell of a passage of a file, the attribute `name` of its record; None for a document that is no passage."""

    def cell(row: Row) -> Any:
        record: Any = row.hit.document
        return getattr(record, name) if hasattr(record, "place_fields") else None

    return cell


_QUERY_ID = Column("query_id", str, lambda row: row.query_id)
_QUERY = Column("query", str, lambda row: row.ranking.query)
_FIXED = (
    Column("rank", int, lambda row: row.hit.rank),
    Column("score", float, lambda row: row.hit.score),
    Column("index", int, lambda row: row.hit.index),
    Column("id", str, lambda row: row.hit.id),
    Column("title", str, lambda row: row.hit.title),
    Column("text", str, lambda row: row.hit.text),
)
_RELEVANCE = Column("relevance", float, lambda row: row.hit.relevance)
_BEST_QUERY = Column("best_query", str, lambda row: row.hit.best_query)
_PLACE = (
    Column("path", str, _of_place("utf8_path")),
    Column("first_line", int, _of_place("first_line")),
    Column("last_line", int, _of_place("last_line")),
    Column("page", int, _of_place("page")),
    Column("heading", str, _of_place("heading")),
)
