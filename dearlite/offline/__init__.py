"""Offline evaluation: `rerank_run` reranks a run of many queries without losing work, `evaluate` also measures it.

`compare` measures runs that exist already.

Their modules are imported when a function is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from dearlite.renamed import with_former_names

if TYPE_CHECKING:
    from dearlite.fields import Fields
    from dearlite.files.trec import Qrels, Run
    from dearlite.models.chain import Model
    from dearlite.offline.collection.collection import Collection
    from dearlite.offline.evaluation.evaluation import Evaluation
    from dearlite.offline.run.results import RerankedRun
    from dearlite.options import Device, Listwise, Long
    from dearlite.progress import Progress
    from dearlite.reranker import Reranker


@with_former_names
def rerank_run(
    source: str | Path | Collection | Any = None,
    *,
    queries: str | Path | None = None,
    corpus: str | Path | Sequence[str | Path] = (),
    run: str | Path | None = None,
    depth: int | None = 100,
    skip_bad: bool = False,
    fields: Fields | None = None,
    delimiter: str | None = None,
    model: Model | Reranker = None,
    device: Device = "auto",
    threads: int | None = None,
    instruction: str | None = None,
    language: str | None = None,
    listwise: Listwise | None = None,
    long: Long | None = None,
    batch_size: int = 8,
    output: str | Path | None = None,
    jsonl: str | Path | None = None,
    journal: str | Path | bool = True,
    cache: str | Path | None = None,
    progress: Progress | bool | None = None,
    cancel: Event | None = None,
) -> RerankedRun:
    """The run of `source` in the order of `model`; the best `depth` documents of each query are reranked.

    `source` is a folder (file names: `collection.FOLDER_LAYOUT`), a JSON file of rank_llm or RankGPT, a dataset of
    ir_datasets (`irds:ID`, or the object; extra `ir-datasets`), or a Collection (`make_collection` builds one from
    dicts; a depth other than the default cuts it). `queries`, `corpus` and `run` name files that replace the folder's;
    `queries` and `corpus` alone rank every document for every query. With `skip_bad` unusable records are left out.
    `output` is written as a TREC run. `jsonl` is written with one row per pair: texts, reasons and the scores of both
    stages.

    Each result is written to the journal at once, and the same call resumes from it. The journal is OUTPUT.journal, or
    a file in dearlite's own folder if there is no output, or the path `journal`; False writes none. `cache` is a SQLite
    file of pair scores. `long` selects the handling of long documents, as in `dearlite.rerank`. `batch_size` is the
    number of queries that a listwise model decodes side by side. `progress(done, total)` counts pairs; True is a bar
    or a line on stderr. Setting `cancel` raises Cancelled.
    """
    from dearlite.fields import USUAL
    from dearlite.offline.collection.first_stage import split_model
    from dearlite.offline.collection.source import Source
    from dearlite.offline.run import rerank_run as runs
    from dearlite.offline.run.run_files import RunFiles, input_files
    from dearlite.options import Call
    from dearlite.progress import shown

    first, model = split_model(model, language)
    own_language = language if first is None else None
    origin = Source(
        source=source,
        queries=queries,
        corpus=corpus,
        run=run,
        depth=depth,
        skip_bad=skip_bad,
        fields=fields or USUAL,
        delimiter=delimiter,
        first=first,
    )
    files = RunFiles(output=output, jsonl=jsonl, journal=journal, cache=cache)
    files.check(input_files(origin, runs.model_inputs(model, {})))
    with shown(progress, "pairs") as callback:
        return runs.rerank_run(
            origin.open(),
            model,
            files=files,
            call=Call(listwise=listwise, long=long, batch_size=batch_size, progress=callback, cancel=cancel),
            loading={"device": device, "threads": threads, "instruction": instruction, "language": own_language},
            skip_bad=skip_bad,
        )


def compare(
    qrels: str | Path | Qrels | Any,
    runs: Mapping[str, str | Path | Run | Any] | Sequence[str | Path],
    *,
    measures: str | Iterable[str] | Any = None,
    subject: str | None = None,
    all_pairs: bool = False,
    test: str = "randomisation",
    confidence: float | None = None,
    seed: int = 0,
    ties: str = "rank",
    seconds: Mapping[str, float] | None = None,
    queries: Mapping[str, str] | None = None,
    skip_bad: bool = False,
) -> Evaluation:
    """The measures of existing `runs` by the judgements `qrels` (extra `eval`); no texts and no model are needed.

    Both may be files, `irds:ID` or a dataset of ir_datasets, dicts (query id -> document id -> grade or score),
    DataFrames, or records. `runs` is name -> run, or a list of files, named by their file names. `subject` is the run
    that is compared with each other one, by default the last; with `all_pairs` each two are compared. `test` is
    "randomisation" or "t", both paired and two-sided. `confidence`, such as 0.95, adds bootstrap intervals to means
    and differences; `seed` is that of both. `seconds` are the times per query, where known, and `queries` the texts
    for a report. Measures and ties are as in `evaluate`. Raises UsageError and InvalidInput.

    >>> qrels = {"q1": {"a": 1, "b": 0}, "q2": {"c": 1}}
    >>> runs = {"bm25": {"q1": ["b", "a"], "q2": ["c"]}, "ours": {"q1": ["a", "b"], "q2": ["c"]}}
    >>> compare(qrels, runs, measures="RR@10").values["bm25"]
    {'RR@10': 0.75}
    """
    from dearlite.offline.evaluation.assess import EvaluationOptions, compare_alone, runs_by_name
    from dearlite.offline.evaluation.comparisons import Statistics
    from dearlite.offline.evaluation.measures import check_measures

    options = EvaluationOptions(
        qrels=qrels,
        seconds=seconds or {},
        measures=check_measures(measures),
        ties=ties,
        skip_bad=skip_bad,
        statistics=Statistics(test=test, confidence=confidence, all_pairs=all_pairs, seed=seed),
        subject=subject,
    )
    return compare_alone(runs_by_name(runs), options, queries=queries)


@with_former_names
def evaluate(
    source: str | Path | Collection | Any = None,
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
    all_pairs: bool = False,
    test: str = "randomisation",
    confidence: float | None = None,
    seed: int = 0,
    model: Model | Reranker = None,
    device: Device = "auto",
    threads: int | None = None,
    instruction: str | None = None,
    language: str | None = None,
    listwise: Listwise | None = None,
    long: Long | None = None,
    batch_size: int = 8,
    output: str | Path | None = None,
    jsonl: str | Path | None = None,
    journal: str | Path | bool = True,
    cache: str | Path | None = None,
    command: str = "",
    progress: Progress | bool | None = None,
    cancel: Event | None = None,
) -> Evaluation:
    """The measures of a reranked run (extra `eval`), of its first stage and of other runs.

    Reranks as `rerank_run` does, or measures `scored`, a run made earlier; then no model is loaded, and without a
    source nothing but `qrels` is needed (see `compare`, whose `all_pairs`, `test`, `confidence` and `seed` these are).
    `qrels` is a file (default: the folder's), `irds:ID` or a dict; a query that it judges and a run lacks counts as
    zero. `baselines` are other runs by name, `seconds` their time per query, where known. Runs and judgements may be
    dicts, DataFrames with the columns query_id, doc_id, and score or relevance, or records of this kind; ids may be
    whole numbers. `measures` are names of ir-measures, trec_eval, ranx or BEIR, or measures of ir-measures. Judgements,
    baselines and measures are checked before anything is scored. Documents of equal score are ordered by "rank", or by
    id as in "trec_eval" (`ties`). `command` is the command that a report shows for reproduction.
    """
    from dataclasses import replace

    from dearlite.fields import USUAL
    from dearlite.offline.collection.first_stage import split_model
    from dearlite.offline.collection.source import Source
    from dearlite.offline.evaluation import assess
    from dearlite.offline.evaluation.comparisons import Statistics
    from dearlite.offline.evaluation.measures import check_measures
    from dearlite.offline.run import rerank_run as runs
    from dearlite.offline.run.run_files import RunFiles, input_files
    from dearlite.options import Call
    from dearlite.progress import shown

    assess.check_baselines(baselines)
    options = assess.EvaluationOptions(
        qrels=qrels,
        baselines=baselines or {},
        seconds=seconds or {},
        measures=check_measures(measures),
        ties=ties,
        command=command,
        skip_bad=skip_bad,
        statistics=Statistics(test=test, confidence=confidence, all_pairs=all_pairs, seed=seed),
    )
    first, model = split_model(model, language)
    own_language = language if first is None else None
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
        first=first,
    )
    files = RunFiles(output=output, jsonl=jsonl, journal=journal, cache=cache)
    if scored is not None:
        files.refuse_any("scored")
    others = {"scored": scored, "baselines": list((baselines or {}).values())}
    files.check(input_files(origin, others | ({} if scored is not None else runs.model_inputs(model, {}))))
    if scored is not None and source is None and run is None and queries is None and not corpus:
        name = assess.name_of(scored)
        return assess.compare_alone({**(baselines or {}), name: scored}, replace(options, subject=name))
    collection = origin.open()
    assessment = assess.prepare(collection, options)
    if scored is not None:
        return assessment.of(scored)
    with shown(progress, "pairs") as callback:
        reranked = runs.rerank_run(
            collection,
            model,
            files=files,
            call=Call(listwise=listwise, long=long, batch_size=batch_size, progress=callback, cancel=cancel),
            loading={"device": device, "threads": threads, "instruction": instruction, "language": own_language},
            skip_bad=skip_bad,
        )
    return assessment.of(reranked)
