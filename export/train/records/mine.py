"""Mining of training groups: hard negatives from a first stage, scored by a teacher, without false negatives.

The candidates of a query are its positives and a sample of the first stage's documents at set depths. The teacher, any
model that `dearlite batch` runs, scores each candidate once; the scores are journalled. A negative that scores at least
as high as the best positive minus a margin is taken for an unjudged positive and dropped, as NV-Retriever does
(Moreira et al. 2024).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dearlite.errors import InvalidInput, UsageError
from dearlite.export.train.records.evidence import listwise_records
from dearlite.files.json_text import write_rows
from dearlite.files.outputs import check_outputs
from dearlite.files.targets import ending_of
from dearlite.files.trec import read_qrels, read_run
from dearlite.files.writing import standard_output, whole_file
from dearlite.models.registry import DEFAULT_MODEL, find_model
from dearlite.offline import rerank_run
from dearlite.offline.collection.collection import Collection, collection_files, make_collection
from dearlite.offline.collection.source import Source
from dearlite.offline.collection.texts import read_corpus, read_queries
from dearlite.offline.run.run_files import ROW_ENDINGS, RunFiles, input_files
from dearlite.options import Device

if TYPE_CHECKING:
    from dearlite.progress import Progress

_SPARE = 1.5  # candidates sampled for each negative that is kept: the teacher's filter drops some


@dataclass(frozen=True, slots=True, kw_only=True)
class MiningOptions:
    """The selection of queries and passages for `mine`. Raises UsageError for a value out of range."""

    negatives: int = 7  # of each query, at most
    positives: int = 4  # of each query, at most
    depths: tuple[tuple[int, int], ...] = ((1, 30),)  # bands of the first stage's ranks that negatives are drawn from
    margin: float = 0.0  # in the teacher's units: negatives score more than this below the best positive
    limit: int | None = None  # number of queries, drawn by the seed; None: all
    seed: int = 42
    listwise: bool = False  # records of stage 2 (the teacher's order, its evidence quoted) instead of stage 1
    skip_bad: bool = False  # leave out documents that cannot be used, instead of raising InvalidInput

    def __post_init__(self) -> None:
        if self.negatives < 1 or self.positives < 1:
            raise UsageError("negatives and positives are 1 or more")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"limit is {self.limit}: it must be a whole number from 1")
        if not self.depths or not all(1 <= low <= high for low, high in self.depths):
            raise UsageError(f"depths is {self.depths}: it holds pairs (first rank, last rank), from rank 1")


@dataclass(frozen=True, slots=True)
class MinedRecords:
    """The result of `mine`: `records` as they are written to the file, and the numbers of what was left out."""

    records: list[dict[str, Any]]
    without_positive: int  # queries
    without_negative: int  # queries whose negatives were all dropped
    false_negatives: int  # negatives that the teacher scores above the positives (less the margin)


@dataclass(frozen=True, slots=True)
class Candidates:
    """The documents that the teacher scores, and the ids of the relevant ones among them, by query id."""

    collection: Collection
    positives: Mapping[str, set[str]]
    without_positive: int  # queries that have no positive in the corpus


def parse_depths(text: str) -> tuple[tuple[int, int], ...]:
    """Bands of ranks. Example: "1-10,11-30" -> ((1, 10), (11, 30))."""
    bands = []
    for part in text.split(","):
        low, _, high = part.strip().partition("-")
        if not low.isdecimal() or not (high or low).isdecimal() or not 1 <= int(low) <= int(high or low):
            raise UsageError(f"--depths {text}: it is ranks from 1, such as 1-10,11-30")
        bands.append((int(low), int(high or low)))
    return tuple(bands)


def mine(
    source: str | Path | None = None,
    *,
    options: MiningOptions | None = None,
    queries: str | Path | None = None,
    corpus: str | Path | Sequence[str | Path] = (),
    qrels: str | Path | None = None,
    run: str | Path | None = None,
    model: str | None = None,
    device: Device = "auto",
    threads: int | None = None,
    output: str | Path | None = None,
    journal: str | Path | None = None,
    progress: Progress | bool | None = None,
) -> MinedRecords:
    """Training records of stage 1 with the teacher's scores; of stage 2 with `options.listwise`.

    `source` is a collection's folder, as `dearlite.rerank_run` takes it; `queries`, `corpus`, `qrels` and `run` are
    files that replace the folder's. `model` is the teacher, a name or a file (None: the default model). The records are
    written to `output` (JSON Lines) where it is given. The teacher's scores are journalled in `journal` (None:
    OUTPUT.journal), so that the same call resumes after an interruption. `progress(done, total)` counts pairs;
    True is a bar or a line on stderr.

    Raises UsageError for a file or a model that is missing, InvalidInput when no query has a positive and a negative.

    For example: mine("squad", options=MiningOptions(negatives=3, depths=((1, 10), (11, 30))), output="train.jsonl").
    """
    options = options or MiningOptions()
    teacher = find_model(model or DEFAULT_MODEL)  # before the corpus is read
    if journal is None and output is not None:
        journal = RunFiles(output=output).journal_beside
    _check_output(output, journal, Source(source=source, queries=queries, corpus=corpus, run=run, qrels=qrels), teacher)
    files = collection_files(
        source,
        {"queries": queries, "run": run, "qrels": qrels},
        [corpus] if isinstance(corpus, (str, Path)) else corpus,
    )
    candidates = find_candidates(files["queries"][0], files["corpus"], files["qrels"][0], files["run"][0], options)
    scored = rerank_run(
        candidates.collection,
        model=model,
        device=device,
        threads=threads,
        journal=journal or False,
        progress=progress,
    )
    mined = select(candidates, scored.run, options)
    if options.listwise:
        records = listwise_records(mined.records, model=model, device=device, threads=threads, seed=options.seed)
        mined = replace(mined, records=records)
    if output is not None:
        write_records(mined.records, output)
    return mined


def _check_output(output: str | Path | None, journal: str | Path | None, source: Source, teacher: Path) -> None:
    """Raises UsageError for an output that cannot be written, or that is the teacher or a file of the collection."""
    if output is not None:
        ending_of(output, ROW_ENDINGS)
    check_outputs({"--output": output, "--journal": journal}, input_files(source, {"--model": teacher}))


def find_candidates(
    queries: Path, corpus: Sequence[Path], qrels: Path, run: Path, options: MiningOptions
) -> Candidates:
    """The candidates of each query of the run that has a text: its best positives, and sampled negatives.

    Only documents without a grade above zero become negatives. Raises InvalidInput when no query has both.
    """
    grades, rankings = read_qrels(qrels), read_run(run)[0]
    texts = read_queries(queries, ids=rankings)
    rng = random.Random(options.seed)
    query_ids = [query_id for query_id in rankings if query_id in texts]
    rng.shuffle(query_ids)
    chosen: dict[str, list[str]] = {}
    positives: dict[str, set[str]] = {}
    for query_id in query_ids[: options.limit]:
        grade_of = grades.get(query_id, {})
        relevant = {doc_id for doc_id, grade in grade_of.items() if grade > 0}
        best = sorted(relevant, key=lambda doc_id: (-grade_of[doc_id], doc_id))[: options.positives]
        ranked = list(rankings[query_id])
        negatives: list[str] = []
        share = -(-int(options.negatives * _SPARE) // len(options.depths))
        for low, high in options.depths:
            band = [doc_id for doc_id in ranked[low - 1 : high] if doc_id not in relevant]
            negatives += rng.sample(band, min(share, len(band)))
        rng.shuffle(negatives)  # so that the spare ones, cut off later, come from all bands
        positives[query_id] = set(best)
        chosen[query_id] = [*best, *negatives]
    documents, _ = read_corpus(
        corpus, ids={doc_id for ids in chosen.values() for doc_id in ids}, skip_bad=options.skip_bad
    )
    kept, without_positive = {}, 0
    for query_id, ids in chosen.items():
        positives[query_id] &= set(documents)
        present = [doc_id for doc_id in dict.fromkeys(ids) if doc_id in documents]
        if positives[query_id] and len(present) > len(positives[query_id]):
            kept[query_id] = present
        else:
            without_positive += not positives[query_id]
    if not kept:
        raise InvalidInput(f"{qrels.name} and {run.name} give no query with a positive and a negative in the corpus")
    return Candidates(make_collection(texts, documents, kept, name=run.name), positives, without_positive)


def select(
    candidates: Candidates, scores_by_query: Mapping[str, Mapping[str, float]], options: MiningOptions
) -> MinedRecords:
    """Records of stage 1: each query's positives, the best-scored first, and the negatives that the margin keeps."""
    collection = candidates.collection
    records, without_negative, false_negatives = [], 0, 0
    for query_id, scores in scores_by_query.items():
        positives = candidates.positives[query_id]
        best = max(scores[doc_id] for doc_id in positives)
        negatives = [doc_id for doc_id in collection.run[query_id] if doc_id not in positives]
        true_negatives = [doc_id for doc_id in negatives if scores[doc_id] < best - options.margin]
        false_negatives += len(negatives) - len(true_negatives)
        if not true_negatives:
            without_negative += 1
            continue
        sides = {
            "positives": sorted(positives, key=lambda doc_id: -scores[doc_id]),
            "negatives": true_negatives[: options.negatives],
        }
        rows = {side: [_passage(collection, doc_id, scores[doc_id]) for doc_id in ids] for side, ids in sides.items()}
        records.append({"query_id": query_id, "query": collection.queries[query_id], **rows})
    return MinedRecords(records, candidates.without_positive, without_negative, false_negatives)


def write_records(records: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Writes JSON Lines, "-" for stdout; the file appears when all of them are written, or not at all."""
    with standard_output(json=True) if str(path) == "-" else whole_file(path) as stream:
        write_rows(records, stream)


def _passage(collection: Collection, doc_id: str, score: float) -> dict[str, Any]:
    document = collection.documents[doc_id]
    return {"docid": doc_id, "title": document.title, "text": document.text, "teacher_score": round(score, 5)}
