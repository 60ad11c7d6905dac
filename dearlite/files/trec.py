"""Runs (TREC's `qid Q0 docid rank score tag`) and relevance judgements (`qid 0 docid grade`), and their other forms.

Ids are strings ("007" is not 7). A run is ordered by score, as trec_eval does; the rank only orders equal scores.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from dearlite.errors import InvalidInput, counted
from dearlite.files.columns import QRELS, RUN, Layout, open_table
from dearlite.files.values import finite_number, id_text, whole_grade, whole_rank

Run = Mapping[str, Mapping[str, float]]  # query id -> document id -> score, best first
Qrels = Mapping[str, Mapping[str, int]]  # query id -> document id -> grade

_SPACE = re.compile(r"\s")
_RUN_COLUMNS = "qid Q0 docid rank score tag"
_QRELS_COLUMNS = "qid 0 docid grade"
_RUN = Layout(
    kind="a run",
    roles=RUN,
    numbers=("score", "rank"),
    widths={
        6: ("query", "Q0", "document", "rank", "score", "tag"),
        4: ("query", "document", "rank", "score"),  # ColBERT
        3: ("query", "document", "number"),  # MS MARCO's rank, or a score
    },
)
_QRELS = Layout(
    kind="qrels",
    roles=QRELS,
    numbers=("grade",),
    widths={4: ("query", "0", "document", "grade"), 3: ("query", "document", "grade")},
)


def run_line(query_id: str, document_id: str, rank: int, score: float, model: str) -> str:
    """One line of a run, with its newline. Raises InvalidInput for an id that a run cannot represent."""
    check_run_ids(query_id, [document_id])
    return f"{query_id} Q0 {document_id} {rank} {score_text(score)} dearlite-{_SPACE.sub('_', model)}\n"


def check_run_ids(query_id: str, document_ids: Iterable[str]) -> None:
    """Raises InvalidInput for an id that a run cannot represent."""
    for kind, texts in (("document id", document_ids), ("query id", [query_id])):
        for text in texts:
            if not text or _SPACE.search(text):
                raise InvalidInput(
                    f"the {kind} {text!r} has a space or is empty, which a TREC run cannot hold: "
                    "use --format jsonl (of a run: --jsonl)"
                )


def score_text(score: float) -> str:
    """`score` with nine significant digits, enough to distinguish any two float32 values."""
    return f"{score:.9g}"


def read_run(
    path: str | Path, *, depth: int | None = None, skip_bad: bool = False
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """The run in the file `path` (.gz too), and notes. Each query has its best `depth` documents, best first.

    TREC's six columns, MS MARCO's three (`qid docid rank`), columns under a header, or JSON; see `columns`. Raises
    InvalidInput for a malformed line and for a document that a query names twice; with `skip_bad` these lines are left
    out and counted, and the first of two is kept.
    """
    name, ids = Path(path).name, dict[str, str]()
    rows: dict[str, dict[str, tuple[float, int]]] = {}
    skipped: list[str] = []
    with open_table(path, _RUN) as table:
        columns, is_bare = table.columns, "number" in table.columns
        for position, (where, cells) in enumerate(table.rows):
            try:
                if isinstance(cells, InvalidInput):
                    raise cells
                query_id = id_text(cells[columns["query"]], "query", where)
                document_id = id_text(cells[columns["document"]], "document", where)
                if table.width == 4 and document_id in ("0", "Q0"):
                    raise InvalidInput(f"{where}: the four columns are those of judgements: give them as --qrels")
                of_query = rows.get(query_id)
                if of_query is None:
                    of_query = rows[query_id] = {}
                if document_id in of_query:
                    raise InvalidInput(f"{where}: query {query_id!r} names document {document_id!r} twice")
                # one string per id in memory, however many queries name it
                of_query[ids.setdefault(document_id, document_id)] = _score_and_rank(cells, columns, where, position)
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
    if is_bare:
        notes.append(_decide_third_column(rows, name))
    return _ordered(rows, depth, name, notes), notes


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Query id -> document id -> grade, from the file `path` (.gz too).

    TREC's four columns, three without TREC's second one, columns under a header as BEIR has them, or JSON; see
    `columns`. Negative grades are kept. Raises InvalidInput for any other line, and for two grades of the same pair.
    """
    qrels: dict[str, dict[str, int]] = {}
    with open_table(path, _QRELS) as table:
        query_at, document_at, grade_at = (table.columns.get(role, 0) for role in ("query", "document", "grade"))
        for where, cells in table.rows:
            if isinstance(cells, InvalidInput):
                raise cells
            query_id = id_text(cells[query_at], "query", where)
            document_id = id_text(cells[document_at], "document", where)
            grade = whole_grade(cells[grade_at], where)
            grades = qrels.setdefault(query_id, {})
            if grades.setdefault(document_id, grade) != grade:
                raise InvalidInput(f"{where}: document {document_id!r} of query {query_id!r} has two grades: keep one")
    if not qrels:
        raise InvalidInput(f"{Path(path).name} holds no judgements ({_QRELS_COLUMNS})")
    return qrels


def _score_and_rank(
    cells: Sequence[object], columns: Mapping[str, int], where: str, position: int
) -> tuple[float, int]:
    """The score of a row, minus its rank if it has none, and its rank, its position in the file if it has none."""
    if "number" in columns:
        return finite_number(cells[columns["number"]], "number", where), position
    score, rank = (cells[columns[role]] if role in columns else None for role in ("score", "rank"))
    place = position if rank is None else whole_rank(rank, where)
    has_score = score is not None or rank is None
    return finite_number(score, "score", where) if has_score else float(-place), place


def _decide_third_column(rows: dict[str, dict[str, tuple[float, int]]], name: str) -> str:
    """Turns the third number of `rows` into scores, and returns a note that says what it is: a rank or a score.

    A rank is whole and rises within each query, as in MS MARCO's runs; a score falls, or has a fraction.
    """
    numbers = [[score for score, _ in of_query.values()] for of_query in rows.values()]
    whole = all(number.is_integer() and number >= 0 for of_query in numbers for number in of_query)
    if whole and all(a < b for of_query in numbers for a, b in pairwise(of_query)):
        for of_query in rows.values():
            of_query.update({document_id: (-number, int(number)) for document_id, (number, _) in of_query.items()})
        return f"{name} has three columns: read as qid docid rank (MS MARCO)"
    if whole and not all(a >= b for of_query in numbers for a, b in pairwise(of_query)):
        raise InvalidInput(
            f"{name} has three columns, and the third is neither a rank, which rises, nor a score, which falls: "
            "give it a header, such as qid docid score"
        )
    return f"{name} has three columns: read as qid docid score"


def _ordered(
    rows: dict[str, dict[str, tuple[float, int]]], depth: int | None, name: str, notes: list[str]
) -> dict[str, dict[str, float]]:
    """The run of `rows`, which are used up, best first; a note if the ranks of a query do not follow its scores."""
    run, contradictory = {}, []
    for query_id in list(rows):
        of_query = rows.pop(query_id)
        order = sorted(of_query, key=lambda document_id: (-of_query[document_id][0], of_query[document_id][1]))
        if any(of_query[a][1] > of_query[b][1] for a, b in pairwise(order)):
            contradictory.append(query_id)
        run[query_id] = {document_id: of_query[document_id][0] for document_id in order[:depth]}
    if contradictory:
        notes.append(
            f"{name}: the ranks of {counted(len(contradictory), 'query')} ({contradictory[0]!r} first) do not "
            "follow their scores: ordered by score, as trec_eval does"
        )
    return run
