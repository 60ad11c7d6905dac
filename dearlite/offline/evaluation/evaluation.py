"""Several runs over the same judgements, measured and compared query by query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dearlite.display import shown_by
from dearlite.errors import InvalidInput, UsageError, need
from dearlite.files.trec import Qrels, Run
from dearlite.offline.evaluation.measures import DEFAULT_MEASURES, mean, measure_run
from dearlite.offline.evaluation.significance import holm, randomisation_test

MAIN_MEASURE = "nDCG@10"


@dataclass(frozen=True, slots=True)
class System:
    """One row of the table: a run, or a `published` row of measures alone (0 to 1) with `run` None."""

    name: str
    role: str
    run: Run | None
    seconds_per_query: float | None = None
    tokens_per_second: float | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The subject against one other run in one measure: mean difference, queries won, tied and lost, p values."""

    baseline: str
    measure: str
    delta: float
    wins: int
    ties: int
    losses: int
    p: float
    p_holm: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured. `values[system][measure]` are means, `per_query[system][measure][query id]` what they are of.

    `subject` is the system that `comparisons` are about; `facts` are what a reader needs to repeat it.
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

    @property
    def main_measure(self) -> str:
        """nDCG@10, or what was asked for first."""
        return MAIN_MEASURE if MAIN_MEASURE in self.measures else self.measures[0]

    def system(self, name: str) -> System:
        """The system of that name."""
        return next(system for system in self.systems if system.name == name)

    def comparison(self, baseline: str, measure: str) -> Comparison | None:
        """The subject against `baseline` in `measure`, None where it was not compared."""
        found = (one for one in self.comparisons if (one.baseline, one.measure) == (baseline, measure))
        return next(found, None)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the texts, in JSON's own types."""
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
                    "seconds_per_query": system.seconds_per_query,
                    "tokens_per_second": system.tokens_per_second,
                    "facts": dict(system.facts),
                    "per_query": {m: dict(found) for m, found in self.per_query.get(system.name, {}).items()},
                }
                for system in self.systems
            ],
            "comparisons": [
                {name: getattr(one, name) for name in Comparison.__dataclass_fields__} for one in self.comparisons
            ],
            "deltas": {
                baseline: {measure: self.deltas(baseline, measure) for measure in self.measures}
                for baseline in dict.fromkeys(one.baseline for one in self.comparisons)
            },
            "notes": list(self.notes),
            "command": self.command,
            "facts": {name: str(value) for name, value in self.facts.items()},
        }

    def deltas(self, baseline: str, measure: str) -> dict[str, float]:
        """Query id -> the subject's value less that of `baseline`."""
        ours, theirs = self.per_query[self.subject][measure], self.per_query[baseline][measure]
        return {query_id: ours[query_id] - theirs[query_id] for query_id in ours}

    def to_pandas(self) -> Any:
        """A DataFrame with a row for each query, system and measure. Raises MissingExtra without pandas."""
        rows = [
            {"query_id": query_id, "system": system, "measure": measure, "value": value}
            for system, measures in self.per_query.items()
            for measure, found in measures.items()
            for query_id, value in found.items()
        ]
        return need("pandas", extra="pandas").DataFrame(rows)

    __rich__ = shown_by("dearlite.render.evaluation", "evaluation_table")
    _repr_html_ = shown_by("dearlite.render.evaluation", "evaluation_html")


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
) -> Evaluation:
    """`systems` measured over `qrels`, and `subject` (the reranked one without it) compared with each other run.

    `ties` is as in `measure_run`. Holm's correction is over the other runs, within a measure. Raises UsageError for two
    systems of one name.
    """
    names = [system.name for system in systems]
    if twice := [one for one in names if names.count(one) > 1]:
        raise UsageError(f"two systems are called {twice[0]!r}: give them names of their own")
    if not qrels:
        raise InvalidInput("there are no judgements: nothing can be measured")
    runs = {system.name: system.run for system in systems if system.run is not None}
    if subject is None:
        subject = next((one.name for one in systems if one.role == "reranked"), [*runs][-1])
    per_query = {one: measure_run(run, qrels, measures, ties=ties) for one, run in runs.items()}
    values = {
        system.name: {measure: mean(found) for measure, found in per_query[system.name].items()}
        if system.name in per_query
        else dict(system.published)
        for system in systems
    }
    measured = tuple(per_query[subject])
    comparisons = []
    for measure in measured:
        found = [_compare(per_query, subject, one, measure) for one in runs if one != subject]
        for one, p_holm in zip(found, holm([one.p for one in found]), strict=True):
            comparisons.append(replace(one, p_holm=p_holm))
    return Evaluation(
        name=name,
        systems=tuple(systems),
        subject=subject,
        measures=measured,
        values=values,
        per_query=per_query,
        comparisons=tuple(comparisons),
        notes=(*notes, *_said(runs, qrels, ties)),
        command=command,
        facts=facts or {},
        qrels=qrels,
        queries=queries or {},
        documents=documents or {},
    )


def _compare(
    per_query: Mapping[str, Mapping[str, Mapping[str, float]]], subject: str, baseline: str, measure: str
) -> Comparison:
    """One comparison, `p_holm` not adjusted yet. Differences below 1e-9 are ties: rounding, no quality."""
    ours, theirs = per_query[subject][measure], per_query[baseline][measure]
    deltas = [ours[one] - theirs[one] for one in ours]
    deltas = [0.0 if abs(delta) < 1e-9 else delta for delta in deltas]
    wins, losses = sum(delta > 0 for delta in deltas), sum(delta < 0 for delta in deltas)
    p = randomisation_test(deltas)
    delta = sum(deltas) / len(deltas)
    return Comparison(baseline, measure, delta, wins, len(deltas) - wins - losses, losses, p, p)


def _said(runs: Mapping[str, Run], qrels: Qrels, ties: str) -> list[str]:
    """What was counted in a way that a reader should know."""
    said: dict[str, list[str]] = {}  # a line -> the runs that it is true of
    for name, run in runs.items():
        if lost := [one for one in qrels if not run.get(one)]:
            line = f"{len(lost)} of {len(qrels)} judged queries have no documents ({_few(lost)}): they count as zero"
            said.setdefault(line, []).append(name)
        if strange := [one for one in run if one not in qrels]:
            line = f"{len(strange)} queries have no judgements ({_few(strange)}): they are left out"
            said.setdefault(line, []).append(name)
        equal = sum(len(found) - len(set(found.values())) for query_id, found in run.items() if query_id in qrels)
        if equal and ties == "rank":
            line = f"{equal} documents share a score with another: they stand by rank (trec_eval goes by id: --ties)"
            said.setdefault(line, []).append(name)
    notes = [f"{', '.join(names) if len(names) < len(runs) else 'all runs'}: {line}" for line, names in said.items()]
    negative = sum(grade < 0 for grades in qrels.values() for grade in grades.values())
    return [*notes, f"{negative} grades are below zero: not relevant"] if negative else notes


def _few(ids: Sequence[str]) -> str:
    return ", ".join(map(repr, ids[:3])) + (", …" if len(ids) > 3 else "")
