"""Measures runs together, a reranked one with its first stage or any others, and adds the facts that a report shows."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dearlite.errors import InvalidInput, UsageError
from dearlite.files.trec import Qrels
from dearlite.machine import versions_of
from dearlite.offline.collection.collection import Collection
from dearlite.offline.collection.irds import dataset_name, is_dataset
from dearlite.offline.collection.runs import open_qrels, open_run
from dearlite.offline.evaluation.comparisons import Statistics
from dearlite.offline.evaluation.evaluation import Evaluation, System, compare
from dearlite.offline.evaluation.measures import TIES, check_grades, check_measures
from dearlite.offline.run.results import RerankedRun
from dearlite.version import __version__

_PACKAGES = ("onnxruntime", "llama-cpp-python", "tokenizers", "numpy", "ir-measures", "pytrec-eval-terrier")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """The judgements, the other runs and the measures of an evaluation, as `dearlite.evaluate` takes them.

    `published` are rows of measures alone, `title` is the name of the evaluation (default: the collection's). With
    `skip_bad` bad lines of the other runs are left out. `subject` is the run that the others are compared with.
    """

    qrels: Any = None
    baselines: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    measures: Any = None
    ties: str = "rank"
    command: str = ""
    published: Sequence[System] = ()
    title: str = ""
    skip_bad: bool = False
    statistics: Statistics = field(default_factory=Statistics)
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Assessment:
    """An evaluation whose files are read and whose measures are checked, before anything is scored."""

    collection: Collection
    options: EvaluationOptions
    measures: Sequence[str]
    qrels: Qrels
    baselines: Sequence[System]
    notes: Sequence[str]

    def of(self, result: RerankedRun | object) -> Evaluation:
        """The measures of `result` (a reranked run, or a run made earlier), of the first stage and the baselines."""
        collection, options = self.collection, self.options
        notes = list(collection.notes)
        systems = [System("first stage", "first stage", collection.run)] if collection.first_stage else []
        facts: dict[str, object] = {"collection": collection.name, **collection.sources}
        if isinstance(result, RerankedRun):
            systems.append(_reranked_system(result))
            facts |= dict(result.identity)
            notes += [*result.notes, *_notes_on(result)]
        else:
            name = name_of(result)
            run, run_notes = open_run(result, "the scored run", skip_bad=options.skip_bad)
            systems.append(System(name, "reranked", run))
            notes += run_notes
        return compare(
            [*systems, *self.baselines, *options.published],
            self.qrels,
            name=options.title or collection.name,
            measures=self.measures,
            ties=options.ties,
            notes=[*notes, *self.notes],
            command=options.command,
            facts=facts | _machine_facts(),
            queries=collection.queries,
            documents={name: (document.title, document.text) for name, document in collection.documents.items()},
            statistics=options.statistics,
        )


def check_baselines(baselines: object) -> None:
    """Raises UsageError unless `baselines` is a mapping or None."""
    if baselines is not None and not isinstance(baselines, Mapping):
        raise UsageError(f"baselines is a {type(baselines).__name__}: give a mapping of names to runs")


def prepare(collection: Collection, options: EvaluationOptions) -> Assessment:
    """Reads the judgements and the baselines, and checks the measures on them; no result is needed.

    `options.qrels` comes before the collection's own judgements. Raises UsageError and InvalidInput.
    """
    qrels = options.qrels if options.qrels is not None else collection.qrels
    if qrels is None:
        raise UsageError(f"no judgements for {collection.name}: name them with --qrels")
    measures, grades = _checked(qrels, options)
    if unknown := [name for name in options.seconds if name not in options.baselines]:
        names = ", ".join(options.baselines) or "none is given"
        raise UsageError(f"seconds for {unknown[0]!r}, which is not a baseline: {names}")
    systems, notes = _systems(options.baselines, options, role="baseline")
    return Assessment(collection, options, measures, grades, systems, notes)


def compare_alone(
    runs: Mapping[str, Any], options: EvaluationOptions, *, queries: Mapping[str, str] | None = None
) -> Evaluation:
    """The measures of existing runs by their judgements alone; no texts, no model and no first stage are needed.

    `queries` are the texts that a report shows. The subject is `options.subject`, or the last run.
    """
    if options.qrels is None:
        raise UsageError("no judgements: name them with --qrels")
    if not runs:
        raise UsageError("no run is given: nothing can be measured")
    measures, qrels = _checked(options.qrels, options)
    if unknown := [name for name in options.seconds if name not in runs]:
        raise UsageError(f"seconds for {unknown[0]!r}, which is not a run: {', '.join(runs)}")
    systems, notes = _systems(runs, options, role="run")
    name = dataset_name(options.qrels) if is_dataset(options.qrels) else "judgements"
    if isinstance(options.qrels, (str, Path)) and not is_dataset(options.qrels):
        name = Path(options.qrels).name
    sources = {f"run {key}": str(run) for key, run in runs.items() if isinstance(run, (str, Path))}
    return compare(
        systems,
        qrels,
        name=options.title or name,
        measures=measures,
        subject=options.subject or list(runs)[-1],
        ties=options.ties,
        notes=notes,
        command=options.command,
        facts={"judgements": name, **sources, **_machine_facts()},
        queries=queries,
        statistics=options.statistics,
    )


def name_of(scored: object) -> str:
    """The name of a run that was made earlier: that of its file or dataset, or "scored"."""
    if is_dataset(scored):
        return dataset_name(scored)
    return Path(scored).name if isinstance(scored, (str, Path)) else "scored"


def runs_by_name(runs: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """Name -> run; runs in a list are named by their files, and by their whole paths where two files have one name.

    Raises UsageError for runs of another form, and for one file twice.
    """
    if isinstance(runs, Mapping):
        if wrong := [name for name in runs if not isinstance(name, str)]:
            raise UsageError(f"a run has the name {wrong[0]!r}: a name is a string")
        return dict(runs)
    if isinstance(runs, (str, Path)) or not all(isinstance(run, (str, Path)) or is_dataset(run) for run in runs):
        raise UsageError(f"runs is a {type(runs).__name__}: give {{name: run}}, or a list of files")
    short = [name_of(run) for run in runs]
    names = [str(run) if short.count(name) > 1 else name for run, name in zip(runs, short, strict=True)]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"the run {repeated[0]} is given twice: leave one out, or give both names")
    return dict(zip(names, runs, strict=True))


def _checked(judgements: Any, options: EvaluationOptions) -> tuple[list[str], Qrels]:
    """The names of the measures, and the judgements. Raises UsageError and InvalidInput for bad ones."""
    measures = check_measures(options.measures)
    if options.ties not in TIES:
        raise UsageError(f"ties is {options.ties!r}: it is one of {', '.join(TIES)}")
    qrels = open_qrels(judgements)
    if not qrels:
        raise InvalidInput("there are no judgements: nothing can be measured")
    check_grades(measures, qrels)
    return measures, qrels


def _systems(runs: Mapping[str, Any], options: EvaluationOptions, *, role: str) -> tuple[list[System], list[str]]:
    """The rows of runs that were made before, and the notes on their files."""
    systems: list[System] = []
    notes: list[str] = []
    for name, source in runs.items():
        run, run_notes = open_run(source, f"the {role} {name!r}", skip_bad=options.skip_bad)
        systems.append(System(name, role, run, seconds_per_query=options.seconds.get(name)))
        notes += run_notes
    return systems, notes


def _reranked_system(reranked: RerankedRun) -> System:
    """The table row of a reranked run; without rates if the model scored nothing."""
    timed = reranked.seconds > 0
    return System(
        reranked.model,
        "reranked",
        reranked.run,
        seconds_per_query=reranked.seconds / len(reranked.results) if timed else None,
        tokens_per_second=reranked.tokens / reranked.seconds if timed else None,
        facts=dict(reranked.identity),
    )


def _notes_on(reranked: RerankedRun) -> list[str]:
    """Notes on pairs from the journal, pairs from the cache, and truncated pairs."""
    notes = []
    if reranked.resumed:
        notes.append(f"{reranked.resumed} of {reranked.collection.pairs} pairs were in the journal already")
    if reranked.cached:
        notes.append(f"{reranked.cached} pairs came from the cache: the time is of the others alone")
    if reranked.truncated:
        notes.append(f"{reranked.truncated} of {reranked.collection.pairs} pairs did not fit the model and were cut")
    return notes


def _machine_facts() -> dict[str, object]:
    versions = [f"{package} {version}" for package, version in versions_of(*_PACKAGES).items()]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join((f"dearlite {__version__}", *versions)),
    }
