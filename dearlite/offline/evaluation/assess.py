"""What `evaluate` does: the reranked run, the first stage and other runs are measured together, and facts are added."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from dearlite.errors import UsageError
from dearlite.files.trec import Qrels, Run, read_qrels, read_run
from dearlite.offline.collection.collection import Collection
from dearlite.offline.evaluation.evaluation import Evaluation, System, compare
from dearlite.offline.evaluation.measures import DEFAULT_MEASURES, parse_measures
from dearlite.offline.run.results import RerankedRun
from dearlite.version import __version__

_PACKAGES = ("onnxruntime", "llama-cpp-python", "tokenizers", "numpy", "ir-measures", "pytrec-eval-terrier")


def check_measures(measures: str | Iterable[str] | None) -> list[str]:
    """The names of `measures`, the usual ones where it is None. Raises UsageError for one that is none."""
    return [str(measure) for measure in parse_measures(DEFAULT_MEASURES if measures is None else measures)]


def evaluate(
    collection: Collection,
    reranked: RerankedRun | None,
    scored: str | Path | Run | None,
    qrels: str | Path | Qrels | None,
    baselines: Mapping[str, str | Path | Run],
    seconds: Mapping[str, float],
    measures: str | Iterable[str] | None,
    command: str,
    ties: str = "rank",
    published: Sequence[System] = (),
    title: str | None = None,
) -> Evaluation:
    """The measures of the reranked or `scored` run, of the first stage, and of `baselines`."""
    if not isinstance(qrels, Mapping):
        path = collection.qrels if collection.qrels is not None else qrels
        if path is None:
            raise UsageError(f"no judgements for {collection.name}: name them with --qrels")
        qrels = read_qrels(path)
    if strangers := [name for name in seconds if name not in baselines]:
        raise UsageError(
            f"seconds for {strangers[0]!r}, which is no baseline: {', '.join(baselines) or 'none is given'}"
        )
    notes = list(collection.notes)
    systems = [System("first stage", "first stage", collection.run)]
    facts: dict[str, object] = {
        "collection": collection.name,
        **{f"{part}": name for part, name in collection.sources.items()},
    }
    if reranked is not None:
        systems.append(_system(reranked))
        facts |= dict(reranked.identity)
        notes += [*reranked.notes, *_about(reranked)]
    else:
        assert scored is not None
        run, odd = _run(scored)
        name = "scored" if isinstance(scored, Mapping) else Path(scored).name
        systems.append(System(name, "reranked", run))
        notes += odd
    for name, baseline in baselines.items():
        run, odd = _run(baseline)
        systems.append(System(name, "baseline", run, seconds_per_query=seconds.get(name)))
        notes += odd
    return compare(
        [*systems, *published],
        qrels,
        name=title or collection.name,
        measures=check_measures(measures),
        ties=ties,
        notes=notes,
        command=command,
        facts=facts | _machine(),
        queries=collection.queries,
        documents={name: (document.title, document.text) for name, document in collection.documents.items()},
    )


def _system(reranked: RerankedRun) -> System:
    scored = reranked.seconds > 0
    return System(
        reranked.model,
        "reranked",
        reranked.run,
        seconds_per_query=reranked.seconds / len(reranked.results) if scored else None,
        tokens_per_second=reranked.tokens / reranked.seconds if scored else None,
        facts=dict(reranked.identity),
    )


def _about(reranked: RerankedRun) -> list[str]:
    notes = []
    if reranked.resumed:
        notes.append(f"{reranked.resumed} of {reranked.collection.pairs} pairs were in the journal already")
    if reranked.cached:
        notes.append(f"{reranked.cached} pairs came from the cache: the time is of the others alone")
    if reranked.truncated:
        notes.append(f"{reranked.truncated} of {reranked.collection.pairs} pairs did not fit the model and were cut")
    return notes


def _run(given: str | Path | Run) -> tuple[Run, list[str]]:
    return (given, []) if isinstance(given, Mapping) else read_run(given)


def _machine() -> dict[str, object]:
    versions = []
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join((f"dearlite {__version__}", *versions)),
    }
