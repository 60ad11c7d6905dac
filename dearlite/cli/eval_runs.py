"""`dearlite eval --qrels FILE RUN...`: existing runs measured by their judgements alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from dearlite.cli.options.run import RunOptions
from dearlite.cli.options.spoken import name_of
from dearlite.errors import DearliteError, UsageError
from dearlite.offline.collection.candidates import iter_candidates
from dearlite.offline.collection.collection import folder_part
from dearlite.offline.collection.irds import dataset_queries, is_dataset
from dearlite.offline.collection.texts import read_queries
from dearlite.offline.evaluation.assess import EvaluationOptions, compare_alone
from dearlite.offline.evaluation.evaluation import Evaluation

# options of the command that go with existing runs; the others are those of a reranking
_USED = {"sources", "qrels", "measures", "ties", "scored", "baselines", "all_pairs", "test", "confidence", "seed"}
_USED |= {"report", "json", "csv", "per_query", "per_query_long", "latex", "plot", "skip_bad", "quiet"}
_RUN_ENDINGS = (".run", ".trec", ".res")
_CANDIDATES = (".json", ".jsonl", ".ndjson", ".parquet")


@dataclass(frozen=True, slots=True)
class Runs:
    """Existing runs that were named on the command line, and the SOURCE of their judgements and queries if any."""

    runs: tuple[str, ...]
    source: str | None = None


def runs_of(options: RunOptions, *, qrels: str | None, scored: str | None) -> Runs | None:
    """The existing runs that are to be measured alone; None if SOURCE is to be reranked, or is measured with --scored.

    The arguments after a folder or a dataset are runs. Without one, files are runs if --qrels names the judgements,
    but for documents (--queries) and a single file of queries with their documents (rank_llm's JSON).
    """
    sources, source = options.sources, options.source
    if source.source is None and scored is not None and qrels is not None and not (source.run or source.corpus):
        return Runs((scored,))
    if not sources and qrels is not None and not (source.source or source.run or source.queries or source.corpus):
        raise UsageError("nothing to measure: give the files of runs beside --qrels, or a collection to rerank")
    if not sources or source.source is None:
        return None
    if is_dataset(sources[0]) or os.path.isdir(sources[0]):
        return Runs(sources[1:], sources[0]) if len(sources) > 1 else None
    if qrels is None:
        if len(sources) == 1:
            _refuse_lone_run(sources[0])
            return None
        raise UsageError(f"{len(sources)} runs are given without judgements: name them with --qrels")
    return None if len(sources) == 1 and _holds_candidates(sources[0]) else Runs(sources)


def _refuse_lone_run(name: str) -> None:
    """Raises UsageError for a run that has no judgements to be measured by, known by its ending."""
    if Path(name.lower().removesuffix(".gz")).suffix in _RUN_ENDINGS and os.path.isfile(name):
        raise UsageError(f"{name} is a run, given without judgements: name them with --qrels")


def _holds_candidates(name: str) -> bool:
    """True for a file of queries with their documents, which is reranked; False for a run in the same format."""
    path = Path(name.lower().removesuffix(".gz"))
    if path.suffix not in _CANDIDATES or not os.path.isfile(name):
        return False
    try:
        next(iter_candidates(Path(name)), None)
    except DearliteError:
        return False
    return True


def check_options(ctx: click.Context) -> None:
    """Raises UsageError for an option of a reranking, which existing runs leave without effect."""
    for param in ctx.command.params:
        name = param.name or ""
        if name not in _USED and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"{name_of(param)} is for a reranking, and runs are only measured: leave it out")


def measure_runs(named: Runs, options: EvaluationOptions, *, scored: str | None) -> Evaluation:
    """The measures of the runs, in the order of the command line, after the baselines. The last run is the subject."""
    runs = [parse_run(text) for text in dict.fromkeys((*named.runs, *([scored] if scored else [])))]
    names = [run.name for run in runs]
    alike = {name for name in names if names.count(name) > 1}
    runs = [replace(run, name=run.path) if run.name in alike and run.is_unnamed else run for run in runs]
    by_name: dict[str, Any] = dict(options.baselines)
    for run in runs:
        if run.name in by_name:
            raise UsageError(f"two runs are called {run.name!r}: give them names, NAME=FILE")
        by_name[run.name] = run.path
    seconds = {run.name: run.seconds for run in runs if run.seconds is not None}
    qrels = options.qrels
    queries: Mapping[str, str] = {}
    if named.source is not None:
        qrels = _qrels_of(named.source) if qrels is None else qrels
        queries = _queries_of(named.source)
    return compare_alone(
        by_name,
        replace(options, qrels=qrels, subject=runs[-1].name, seconds={**options.seconds, **seconds}),
        queries=queries,
    )


def _qrels_of(source: str) -> Any:
    return source if is_dataset(source) else folder_part("qrels", source)


def _queries_of(source: str) -> Mapping[str, str]:
    """The texts of the queries that a folder or a dataset has; they are only shown."""
    if is_dataset(source):
        return dataset_queries(source)
    path = folder_part("queries", source, needed=False)
    return {} if path is None else read_queries(path)


def files_of(named: Runs) -> Sequence[str]:
    """The files among the runs, which no output may replace."""
    return [run.path for run in map(parse_run, named.runs) if not is_dataset(run.path)]


@dataclass(frozen=True, slots=True)
class NamedRun:
    """A run that was made earlier: its name, its file or dataset, and its time per query if that is given."""

    name: str
    path: str
    seconds: float | None

    @property
    def is_unnamed(self) -> bool:
        """True if the name is only that of the file."""
        return self.name == Path(self.path).name


def parse_run(text: str, label: str = "") -> NamedRun:
    """The run that `[NAME=]FILE[@S]` names; the path of an existing file is used unchanged.

    FILE may be `irds:ID`, the scored documents of a dataset. Raises UsageError, which begins with `label`.
    """
    name, path, seconds = Path(text).name, text, None
    if is_dataset(text):
        return NamedRun(text, text, None)
    if not os.path.exists(path):
        head, at, tail = path.rpartition("@")
        if at:
            try:
                path, seconds = head, float(tail)
            except ValueError:
                raise UsageError(f"{label}{text}: {tail!r} is no number of seconds (NAME=FILE@SECONDS)") from None
            name = Path(path).name
    if not os.path.exists(path) and "=" in path:
        name, _, path = path.partition("=")
    if is_dataset(path):
        return NamedRun(name, path, seconds)
    if not os.path.isfile(path):
        raise UsageError(f"{label}{text}: no such file {path}")
    return NamedRun(name, path, seconds)
