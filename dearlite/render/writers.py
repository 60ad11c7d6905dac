"""Rankings as files: WRITERS has one entry per format."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from dearlite.documents import Document
from dearlite.errors import warn
from dearlite.files.json_text import json_text, write_rows
from dearlite.files.targets import ending_of
from dearlite.files.trec import check_run_ids, run_line, score_text
from dearlite.files.writing import standard_output, whole_file
from dearlite.ranking import Ranking, hit_fields
from dearlite.scores import falling_scores

_TSV_ENDS = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")  # of a cell, or of a line for str.splitlines


def format_of(output: str | None) -> str:
    """The format if none is named: by the ending of `output`, of stdout by its kind.

    A file without an ending gets JSON Lines. Raises UsageError, which lists the endings, for an unknown one.
    """
    if output is None or output == "-":
        return "table" if sys.stdout is not None and sys.stdout.isatty() else "jsonl"
    return ending_of(output, list(WRITERS), remedy=", each also .gz; --format writes any other name") or "jsonl"


def check_ids(form: str, query_id: str, documents: Sequence[Document]) -> None:
    """Raises InvalidInput for an id that the format `form` cannot hold; called before the documents are scored."""
    if form == "trec":
        check_run_ids(query_id, (_trec_id(document.id, index) for index, document in enumerate(documents)))


def _trec_id(document_id: str | None, index: int) -> str:
    return str(index) if document_id is None else document_id


def write_ranking(ranking: Ranking, form: str, output: str | None, *, query_id: str = "1") -> None:
    """Writes `ranking` in the format `form` to `output`; None and "-" are stdout. An error writes nothing."""
    if output is not None and output != "-":
        with whole_file(output) as stream:
            WRITERS[form](ranking, stream, query_id)
    elif form == "table" and sys.stdout is not None:
        WRITERS[form](ranking, sys.stdout, query_id)
        sys.stdout.flush()
    else:
        with standard_output(json=form in ("jsonl", "json")) as stream:
            WRITERS[form](ranking, stream, query_id)


def _write_jsonl(ranking: Ranking, stream: TextIO, query_id: str) -> None:
    write_rows(map(hit_fields, ranking), stream)


def _write_json(ranking: Ranking, stream: TextIO, query_id: str) -> None:
    head = {
        "query": ranking.query,
        "model": ranking.model,
        "device": ranking.device,
        "elapsed_s": round(ranking.elapsed_s, 3),
        "total": ranking.total,
        "complete": ranking.complete,
    }
    if ranking.agreement is not None:
        head["agreement"] = round(ranking.agreement, 4)
    if ranking.stages:
        head["stages"] = [stage.to_dict() for stage in ranking.stages]
    stream.write(json_text(head | {"hits": ranking.to_dicts()}, indent=2) + "\n")


def _write_tsv(ranking: Ranking, stream: TextIO, query_id: str) -> None:
    changed = 0
    for row in _rows(ranking):
        cells = [_TSV_ENDS.sub(" ", str(cell)) for cell in row]
        changed += sum(cell != str(original) for cell, original in zip(cells, row, strict=True))
        stream.write("\t".join(cells) + "\n")
    if changed:
        cells_are = "1 cell has" if changed == 1 else f"{changed} cells have"
        warn(f"{cells_are} tabs or line ends, which TSV cannot hold: written as spaces")


def _write_csv(ranking: Ranking, stream: TextIO, query_id: str) -> None:
    """RFC 4180 with LF line ends. Every text is quoted, so that commas and line ends in it are kept."""
    table, rows = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC), _rows(ranking)
    table.writerow(next(rows))
    table.writerows((rank, float(score) if score else None, *others) for rank, score, *others in rows)


def _rows(ranking: Ranking) -> Iterator[tuple[Any, ...]]:
    """The header and one row per hit; the score of a document that no model read is empty."""
    yield "rank", "score", "index", "id", "title", "text"
    for hit in ranking:
        score = "" if hit.score is None else score_text(hit.score)
        yield hit.rank, score, hit.index, hit.id or "", hit.title, hit.text


def _write_trec(ranking: Ranking, stream: TextIO, query_id: str) -> None:
    """TREC run lines, `qid Q0 docid rank score tag`. The index is the id of a document without one.

    Readers of a run sort by score: it is `falling_scores` where the hits' own do not fall with their rank.
    """
    for hit, score in zip(ranking, falling_scores([hit.score for hit in ranking], ranking.total), strict=True):
        stream.write(run_line(query_id, _trec_id(hit.id, hit.index), hit.rank, score, ranking.model))


def _write_table(ranking: Ranking, stream: TextIO, query_id: str) -> None:
    from dearlite.render.table import print_ranking

    print_ranking(ranking, stream)


WRITERS: dict[str, Callable[[Ranking, TextIO, str], None]] = {
    "table": _write_table,
    "jsonl": _write_jsonl,
    "json": _write_json,
    "csv": _write_csv,
    "tsv": _write_tsv,
    "trec": _write_trec,
}
