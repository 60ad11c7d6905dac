"""Stage-2 records out of a teacher: its order, and as reasoning the sentences that it likes best, quoted.

Nothing is invented: for each relevant passage the reasoning names the passage and quotes the one sentence of it that
the teacher scores highest for the query. Then comes the order by the teacher's scores of the whole passages.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dearlite.export.train.records.mine import Mined
from dearlite.listwise.prompts import find_form
from dearlite.reranker import Reranker

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?\w)")
_LEAST_WORDS = 4  # a shorter piece is joined to the one before it: "Dr.", "e.g."


def sentences(text: str) -> list[str]:
    """The sentences of `text`, in order; together they are the text. Example: "One is. Two are." -> two."""
    found: list[str] = []
    for piece in _SENTENCE_END.split(text.strip()):
        if found and min(len(found[-1].split()), len(piece.split())) < _LEAST_WORDS:
            found[-1] += f" {piece}"
        else:
            found.append(piece)
    return [one.strip() for one in found if one.strip()]


def listwise_records(
    mined: Mined, *, model: str | None, device: str, threads: int | None, seed: int = 42, form: str = "chat"
) -> Mined:
    """`mined` as records of stage 2: passages shuffled, the teacher's order, its evidence for each positive."""
    reranker, names = Reranker.load(model, device=device, threads=threads), find_form(form)
    made = []
    for record in mined.records:
        rows = [dict(row, relevant=side == "positives") for side in ("positives", "negatives") for row in record[side]]
        random.Random(f"{seed} {record['query_id']}").shuffle(rows)
        order = sorted(range(len(rows)), key=lambda place: -rows[place]["teacher_score"])
        identifiers = names.identifiers(len(rows))
        lines = [
            f'[{identifiers[place]}] "{quote}"'
            for place in order
            if rows[place]["relevant"] and (quote := _best(reranker, record["query"], rows[place]))
        ]
        passages = [{name: row[name] for name in ("docid", "title", "text")} for row in rows]
        made.append(
            {
                "query_id": record["query_id"],
                "query": record["query"],
                "passages": passages,
                "order": order,
                "reasoning": "\n".join(lines),
            }
        )
    return replace(mined, records=made)


def _best(reranker: Reranker, query: str, row: Mapping[str, Any]) -> str:
    found = sentences(row["text"])
    if len(found) < 2:
        return found[0] if found else ""
    scores = reranker.score([(query, text) for text in found])
    return found[max(range(len(found)), key=scores.__getitem__)]
