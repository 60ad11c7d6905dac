"""Training records of stage 2 from a teacher's scores: the order, and quoted sentences as the reasoning.

No text is invented: for each relevant passage, the reasoning names the passage and quotes its sentence with the highest
teacher score for the query. The order of the passages by the teacher's scores follows.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dearlite.listwise.prompts import find_form
from dearlite.options import Device
from dearlite.readable import readable
from dearlite.reranker import Reranker

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?\w)")
_LEAST_WORDS = 4  # a shorter part is joined to the part before it: "Dr.", "e.g."


def sentences(text: str) -> list[str]:
    """The sentences of `text`, in order; joined with blanks they give the text. Example: "One is. Two are." -> two."""
    joined: list[str] = []
    for part in _SENTENCE_END.split(text.strip()):
        if joined and min(len(joined[-1].split()), len(part.split())) < _LEAST_WORDS:
            joined[-1] += f" {part}"
        else:
            joined.append(part)
    return [sentence.strip() for sentence in joined if readable(sentence)]


def listwise_records(
    groups: Sequence[Mapping[str, Any]],
    *,
    model: str | None,
    device: Device,
    threads: int | None,
    seed: int = 42,
    form: str = "chat",
) -> list[dict[str, Any]]:
    """Records of stage 2 from mined records of stage 1: shuffled passages, the teacher's order, its evidence.

    The evidence is one quoted sentence for each positive. `form` is the prompt form that names the passages.
    """
    reranker, prompt_form = Reranker.load(model, device=device, threads=threads), find_form(form)
    records = []
    for group in groups:
        rows = [dict(row, relevant=side == "positives") for side in ("positives", "negatives") for row in group[side]]
        random.Random(f"{seed} {group['query_id']}").shuffle(rows)
        order = sorted(range(len(rows)), key=lambda position: -rows[position]["teacher_score"])
        identifiers = prompt_form.identifiers(len(rows))
        lines = [
            f'[{identifiers[position]}] "{quote}"'
            for position in order
            if rows[position]["relevant"] and (quote := _best_sentence(reranker, group["query"], rows[position]))
        ]
        records.append(
            {
                "query_id": group["query_id"],
                "query": group["query"],
                "passages": [{name: row[name] for name in ("docid", "title", "text")} for row in rows],
                "order": order,
                "reasoning": "\n".join(lines),
            }
        )
    return records


def _best_sentence(reranker: Reranker, query: str, row: Mapping[str, Any]) -> str:
    parts = sentences(row["text"])
    if len(parts) < 2:
        return parts[0] if parts else ""
    scores = reranker.score([(query, sentence) for sentence in parts])
    return parts[max(range(len(parts)), key=scores.__getitem__)]
