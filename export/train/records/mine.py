"""Training groups out of a collection: hard negatives from a first stage, a teacher's scores, no false negatives.

A query's candidates are its positives and a sample of the first stage's documents at set depths. The teacher, any model
that `dearlite batch` runs, scores them once, with a journal. A negative that it likes better than the best positive
(less a margin) is taken for a false one and dropped, as NV-Retriever does (Moreira et al. 2024).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dearlite.errors import InvalidInput, UsageError
from dearlite.files.trec import read_qrels, read_run
from dearlite.files.writing import json_text, whole_file
from dearlite.offline import rerank_run
from dearlite.offline.collection.collection import Collection, make_collection
from dearlite.offline.collection.texts import read_corpus, read_queries

if TYPE_CHECKING:
    from dearlite.progress import Progress

_SPARE = 1.5  # candidates for a negative, times what is wanted: some are dropped


@dataclass(frozen=True, slots=True)
class Mining:
    """What is taken: `negatives` of each query out of the ranks of `depths`, at most `positives` of its positives.

    `margin` is in the teacher's own units. With `limit` so many queries are drawn.
    """

    negatives: int = 7
    positives: int = 4
    depths: tuple[tuple[int, int], ...] = ((1, 30),)
    margin: float = 0.0
    limit: int | None = None
    seed: int = 42
    skip_bad: bool = False


@dataclass(frozen=True, slots=True)
class Mined:
    """What came of it; `records` are ready to be written."""

    records: list[dict[str, Any]]
    without_positive: int
    without_negative: int
    false_negatives: int


def parse_depths(text: str) -> tuple[tuple[int, int], ...]:
    """Bands of ranks. Example: "1-10,11-30" -> ((1, 10), (11, 30))."""
    bands = []
    for part in text.split(","):
        low, _, high = part.strip().partition("-")
        if not low.isdecimal() or not (high or low).isdecimal() or not 1 <= int(low) <= int(high or low):
            raise UsageError(f"--depths {text}: it is ranks from 1, such as 1-10,11-30")
        bands.append((int(low), int(high or low)))
    return tuple(bands)


def candidates(
    queries: Path, corpus: Sequence[Path], qrels: Path, run: Path, mining: Mining
) -> tuple[Collection, dict[str, set[str]], int]:
    """What the teacher has to score, each query's positives, and how many queries had none in the corpus.

    Only documents without a grade above zero become negatives.
    """
    judged, found = read_qrels(qrels), read_run(run)[0]
    texts = read_queries(queries, wanted=found)
    rng = random.Random(mining.seed)
    names = [name for name in found if name in texts]
    rng.shuffle(names)
    names = names[: mining.limit]
    chosen: dict[str, list[str]] = {}
    positives: dict[str, set[str]] = {}
    for name in names:
        right = {one for one, grade in judged.get(name, {}).items() if grade > 0}
        ranked = list(found[name])
        best = sorted(right, key=lambda one: (-judged[name][one], one))  # the highest grades first
        positives[name] = set(best[: mining.positives])
        wrong: list[str] = []
        share = -(-int(mining.negatives * _SPARE) // len(mining.depths))
        for low, high in mining.depths:
            band = [one for one in ranked[low - 1 : high] if one not in right]
            wrong += rng.sample(band, min(share, len(band)))
        rng.shuffle(wrong)  # so that what is left over is of all bands
        chosen[name] = [*best[: mining.positives], *wrong]
    documents, _ = read_corpus(
        corpus, wanted={one for found in chosen.values() for one in found}, skip_bad=mining.skip_bad
    )
    kept, lost = {}, 0
    for name, ids in chosen.items():
        positives[name] &= set(documents)
        there = [one for one in dict.fromkeys(ids) if one in documents]
        if positives[name] and len(there) > len(positives[name]):
            kept[name] = there
        else:
            lost += not positives[name]
    if not kept:
        raise InvalidInput(f"{qrels.name} and {run.name} give no query with a positive and a negative in the corpus")
    return make_collection(texts, documents, kept, name=run.name), positives, lost


def mine(
    collection: Collection,
    positives: Mapping[str, set[str]],
    mining: Mining,
    *,
    model: str | None,
    device: str = "auto",
    threads: int | None = None,
    journal: Path | None = None,
    without_positive: int = 0,
    progress: Progress | None = None,
) -> Mined:
    """The records, with the teacher's scores. The journal makes the same call go on after a stop."""
    scored = rerank_run(
        collection, model=model, device=device, threads=threads, journal=journal or False, progress=progress
    )
    records, empty, dropped = [], 0, 0
    for name, scores in scored.run.items():
        best = max(scores[one] for one in positives[name])
        wrong = [one for one in collection.run[name] if one not in positives[name]]
        true = [one for one in wrong if scores[one] < best - mining.margin]
        dropped += len(wrong) - len(true)
        if not true:
            empty += 1
            continue
        right = sorted(positives[name], key=lambda one: -scores[one])
        rows = {
            side: [_passage(collection, one, scores[one]) for one in ids]
            for side, ids in (("positives", right), ("negatives", true[: mining.negatives]))
        }
        records.append({"query_id": name, "query": collection.queries[name], **rows})
    return Mined(records, without_positive, empty, dropped)


def write_records(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """JSON Lines, whole or not at all."""
    with whole_file(path) as stream:
        stream.writelines(json_text(record) + "\n" for record in records)


def _passage(collection: Collection, name: str, score: float) -> dict[str, Any]:
    document = collection.documents[name]
    return {"docid": name, "title": document.title, "text": document.text, "teacher_score": round(score, 5)}
