"""Offline evaluation: runs of many queries, reranked without losing work, and measured as the field measures them.

`rerank_run` gives a run its new order, `evaluate` measures it too. What they need is imported when they are called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dearlite.files.trec import Qrels, Run
    from dearlite.loading import Model
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
    model: Model | Reranker = None,
    device: str = "auto",
    threads: int | None = None,
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
    """The run of `source` in the order of `model`, `depth` documents of each query.

    `source` is a folder (`collection.FOLDER_LAYOUT`), rank_llm's or RankGPT's JSON, or a Collection (`make_collection`
    makes one of dicts); `queries`, `corpus` and `run` are files, in place of the folder's.
    `output` becomes a TREC run, `jsonl` a row a pair with texts, reasons and the scores of both stages.

    Each result goes into the journal at once, and the same call goes on from it: OUTPUT.journal, a file in dearlite's
    own folder where there is no output, `journal` where it is a path; False keeps none. `cache` is a SQLite file of
    pairs' scores. `long` says what becomes of long documents, as in `dearlite.rerank`. `together` is how many queries
    a listwise model decodes side by side. `progress(done, total)` counts pairs; True writes a line to stderr, as
    notebooks show it.
    """
    from dearlite.offline.run import rerank_run as running

    return running.rerank_run(
        running.collection_of(source, queries, corpus, run, None, depth, skip_bad),
        model=model,
        device=device,
        threads=threads,
        listwise=listwise,
        long=long,
        together=together,
        output=output,
        jsonl=jsonl,
        journal=journal,
        cache=cache,
        progress=progress,
        cancel=cancel,
    )


def evaluate(
    source: str | Path | Collection | None = None,
    *,
    qrels: str | Path | Qrels | None = None,
    queries: str | Path | None = None,
    corpus: str | Path | Sequence[str | Path] = (),
    run: str | Path | None = None,
    depth: int | None = 100,
    skip_bad: bool = False,
    scored: str | Path | Run | None = None,
    baselines: Mapping[str, str | Path | Run] | None = None,
    seconds: Mapping[str, float] | None = None,
    measures: str | Iterable[str] | None = None,
    ties: str = "rank",
    model: Model | Reranker = None,
    device: str = "auto",
    threads: int | None = None,
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
    """`rerank_run` and its measures (extra `eval`), beside the first stage's and those of other runs.

    `qrels` is a file (the folder's without it) or a dict; queries that it judges and the run lacks count as zero.
    `baselines` are runs by name, `seconds` what a query took them, where that is known. With `scored`, a run that was
    made before, no model is loaded. `measures` are ir-measures' names. Documents of equal score stand by "rank", or by
    id as in "trec_eval" (`ties`). `command` is what a report says to type.
    """
    from dearlite.offline.evaluation import assess
    from dearlite.offline.run import rerank_run as running

    found = running.collection_of(source, queries, corpus, run, qrels, depth, skip_bad)
    reranked = None
    if scored is None:
        reranked = running.rerank_run(
            found,
            model=model,
            device=device,
            threads=threads,
            listwise=listwise,
            long=long,
            together=together,
            output=output,
            jsonl=jsonl,
            journal=journal,
            cache=cache,
            progress=progress,
            cancel=cancel,
        )
    return assess.evaluate(found, reranked, scored, qrels, baselines or {}, seconds or {}, measures, command, ties)
