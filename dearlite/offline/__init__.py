"""Offline evaluation: `rerank_run` reranks a run of many queries without losing work, `evaluate` also measures it.

Their modules are imported when a function is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dearlite.fields import Fields
    from dearlite.files.trec import Qrels, Run
    from dearlite.models.chain import Model
    from dearlite.offline.collection.collection import Collection
    from dearlite.offline.evaluation.evaluation import Evaluation
    from dearlite.offline.run.results import RerankedRun
    from dearlite.options import Listwise, Long
    from dearlite.progress import Progress
    from dearlite.reranker import Reranker


def rerank_run(
    source: str | Path | Collection | None = None,
    *,
    queries: str | Path | None = None,
    corpus: str | Path | Sequence[str | Path] = (),
    run: str | Path | None = None,
    depth: int | None = 100,
    skip_bad: bool = False,
    fields: Fields | None = None,
    delimiter: str | None = None,
    model: Model | Reranker = None,
    device: str = "auto",
    threads: int | None = None,
    instruction: str | None = None,
    listwise: Listwise | None = None,
    long: Long | None = None,
    together: int = 8,
    output: str | Path | None = None,
    jsonl: str | Path | None = None,
    journal: str | Path | bool = True,
    cache: str | Path | None = None,
    progress: Progress | bool | None = None,
    cancel: Event | None = None,
) -> RerankedRun:
    """The run of `source` in the order of `model`; the best `depth` documents of each query are reranked.

    `source` is a folder (file names: `collection.FOLDER_LAYOUT`), a JSON file of rank_llm or RankGPT, or a Collection
    (`make_collection` builds one from dicts; a depth other than the default cuts it). `queries`, `corpus` and `run`
    name files that replace the folder's. With `skip_bad` unusable records are left out.
    `output` is written as a TREC run. `jsonl` is written with one row per pair: texts, reasons and the scores of both
    stages.

    Each result is written to the journal at once, and the same call resumes from it. The journal is OUTPUT.journal, or
    a file in dearlite's own folder if there is no output, or the path `journal`; False writes none. `cache` is a SQLite
    file of pair scores. `long` selects the handling of long documents, as in `dearlite.rerank`. `together` is the
    number of queries that a listwise model decodes side by side. `progress(done, total)` counts pairs; True writes a
    progress line to stderr, which notebooks show too. Setting `cancel` raises Cancelled.
    """
    from dearlite.fields import USUAL
    from dearlite.offline.collection.collection import Source
    from dearlite.offline.run import rerank_run as runs
    from dearlite.offline.run.run_files import RunFiles, input_files
    from dearlite.options import Call

    origin = Source(
        source=source,
        queries=queries,
        corpus=corpus,
        run=run,
        depth=depth,
        skip_bad=skip_bad,
        fields=fields or USUAL,
        delimiter=delimiter,
    )
    files = RunFiles(output=output, jsonl=jsonl, journal=journal, cache=cache)
    files.check(input_files(origin, runs.model_inputs(model, {})))
    return runs.rerank_run(
        origin.open(),
        model,
        files=files,
        call=Call(listwise=listwise, long=long, together=together, progress=runs.callback_of(progress), cancel=cancel),
        loading={"device": device, "threads": threads, "instruction": instruction},
        skip_bad=skip_bad,
    )


def evaluate(
    source: str | Path | Collection | None = None,
    *,
    qrels: str | Path | Qrels | Any = None,
    queries: str | Path | None = None,
    corpus: str | Path | Sequence[str | Path] = (),
    run: str | Path | None = None,
    depth: int | None = 100,
    skip_bad: bool = False,
    fields: Fields | None = None,
    delimiter: str | None = None,
    scored: str | Path | Run | Any = None,
    baselines: Mapping[str, str | Path | Run | Any] | None = None,
    seconds: Mapping[str, float] | None = None,
    measures: str | Iterable[str] | Any = None,
    ties: str = "rank",
    model: Model | Reranker = None,
    device: str = "auto",
    threads: int | None = None,
    instruction: str | None = None,
    listwise: Listwise | None = None,
    long: Long | None = None,
    together: int = 8,
    output: str | Path | None = None,
    jsonl: str | Path | None = None,
    journal: str | Path | bool = True,
    cache: str | Path | None = None,
    command: str = "",
    progress: Progress | bool | None = None,
    cancel: Event | None = None,
) -> Evaluation:
    """The measures of a reranked run (extra `eval`), of its first stage and of other runs.

    Reranks as `rerank_run` does, or measures `scored`, a run made earlier; then no model is loaded.
    `qrels` is a file (default: the folder's) or a dict; a query that it judges and a run lacks counts as zero.
    `baselines` are other runs by name, `seconds` their time per query, where known. Runs and judgements may be dicts,
    DataFrames with the columns query_id, doc_id, and score or relevance, or records of this kind; ids may be whole
    numbers. `measures` are names of ir-measures or trec_eval, or measures of ir-measures. Judgements, baselines and
    measures are checked before anything is scored. Documents of equal score are ordered by "rank", or by id as in
    "trec_eval" (`ties`). `command` is the command that a report shows for reproduction.
    """
    from dearlite.fields import USUAL
    from dearlite.offline.collection.collection import Source
    from dearlite.offline.evaluation import assess
    from dearlite.offline.evaluation.measures import check_measures
    from dearlite.offline.run import rerank_run as runs
    from dearlite.offline.run.run_files import RunFiles, input_files
    from dearlite.options import Call

    options = assess.EvaluationOptions(
        qrels=qrels,
        baselines=baselines or {},
        seconds=seconds or {},
        measures=check_measures(measures),
        ties=ties,
        command=command,
        skip_bad=skip_bad,
    )
    origin = Source(
        source=source,
        queries=queries,
        corpus=corpus,
        run=run,
        qrels=qrels,
        depth=depth,
        skip_bad=skip_bad,
        fields=fields or USUAL,
        delimiter=delimiter,
    )
    files = RunFiles(output=output, jsonl=jsonl, journal=journal, cache=cache)
    if scored is not None:
        files.refuse_any("scored")
    others = {"scored": scored, "baselines": list((baselines or {}).values())}
    files.check(input_files(origin, others | ({} if scored is not None else runs.model_inputs(model, {}))))
    collection = origin.open()
    assessment = assess.prepare(collection, options)
    if scored is not None:
        return assessment.of(scored)
    reranked = runs.rerank_run(
        collection,
        model,
        files=files,
        call=Call(listwise=listwise, long=long, together=together, progress=runs.callback_of(progress), cancel=cancel),
        loading={"device": device, "threads": threads, "instruction": instruction},
        skip_bad=skip_bad,
    )
    return assessment.of(reranked)
