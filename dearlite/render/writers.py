"""Rankings as files: WRITERS has one entry per format."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from dearlite.files.trec import run_line, score_text
from dearlite.files.writing import json_text, whole_file
from dearlite.ranking import Ranking, hit_fields


def write_ranking(ranking: Ranking, form: str, output: str | None, *, query_id: str = "1") -> None:
    """Writes `ranking` in the format `form` to the file `output`; None is stdout. An error leaves no partial file."""
    if output is None:
        try:
            WRITERS[form](ranking, sys.stdout, query_id)
            sys.stdout.flush()
        except BrokenPipeError:  # `| head` has closed the pipe: discard the rest of the buffer without an error
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    with whole_file(Path(output)) as stream:
        WRITERS[form](ranking, stream, query_id)


def _write_jsonl(ranking: Ranking, stream: TextIO, query_id: str) -> None:
    for hit in ranking:
        stream.write(json_text(hit_fields(hit)) + "\n")


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
        head["stages"] = [asdict(stage) for stage in ranking.stages]
    stream.write(json_text(head | {"hits": ranking.to_dicts()}, indent=2) + "\n")


def _write_tsv(ranking: Ranking, stream: TextIO, query_id: str) -> None:
    stream.write("rank\tscore\tindex\tid\ttitle\ttext\n")
    for hit in ranking:
        cells = (hit.rank, score_text(hit.score), hit.index, hit.id or "", hit.title, hit.text)
        stream.write("\t".join(re.sub(r"\s", " ", str(cell)) for cell in cells) + "\n")


def _write_trec(ranking: Ranking, stream: TextIO, query_id: str) -> None:
    """TREC run lines, `qid Q0 docid rank score tag`. The index is the id of a document without one."""
    for hit in ranking:
        name = str(hit.index) if hit.id is None else hit.id
        stream.write(run_line(query_id, name, hit.rank, hit.score, ranking.model))


def _write_table(ranking: Ranking, stream: TextIO, query_id: str) -> None:
    from dearlite.render.table import print_ranking

    print_ranking(ranking, stream)


WRITERS: dict[str, Callable[[Ranking, TextIO, str], None]] = {
    "table": _write_table,
    "jsonl": _write_jsonl,
    "json": _write_json,
    "tsv": _write_tsv,
    "trec": _write_trec,
}
