"""Evaluation of several runs over the same judgements, with a query-by-query comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dearlite.display import shown_by
from dearlite.errors import InvalidInput, UsageError, counted, need
from dearlite.files.trec import Qrels, Run
from dearlite.offline.evaluation.comparisons import (
    Comparison,
    Interval,
    Statistics,
    compare_runs,
    differences,
    intervals_of_means,
)
from dearlite.offline.evaluation.measures import DEFAULT_MEASURES, aggregate, measure_run

MAIN_MEASURE = "nDCG@10"


@dataclass(frozen=True, slots=True)
class System:
    """One row of the table: a run, or published values of measures (`published`, 0 to 1) with `run` None."""

    name: str
    role: str
    run: Run | None
    seconds_per_query: float | None = None
    tokens_per_second: float | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, repr=False)
class Evaluation:
    """Measures of several systems; printed, a table of them.

    `values[system][measure]` are means of `per_query[system][measure][query id]`, or sums for measures that count
    (NumRet, NumRel, NumQ). `comparisons` compare the system `subject` with each other run, or each two runs
    (`statistics.all_pairs`). `intervals[system][measure]` are the confidence intervals of the means, empty unless
    `statistics` asks for them. `facts` are the settings, hashes and versions needed to repeat the evaluation.
    """

    name: str
    systems: tuple[System, ...]
    subject: str
    measures: tuple[str, ...]
    values: Mapping[str, Mapping[str, float]]
    per_query: Mapping[str, Mapping[str, Mapping[str, float]]]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    command: str
    facts: Mapping[str, object]
    qrels: Qrels
    queries: Mapping[str, str]
    documents: Mapping[str, tuple[str, str]]
    statistics: Statistics = field(default_factory=Statistics)
    intervals: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)

    @property
    def main_measure(self) -> str:
        """nDCG@10, or the first measure if nDCG@10 is not among them."""
        return MAIN_MEASURE if MAIN_MEASURE in self.measures else self.measures[0]

    def system(self, name: str) -> System:
        """The system called `name`."""
        return next(system for system in self.systems if system.name == name)

    def comparison(self, baseline: str, measure: str) -> Comparison | None:
        """The comparison of the subject with `baseline` in `measure`; None if there is none."""
        key = (self.subject, baseline, measure)
        matching = (entry for entry in self.comparisons if (entry.subject, entry.baseline, entry.measure) == key)
        return next(matching, None)

    def to_dict(self) -> dict[str, Any]:
        """Everything except the texts, in JSON types."""
        return {
            "name": self.name,
            "subject": self.subject,
            "measures": list(self.measures),
            "queries": len(self.qrels),
            "systems": [
                {
                    "name": system.name,
                    "role": system.role,
                    "values": dict(self.values[system.name]),
                    "intervals": {name: list(ends) for name, ends in self.intervals.get(system.name, {}).items()},
                    "seconds_per_query": system.seconds_per_query,
                    "tokens_per_second": system.tokens_per_second,
                    "facts": dict(system.facts),
                    "per_query": {
                        measure: dict(values) for measure, values in self.per_query.get(system.name, {}).items()
                    },
                }
                for system in self.systems
            ],
            "comparisons": [
                {name: getattr(comparison, name) for name in Comparison.__dataclass_fields__}
                for comparison in self.comparisons
            ],
            "deltas": {
                baseline: {measure: self.deltas(baseline, measure) for measure in self.measures}
                for baseline in self.per_query
                if baseline != self.subject
            },
            "test": self.statistics.test,
            "confidence": self.statistics.confidence,
            "seed": self.statistics.seed,
            "notes": list(self.notes),
            "command": self.command,
            "facts": {name: str(value) for name, value in self.facts.items()},
        }

    def deltas(self, baseline: str, measure: str) -> dict[str, float]:
        """Query id -> (value of the subject) - (value of `baseline`)."""
        return differences(self.per_query, self.subject, baseline, measure)

    def to_pandas(self) -> Any:
        """A DataFrame with one row per query, system and measure. Raises MissingExtra without pandas."""
        rows = [
            {"query_id": query_id, "system": system, "measure": measure, "value": value}
            for system, measures in self.per_query.items()
            for measure, values in measures.items()
            for query_id, value in values.items()
        ]
        return need("pandas", extra="pandas").DataFrame(rows)

    def __repr__(self) -> str:
        """The subject and its main measure, short: `print` shows the table."""
        value = self.values[self.subject][self.main_measure]
        names = {system.name: _shown(system.name) for system in self.systems}
        others = ", ".join(name for own, name in names.items() if own != self.subject) or "no other run"
        queries = counted(len(self.qrels), "query")
        return f"<Evaluation of {names[self.subject]} over {queries}: {self.main_measure} {value:.4f}; beside {others}>"

    __str__ = shown_by("dearlite.render.evaluation", "evaluation_text")
    __rich__ = shown_by("dearlite.render.evaluation", "evaluation_tables")
    _repr_html_ = shown_by("dearlite.render.evaluation", "evaluation_html")


def _shown(name: str) -> str:
    """`name`, or its repr if a terminal would obey or hide a part of it."""
    return name if name.isprintable() else repr(name)


def compare(
    systems: Sequence[System],
    qrels: Qrels,
    *,
    name: str,
    measures: Sequence[str] = DEFAULT_MEASURES,
    subject: str | None = None,
    ties: str = "rank",
    notes: Sequence[str] = (),
    command: str = "",
    facts: Mapping[str, object] | None = None,
    queries: Mapping[str, str] | None = None,
    documents: Mapping[str, tuple[str, str]] | None = None,
    statistics: Statistics | None = None,
) -> Evaluation:
    """The measures of `systems` over `qrels`, and the comparison of `subject` with each other run.

    `subject` is the name of a system, by default the reranked one, or the last run. `ties` is as in `measure_run`.
    Raises UsageError if two systems have the same name, and for a subject that is no run.
    """
    names = [system.name for system in systems]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"two systems are called {repeated[0]!r}: give them different names")
    if not qrels:
        raise InvalidInput("there are no judgements: nothing can be measured")
    runs = {system.name: system.run for system in systems if system.run is not None}
    if subject is None:
        subject = next((system.name for system in systems if system.role == "reranked"), [*runs][-1])
    if subject not in runs:
        raise UsageError(f"the subject {subject!r} is none of the runs: {', '.join(runs)}")
    per_query = {system: measure_run(run, qrels, measures, ties=ties) for system, run in runs.items()}
    values = {
        system.name: {measure: aggregate(measure, of_queries) for measure, of_queries in per_query[system.name].items()}
        if system.name in per_query
        else dict(system.published)
        for system in systems
    }
    measured = tuple(per_query[subject])
    chosen = statistics or Statistics()
    return Evaluation(
        name=name,
        systems=tuple(systems),
        subject=subject,
        measures=measured,
        values=values,
        per_query=per_query,
        comparisons=compare_runs(per_query, subject, measured, chosen),
        notes=(*notes, *_notes_on(runs, qrels, ties)),
        command=command,
        facts=facts or {},
        qrels=qrels,
        queries=queries or {},
        documents=documents or {},
        statistics=chosen,
        intervals=intervals_of_means(per_query, measured, chosen),
    )


def _notes_on(runs: Mapping[str, Run], qrels: Qrels, ties: str) -> list[str]:
    """Notes on queries without documents or judgements, on equal scores, and on negative grades."""
    runs_of: dict[str, list[str]] = {}  # note -> names of the runs that it applies to
    for name, run in runs.items():
        if empty := [query_id for query_id in qrels if not run.get(query_id)]:
            note = f"{len(empty)} of {len(qrels)} judged queries have no documents ({_few(empty)}): they count as zero"
            runs_of.setdefault(note, []).append(name)
        if unjudged := [query_id for query_id in run if query_id not in qrels]:
            note = f"{counted(len(unjudged), 'query has', 'queries have')} no judgements ({_few(unjudged)}): left out"
            runs_of.setdefault(note, []).append(name)
        equal = sum(len(scores) - len(set(scores.values())) for query_id, scores in run.items() if query_id in qrels)
        if equal and ties == "rank":
            note = (
                f"{counted(equal, 'document shares', 'documents share')} a score with another: ordered by rank "
                "(trec_eval orders by id: --ties)"
            )
            runs_of.setdefault(note, []).append(name)
    notes = [f"{', '.join(names) if len(names) < len(runs) else 'all runs'}: {note}" for note, names in runs_of.items()]
    for name, run in runs.items():
        note = _unlike_ids(run, qrels)
        if note:
            notes.append(f"{name}: {note}")
    negative = sum(grade < 0 for grades in qrels.values() for grade in grades.values())
    return (
        [*notes, f"{counted(negative, 'grade is', 'grades are')} negative: not relevant, and not judged (trec_eval)"]
        if negative
        else notes
    )


def _unlike_ids(run: Run, qrels: Qrels) -> str:
    """A note if the run has queries with judgements, and none of its documents has any; otherwise empty."""
    judged = [query_id for query_id in qrels if run.get(query_id) and qrels[query_id]]
    if not judged or any(not qrels[query_id].keys().isdisjoint(run[query_id]) for query_id in judged):
        return ""
    theirs, ours = next(iter(qrels[judged[0]])), next(iter(run[judged[0]]))
    return (
        f"none of its documents is judged (it has {ours!r}, the judgements {theirs!r}): are the ids of one collection?"
    )


def _few(ids: Sequence[str]) -> str:
    return ", ".join(map(repr, ids[:3])) + (", …" if len(ids) > 3 else "")
