"""Rankings as files: WRITERS has one entry per format, for the ranking of one query or those of several."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from dearlite.documents import Document
from dearlite.errors import UsageError, need, warn
from dearlite.files.json_text import json_text, write_rows
from dearlite.files.targets import ending_of
from dearlite.files.trec import check_run_ids, run_line, score_text
from dearlite.files.writing import standard_output, whole_file
from dearlite.ranking import Ranking, hit_fields
from dearlite.render.columns import cells_of, columns_of
from dearlite.scores import falling_scores

_TSV_ENDS = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")  # of a cell, or of a line for str.splitlines


def format_of(output: str | None) -> str:
    """The format if none is named: by the ending of `output`, of stdout by its kind.

    A file without an ending gets JSON Lines. Raises UsageError, which lists the endings, for an unknown one.
    """
    if output is None or output == "-":
        return "table" if sys.stdout is not None and sys.stdout.isatty() else "jsonl"
    return ending_of(output, list(WRITERS), remedy=", each also .gz; --format writes any other name") or "jsonl"


def check_format(form: str, output: str | None) -> None:
    """Raises MissingExtra or UsageError if the format `form` cannot be written to `output`; called before the work."""
    if form not in _BINARY:
        return
    need("pyarrow.parquet", extra="parquet")
    out = sys.stdout
    if (output is None or output == "-") and out is not None and (out.isatty() or not hasattr(out, "buffer")):
        raise UsageError(f"{form} is binary, which a terminal cannot show: name a file with -o, such as best.{form}")


def check_ids(form: str, query_id: str, documents: Sequence[Document]) -> None:
    """Raises InvalidInput for an id that the format `form` cannot hold; called before the documents are scored."""
    if form == "trec":
        check_run_ids(query_id, (_trec_id(document.id, index) for index, document in enumerate(documents)))


def _trec_id(document_id: str | None, index: int) -> str:
    return str(index) if document_id is None else document_id


def write_ranking(ranking: Ranking, form: str, output: str | None, *, query_id: str = "1") -> None:
    """Writes `ranking` in the format `form` to `output`; None and "-" are stdout. An error writes nothing."""
    _write({query_id: ranking}, form, output, named=False)


def write_rankings(rankings: Mapping[str, Ranking], form: str, output: str | None) -> None:
    """Writes the rankings of several queries, by id, as `write_ranking` does; each row has its query's id."""
    _write(rankings, form, output, named=True)


def _write(rankings: Mapping[str, Ranking], form: str, output: str | None, *, named: bool) -> None:
    if output is not None and output != "-":
        with whole_file(output) as stream:
            WRITERS[form](rankings, stream, named)
    elif form == "table" and sys.stdout is not None:
        WRITERS[form](rankings, sys.stdout, named)
        sys.stdout.flush()
    else:
        with standard_output(json=form in ("jsonl", "json")) as stream:
            WRITERS[form](rankings, stream, named)


def _write_jsonl(rankings: Mapping[str, Ranking], stream: TextIO, named: bool) -> None:
    write_rows((row for query_id, ranking in rankings.items() for row in _records(query_id, ranking, named)), stream)


def _records(query_id: str, ranking: Ranking, named: bool) -> Iterator[dict[str, Any]]:
    """One row per hit; if `named`, with the query, whose fields replace those of the record (`input_NAME`)."""
    query = {"query_id": query_id, "query": ranking.query}
    for hit in ranking:
        row = hit_fields(hit)
        if named:
            row = query | {f"input_{name}" if name in query else name: value for name, value in row.items()}
        yield row


def _write_json(rankings: Mapping[str, Ranking], stream: TextIO, named: bool) -> None:
    objects = [_object(query_id, ranking, named) for query_id, ranking in rankings.items()]
    stream.write(json_text({"queries": objects} if named else objects[0], indent=2) + "\n")


def _object(query_id: str, ranking: Ranking, named: bool) -> dict[str, Any]:
    head: dict[str, Any] = {"query_id": query_id} if named else {}
    head |= {
        "query": ranking.query,
        "model": ranking.model,
        "device": ranking.device,
        "elapsed_s": round(ranking.elapsed_s, 3),
        "total": ranking.total,
        "complete": ranking.complete,
    }
    if ranking.agreement is not None:
        head["agreement"] = round(ranking.agreement, 4)
    head |= {name: list(texts) for name in ("reasoning", "problems") if (texts := getattr(ranking, name))}
    if ranking.stages:
        head["stages"] = [stage.to_dict() for stage in ranking.stages]
    return head | {"hits": ranking.to_dicts()}


def _write_tsv(rankings: Mapping[str, Ranking], stream: TextIO, named: bool) -> None:
    changed = 0
    for row in _rows(rankings, named):
        texts = ["" if cell is None else score_text(cell) if isinstance(cell, float) else str(cell) for cell in row]
        cells = [_TSV_ENDS.sub(" ", text) for text in texts]
        changed += sum(cell != text for cell, text in zip(cells, texts, strict=True))
        stream.write("\t".join(cells) + "\n")
    if changed:
        cells_are = "1 cell has" if changed == 1 else f"{changed} cells have"
        warn(f"{cells_are} tabs or line ends, which TSV cannot hold: written as spaces")


def _write_csv(rankings: Mapping[str, Ranking], stream: TextIO, named: bool) -> None:
    """RFC 4180 with LF line ends. Every text is quoted, so that commas and line ends in it are kept."""
    table = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    for row in _rows(rankings, named):
        table.writerow([float(score_text(cell)) if isinstance(cell, float) else cell for cell in row])


def _rows(rankings: Mapping[str, Ranking], named: bool) -> Iterator[list[Any]]:
    """The header and one row per hit; None is a missing value, as the score of a document that no model read."""
    columns = columns_of(rankings, named=named)
    yield [column.name for column in columns]
    yield from cells_of(rankings, columns)


def _write_parquet(rankings: Mapping[str, Ranking], stream: TextIO, named: bool) -> None:
    """The columns of CSV with types, the fixed ones even without a row; null is a missing value."""
    arrow, parquet = need("pyarrow", extra="parquet"), need("pyarrow.parquet", extra="parquet")
    types = {int: arrow.int64(), float: arrow.float64(), str: arrow.string()}
    columns = columns_of(rankings, named=named)
    cells: list[list[Any]] = [[] for _ in columns]
    for row in cells_of(rankings, columns):
        for column, cell in zip(cells, row, strict=True):
            column.append(_escaped(cell) if isinstance(cell, str) else cell)
    schema = arrow.schema([(column.name, types[column.kind]) for column in columns])
    parquet.write_table(arrow.table(cells, schema=schema), stream.buffer)


def _escaped(text: str) -> str:
    """`text` with half a surrogate pair, which UTF-8 cannot hold, as its escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def _write_trec(rankings: Mapping[str, Ranking], stream: TextIO, named: bool) -> None:
    """TREC run lines, `qid Q0 docid rank score tag`. The index is the id of a document without one.

    Readers of a run sort by score: it is `falling_scores` where the hits' own do not fall with their rank.
    """
    for query_id, ranking in rankings.items():
        for hit, score in zip(ranking, falling_scores([hit.score for hit in ranking], ranking.total), strict=True):
            stream.write(run_line(query_id, _trec_id(hit.id, hit.index), hit.rank, score, ranking.model))


def _write_table(rankings: Mapping[str, Ranking], stream: TextIO, named: bool) -> None:
    from dearlite.render.table import print_ranking

    for number, ranking in enumerate(rankings.values()):
        if number:
            stream.write("\n")
        print_ranking(ranking, stream)


# format -> the writer of the rankings by query id to a stream; with True each row has its query
WRITERS: dict[str, Callable[[Mapping[str, Ranking], TextIO, bool], None]] = {
    "table": _write_table,
    "jsonl": _write_jsonl,
    "json": _write_json,
    "csv": _write_csv,
    "tsv": _write_tsv,
    "parquet": _write_parquet,
    "trec": _write_trec,
}
_BINARY = ("parquet",)
