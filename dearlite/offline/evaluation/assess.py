"""Measures a reranked run, its first stage and other runs together, and adds the facts that a report shows."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from dearlite.errors import UsageError
from dearlite.files.trec import Qrels, Run, read_qrels, read_run
from dearlite.machine import versions_of
from dearlite.offline.collection.collection import Collection
from dearlite.offline.evaluation.evaluation import Evaluation, System, compare
from dearlite.offline.evaluation.measures import DEFAULT_MEASURES, parse_measures
from dearlite.offline.run.results import RerankedRun
from dearlite.version import __version__

_PACKAGES = ("onnxruntime", "llama-cpp-python", "tokenizers", "numpy", "ir-measures", "pytrec-eval-terrier")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """The judgements, the other runs and the measures of an evaluation, as `dearlite.evaluate` takes them.

    `published` are rows of measures alone, `title` is the name of the evaluation (default: the collection's).
    """

    qrels: str | Path | Qrels | None = None
    baselines: Mapping[str, str | Path | Run] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    measures: str | Iterable[str] | None = None
    ties: str = "rank"
    command: str = ""
    published: Sequence[System] = ()
    title: str = ""


def check_measures(measures: str | Iterable[str] | None) -> list[str]:
    """The names of `measures`; None gives the default ones. Raises UsageError for an unknown name."""
    return [str(measure) for measure in parse_measures(DEFAULT_MEASURES if measures is None else measures)]


def evaluate(collection: Collection, result: RerankedRun | str | Path | Run, options: EvaluationOptions) -> Evaluation:
    """The measures of `result` (a reranked run, or a run made earlier), of the first stage, and of the baselines."""
    qrels = options.qrels
    if not isinstance(qrels, Mapping):
        path = collection.qrels if collection.qrels is not None else qrels
        if path is None:
            raise UsageError(f"no judgements for {collection.name}: name them with --qrels")
        qrels = read_qrels(path)
    if unknown := [name for name in options.seconds if name not in options.baselines]:
        names = ", ".join(options.baselines) or "none is given"
        raise UsageError(f"seconds for {unknown[0]!r}, which is not a baseline: {names}")
    notes = list(collection.notes)
    systems = [System("first stage", "first stage", collection.run)]
    facts: dict[str, object] = {"collection": collection.name, **collection.sources}
    if isinstance(result, RerankedRun):
        systems.append(_reranked_system(result))
        facts |= dict(result.identity)
        notes += [*result.notes, *_notes_on(result)]
    else:
        run, run_notes = _open_run(result)
        name = "scored" if isinstance(result, Mapping) else Path(result).name
        systems.append(System(name, "reranked", run))
        notes += run_notes
    for name, baseline in options.baselines.items():
        run, run_notes = _open_run(baseline)
        systems.append(System(name, "baseline", run, seconds_per_query=options.seconds.get(name)))
        notes += run_notes
    return compare(
        [*systems, *options.published],
        qrels,
        name=options.title or collection.name,
        measures=check_measures(options.measures),
        ties=options.ties,
        notes=notes,
        command=options.command,
        facts=facts | _machine_facts(),
        queries=collection.queries,
        documents={name: (document.title, document.text) for name, document in collection.documents.items()},
    )


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


def _open_run(run: str | Path | Run) -> tuple[Run, list[str]]:
    """A run and the notes on its file."""
    return (run, []) if isinstance(run, Mapping) else read_run(run)


def _machine_facts() -> dict[str, object]:
    versions = [f"{package} {version}" for package, version in versions_of(*_PACKAGES).items()]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join((f"dearlite {__version__}", *versions)),
    }
