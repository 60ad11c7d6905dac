"""The models of models.toml for a workload on this machine: predicted time and memory beside published quality."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dearlite.checks import whole_number
from dearlite.deadline import check_budget
from dearlite.errors import UsageError
from dearlite.machine import available_memory_mb
from dearlite.models.entries import ModelEntry
from dearlite.models.registry import load_registry, model_file
from dearlite.recommend.clock import Clock
from dearlite.recommend.prediction import Workload, peak_memory_mb, tokens_of

MEASURE = "mteb"  # the key of `quality` that ranks models: one published table has most of them


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model of models.toml with what this workload takes of it.

    `quality` is the published nDCG@10 of MTEB(eng, v2) retrieval, `published` all published figures by benchmark.
    `seconds` are those of one call of the loaded model, None where they cannot be predicted. `tokens` are read of each
    document. `reasons` say why it does not fit; `get` is the command that gets its file, "" if that is here.
    """

    name: str
    kind: str
    quality: float | None
    published: dict[str, float]
    seconds: float | None
    memory_mb: float
    tokens: int
    licence: str
    commercial: bool
    download_mb: int | None
    get: str
    reasons: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """True if the model fits every limit."""
        return not self.reasons


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The models in the order of recommendation, and the limits that they were held to.

    `models`: those that fit, best published quality first, then the others in the same order. `unranked`: models
    without a published figure of the table, the fastest first. `advice` is a sentence if no model fits, else "".
    """

    documents: int
    tokens: int
    within_s: float
    memory_mb: float
    commercial: bool
    threads: int
    models: tuple[Candidate, ...]
    unranked: tuple[Candidate, ...]
    advice: str

    @property
    def best(self) -> Candidate | None:
        """The model of the best published quality that fits; None if none does."""
        return next((model for model in self.models if model.fits), None)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of `recommend`, checked."""

    within_s: float
    memory_mb: float
    commercial: bool


def recommend(
    *,
    documents: int = 100,
    tokens: int = 200,
    within_s: float = 2.0,
    memory_mb: float | None = None,
    commercial: bool = False,
    threads: int | None = None,
    measure: bool = False,
    report: Callable[[str], None] | None = None,
) -> Recommendation:
    """The models of models.toml for `documents` documents of `tokens` tokens, the best one that fits first.

    A model fits if one call of the loaded model is predicted to take at most `within_s` seconds, and its process at
    most `memory_mb` MB of 10^6 bytes (None: the memory that is free now); with `commercial`, if its licence allows
    commercial use. Predictions are for int8 or the published GGUF on this machine's CPU with `threads` threads, a query
    of 16 tokens, and no other work. The rates they rest on are measured in the first call (about a second for ONNX
    Runtime and for each type of GGUF) and kept in DEARLITE_HOME; `measure` measures them again. `report` is
    called with a line before a measurement.

    Raises UsageError for a wrong argument. A library that is not installed is a reason why its models do not fit.

        >>> recommend(documents=100, tokens=200, within_s=2.0).best  # doctest: +SKIP
    """
    work = Workload(whole_number("documents", documents), whole_number("tokens", tokens))
    if memory_mb is not None and not (isinstance(memory_mb, (int, float)) and 0 < memory_mb < math.inf):
        raise UsageError(f"memory_mb is {memory_mb!r}: it must be a number of megabytes above 0")
    limits = Limits(
        check_budget(within_s), available_memory_mb() if memory_mb is None else float(memory_mb), bool(commercial)
    )
    clock = Clock(threads, again=measure, report=report)
    candidates = [_candidate(entry, work, limits, clock) for entry in load_registry().values()]
    ranked = [c for c in candidates if c.quality is not None]
    unranked = sorted((c for c in candidates if c.quality is None), key=lambda c: (not c.fits, _seconds(c), c.name))
    ranked.sort(key=lambda c: (not c.fits, -(c.quality or 0.0), _seconds(c), c.name))
    return Recommendation(
        documents=work.documents,
        tokens=work.tokens,
        within_s=limits.within_s,
        memory_mb=limits.memory_mb,
        commercial=limits.commercial,
        threads=clock.threads,
        models=tuple(ranked),
        unranked=tuple(unranked),
        advice=_advice(ranked, limits),
    )


def _candidate(entry: ModelEntry, work: Workload, limits: Limits, clock: Clock) -> Candidate:
    seconds = clock.seconds(entry, work)
    memory = peak_memory_mb(entry, work, clock.threads)
    reasons = [seconds] if isinstance(seconds, str) else []
    if isinstance(seconds, float) and seconds > limits.within_s:
        reasons.append("too slow")
    if memory > limits.memory_mb:
        reasons.append("too large")
    if limits.commercial and not entry.commercial:
        reasons.append("non-commercial")
    accept = "" if entry.commercial else " --accept-licence"
    return Candidate(
        name=entry.name,
        kind=entry.kind,
        quality=entry.quality.get(MEASURE),
        published=dict(entry.quality),
        seconds=seconds if isinstance(seconds, float) else None,
        memory_mb=memory,
        tokens=tokens_of(entry, work).read,
        licence=entry.licence,
        commercial=entry.commercial,
        download_mb=entry.download_mb,
        get="" if os.path.isfile(model_file(entry)) else f"dearlite models get {entry.name}{accept}",
        reasons=tuple(reasons),
    )


def _seconds(candidate: Candidate) -> float:
    return math.inf if candidate.seconds is None else candidate.seconds


def _advice(ranked: Sequence[Candidate], limits: Limits) -> str:
    """A sentence on the model that misses the limits by the least, and what lets it fit; "" if one fits them."""
    if any(model.fits for model in ranked):
        return ""
    possible = [m for m in ranked if m.seconds is not None and not (limits.commercial and not m.commercial)]
    if not possible:
        return "no model fits, and none can be predicted: `dearlite doctor` says what is not installed"

    def excess(model: Candidate) -> float:
        return max(_seconds(model) / limits.within_s, model.memory_mb / limits.memory_mb)

    nearest = min(possible, key=excess)
    needs = []
    if _seconds(nearest) > limits.within_s:
        needs.append(f"--within {seconds_text(_seconds(nearest), up=True)}, or fewer --docs or --tokens,")
    if nearest.memory_mb > limits.memory_mb:
        needs.append(f"--memory {math.ceil(nearest.memory_mb)}MB")
    return f"no model fits; {nearest.name} is the nearest: give {' and '.join(needs).rstrip(',')}"


def seconds_text(seconds: float, *, up: bool = False) -> str:
    """A duration in two digits, rounded up with `up`. Examples: "0.42s", "3.1s", "51s", "4.3m", "2.1h"."""
    value, unit = (seconds, "s") if seconds < 99 else (seconds / 60, "m") if seconds < 5940 else (seconds / 3600, "h")
    digits = 2 if value < 1 else 1 if value < 10 else 0
    if up:
        value = math.ceil(value * 10**digits) / 10**digits
    return f"{value:.{digits}f}{unit}"
