"""Measures a reranked run, its first stage and other runs together, and adds the facts that a report shows."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dearlite.errors import InvalidInput, UsageError
from dearlite.files.trec import Qrels, Run, read_qrels, read_run
from dearlite.machine import versions_of
from dearlite.offline.collection.collection import Collection
from dearlite.offline.collection.memory import as_qrels, as_run
from dearlite.offline.evaluation.evaluation import Evaluation, System, compare
from dearlite.offline.evaluation.measures import TIES, check_grades, check_measures
from dearlite.offline.run.results import RerankedRun
from dearlite.version import __version__

_PACKAGES = ("onnxruntime", "llama-cpp-python", "tokenizers", "numpy", "ir-measures", "pytrec-eval-terrier")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """The judgements, the other runs and the measures of an evaluation, as `dearlite.evaluate` takes them.

    `published` are rows of measures alone, `title` is the name of the evaluation (default: the collection's). With
    `skip_bad` bad lines of the other runs are left out.
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
        systems = [System("first stage", "first stage", collection.run)]
        facts: dict[str, object] = {"collection": collection.name, **collection.sources}
        if isinstance(result, RerankedRun):
            systems.append(_reranked_system(result))
            facts |= dict(result.identity)
            notes += [*result.notes, *_notes_on(result)]
        else:
            name = Path(result).name if isinstance(result, (str, Path)) else "scored"
            run, run_notes = _open_run(result, "the scored run", options.skip_bad)
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
        )


def prepare(collection: Collection, options: EvaluationOptions) -> Assessment:
    """Reads the judgements and the baselines, and checks the measures on them; no result is needed.

    `options.qrels` comes before the collection's own judgements. Raises UsageError and InvalidInput.
    """
    measures = check_measures(options.measures)
    if options.ties not in TIES:
        raise UsageError(f"ties is {options.ties!r}: it is one of {', '.join(TIES)}")
    qrels = options.qrels if options.qrels is not None else collection.qrels
    if qrels is None:
        raise UsageError(f"no judgements for {collection.name}: name them with --qrels")
    qrels = read_qrels(qrels) if isinstance(qrels, (str, Path)) else as_qrels(qrels)
    if not qrels:
        raise InvalidInput("there are no judgements: nothing can be measured")
    check_grades(measures, qrels)
    if unknown := [name for name in options.seconds if name not in options.baselines]:
        names = ", ".join(options.baselines) or "none is given"
        raise UsageError(f"seconds for {unknown[0]!r}, which is not a baseline: {names}")
    systems, notes = [], []
    for name, baseline in options.baselines.items():
        run, run_notes = _open_run(baseline, f"the baseline {name!r}", options.skip_bad)
        systems.append(System(name, "baseline", run, seconds_per_query=options.seconds.get(name)))
        notes += run_notes
    return Assessment(collection, options, measures, qrels, systems, notes)


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


def _open_run(run: object, name: str, skip_bad: bool) -> tuple[Run, list[str]]:
    """A run and the notes on its file."""
    return read_run(run, skip_bad=skip_bad) if isinstance(run, (str, Path)) else (as_run(run, name), [])


def _machine_facts() -> dict[str, object]:
    versions = [f"{package} {version}" for package, version in versions_of(*_PACKAGES).items()]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join((f"dearlite {__version__}", *versions)),
    }
