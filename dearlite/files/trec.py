"""TREC's file formats: runs (`qid Q0 docid rank score tag`) and relevance judgements (`qid 0 docid grade`).

Columns are separated by spaces or tabs; ids are strings ("007" is not 7). A run is ordered by score, as trec_eval does;
the rank column only orders equal scores.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import pairwise
from pathlib import Path

from dearlite.errors import InvalidInput
from dearlite.files.readers import open_stream, read_lines, report_damage

Run = Mapping[str, Mapping[str, float]]  # query id -> document id -> score, best first
Qrels = Mapping[str, Mapping[str, int]]  # query id -> document id -> grade

_SPACE = re.compile(r"\s")
_RUN_COLUMNS = "qid Q0 docid rank score tag"
_QRELS_COLUMNS = "qid 0 docid grade"
_BEIR_HEADER = ["query-id", "corpus-id", "score"]  # BEIR's qrels: three columns under a header


def run_line(query_id: str, document_id: str, rank: int, score: float, model: str) -> str:
    """One line of a run, with its newline. Raises InvalidInput for an id that a run cannot represent."""
    for kind, text in (("document id", document_id), ("query id", query_id)):
        if not text or _SPACE.search(text):
            raise InvalidInput(
                f"the {kind} {text!r} has a space or is empty, which a TREC run cannot hold: "
                "use --format jsonl (of a run: --jsonl)"
            )
    return f"{query_id} Q0 {document_id} {rank} {score_text(score)} dearlite-{_SPACE.sub('_', model)}\n"


def score_text(score: float) -> str:
    """`score` with nine significant digits, enough to distinguish any two float32 values."""
    return f"{score:.9g}"


def read_run(
    path: str | Path, *, depth: int | None = None, skip_bad: bool = False
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """The run in the file `path` (.gz too), and notes. Each query has its best `depth` documents, best first.

    Raises InvalidInput for a malformed line and for a document that a query names twice; with `skip_bad` these lines
    are left out and counted, and the first of two is kept.
    """
    name, ids = Path(path).name, dict[str, str]()
    rows: dict[str, dict[str, tuple[float, int]]] = {}
    skipped: list[str] = []
    for where, cells in _rows(path):
        try:
            if isinstance(cells, InvalidInput):
                raise cells
            if len(cells) != 6:
                raise InvalidInput(f"{where} has {len(cells)} columns instead of the 6 of a run ({_RUN_COLUMNS})")
            query_id, _, document_id, rank, score, _ = cells
            of_query = rows.get(query_id)
            if of_query is None:
                of_query = rows[query_id] = {}
            if document_id in of_query:
                raise InvalidInput(f"{where}: query {query_id!r} names document {document_id!r} twice")
            # one string per id in memory, however many queries name it
            of_query[ids.setdefault(document_id, document_id)] = _number(score, where), _rank(rank, where)
        except InvalidInput as err:
            if not skip_bad:
                raise InvalidInput(f"{err}: correct the run (or go on without the line: --skip-bad)") from None
            skipped.append(str(err))
    rows = {query_id: of_query for query_id, of_query in rows.items() if of_query}
    if not rows:
        raise InvalidInput(f"{name} holds no {'usable ' if skipped else ''}run lines ({_RUN_COLUMNS})")
    notes = [f"skipped: {line}" for line in skipped[:3]]
    if len(skipped) > 3:
        notes.append(f"skipped {len(skipped)} lines of {name} in all")
    run, contradictory = {}, []
    for query_id in list(rows):
        of_query = rows.pop(query_id)
        order = sorted(of_query, key=lambda document_id: (-of_query[document_id][0], of_query[document_id][1]))
        if any(of_query[a][1] > of_query[b][1] for a, b in pairwise(order)):
            contradictory.append(query_id)
        run[query_id] = {document_id: of_query[document_id][0] for document_id in order[:depth]}
    if contradictory:
        notes.append(
            f"{name}: the ranks of {len(contradictory)} queries ({contradictory[0]!r} first) do not follow their "
            "scores: ordered by score, as trec_eval does"
        )
    return run, notes


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Query id -> document id -> grade, from the file `path` (.gz too): TREC's four columns, or BEIR's three.

    Negative grades are kept. Raises InvalidInput for any other line, and for two grades of the same pair.
    """
    name, width = Path(path).name, 4
    qrels: dict[str, dict[str, int]] = {}
    for where, cells in _rows(path):
        if isinstance(cells, InvalidInput):
            raise cells
        if not qrels and cells == _BEIR_HEADER:
            width = 3
            continue
        if len(cells) != width:
            columns = _QRELS_COLUMNS if width == 4 else " ".join(_BEIR_HEADER)
            hint = f" (three columns need BEIR's header, {' '.join(_BEIR_HEADER)})" if len(cells) == 3 else ""
            raise InvalidInput(f"{where} has {len(cells)} columns instead of {width} ({columns}){hint}")
        query_id, document_id, grade = cells[0], cells[-2], cells[-1]
        number = _number(grade, where, "grade")
        if number != int(number):
            raise InvalidInput(f"{where}: the grade {grade!r} is not a whole number")
        grades = qrels.setdefault(query_id, {})
        if grades.get(document_id, number) != number:
            raise InvalidInput(f"{where}: document {document_id!r} of query {query_id!r} has two grades: keep one")
        grades[document_id] = int(number)
    if not qrels:
        raise InvalidInput(f"{name} holds no judgements ({_QRELS_COLUMNS})")
    return qrels


def _rows(path: str | Path) -> Iterator[tuple[str, list[str] | InvalidInput]]:
    """Location and cells of each line that is not blank."""
    name = Path(path).name
    with closing(open_stream(str(path))) as stream:
        for where, line in report_damage(read_lines(stream, name), name):
            yield where, line.split() if isinstance(line, str) else line


def _number(text: str, where: str, column: str = "score") -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InvalidInput(f"{where}: the {column} {text!r} is not a number")
    return number


def _rank(text: str, where: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidInput(f"{where}: the rank {text!r} is not a whole number") from None
