"""TREC's two files: runs (`qid Q0 docid rank score tag`) and relevance judgements (`qid 0 docid grade`).

Columns are parted by spaces or tabs; every id is text, "007" too. What a run says is kept as trec_eval reads it: the
scores make the order, the rank column only tells equal scores apart.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import pairwise
from pathlib import Path

from dearlite.errors import InvalidInput
from dearlite.files.readers import open_stream, read_lines, whole

Run = Mapping[str, Mapping[str, float]]  # query id -> document id -> score, best first
Qrels = Mapping[str, Mapping[str, int]]  # query id -> document id -> grade

_SPACE = re.compile(r"\s")
_RUN_COLUMNS = "qid Q0 docid rank score tag"
_QRELS_COLUMNS = "qid 0 docid grade"
_BEIR_HEADER = ["query-id", "corpus-id", "score"]  # BEIR's qrels: three columns under a header


def run_line(query_id: str, document_id: str, rank: int, score: float, model: str) -> str:
    """One line of a run, its newline included. Raises InvalidInput for an id that a run cannot hold."""
    for what, text in (("document id", document_id), ("query id", query_id)):
        if not text or _SPACE.search(text):
            raise InvalidInput(
                f"the {what} {text!r} has a space or is empty, which a TREC run cannot hold: "
                "use --format jsonl (of a run: --jsonl)"
            )
    return f"{query_id} Q0 {document_id} {rank} {score_text(score)} dearlite-{_SPACE.sub('_', model)}\n"


def score_text(score: float) -> str:
    """A score with nine digits, which tell any two float32 apart."""
    return f"{score:.9g}"


def read_run(
    path: str | Path, *, depth: int | None = None, skip_bad: bool = False
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """The run at `path` (.gz too), each query's documents best first, at most `depth` of them; and what to say of it.

    Raises InvalidInput for a line that is no run line and for a document that a query names twice; with `skip_bad` such
    lines are left out and counted, and of two the first stays.
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
            found = rows.get(query_id)
            if found is None:
                found = rows[query_id] = {}
            if document_id in found:
                raise InvalidInput(f"{where}: query {query_id!r} names document {document_id!r} twice")
            # one string for each id, however many queries name it
            found[ids.setdefault(document_id, document_id)] = _number(score, where), _rank(rank, where)
        except InvalidInput as err:
            if not skip_bad:
                raise InvalidInput(f"{err}: mend the run (or go on without the line: --skip-bad)") from None
            skipped.append(str(err))
    rows = {query_id: found for query_id, found in rows.items() if found}
    if not rows:
        raise InvalidInput(f"{name} holds no {'usable ' if skipped else ''}run lines ({_RUN_COLUMNS})")
    notes = [f"skipped: {line}" for line in skipped[:3]]
    if len(skipped) > 3:
        notes.append(f"skipped {len(skipped)} lines of {name} in all")
    run, crossed = {}, []
    for query_id in list(rows):
        found = rows.pop(query_id)
        order = sorted(found, key=lambda document_id: (-found[document_id][0], found[document_id][1]))
        if any(found[a][1] > found[b][1] for a, b in pairwise(order)):
            crossed.append(query_id)
        run[query_id] = {document_id: found[document_id][0] for document_id in order[:depth]}
    if crossed:
        notes.append(
            f"{name}: the ranks of {len(crossed)} queries ({crossed[0]!r} first) do not follow their scores: "
            "taken by score, as trec_eval does"
        )
    return run, notes


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """The judgements at `path` (.gz too): TREC's four columns, or BEIR's three under their header.

    Negative grades are kept as they are. Raises InvalidInput for any other line, and for two grades of one pair.
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
            raise InvalidInput(f"{where}: the grade {grade!r} is no whole number")
        grades = qrels.setdefault(query_id, {})
        if grades.get(document_id, number) != number:
            raise InvalidInput(f"{where}: document {document_id!r} of query {query_id!r} has two grades: keep one")
        grades[document_id] = int(number)
    if not qrels:
        raise InvalidInput(f"{name} holds no judgements ({_QRELS_COLUMNS})")
    return qrels


def _rows(path: str | Path) -> Iterator[tuple[str, list[str] | InvalidInput]]:
    """Place and cells of each line that is not blank."""
    name = Path(path).name
    with closing(open_stream(str(path))) as stream:
        for where, line in whole(read_lines(stream, name), name):
            yield where, line.split() if isinstance(line, str) else line


def _number(text: str, where: str, what: str = "score") -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InvalidInput(f"{where}: the {what} {text!r} is no number")
    return number


def _rank(text: str, where: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidInput(f"{where}: the rank {text!r} is no whole number") from None
