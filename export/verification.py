"""The check of a model file: the hashes of its parts, and its scores beside those that its makers published."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dearlite.errors import UsageError, need
from dearlite.export.golden import ComparedScore, compare, golden_names, golden_sets, verdict
from dearlite.export.options import Report
from dearlite.models.bundle import Bundle
from dearlite.models.entries import ModelEntry
from dearlite.models.formats import runner_of
from dearlite.models.gguf import GgufFile, is_gguf
from dearlite.models.pair_limit import check_pair_limit
from dearlite.models.registry import find_entry, find_model

if TYPE_CHECKING:
    from dearlite.export.decoders.published_scores import ScoreReading


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """A model file whose parts are whole, compared with published scores where the model has some.

    `scores` are the published values with the file's own, document by document. For the models of DeAR `readings` take
    their place: the file's scores, read in every way in question, its own way first. Both are empty if no scores are
    published. `reproduced` is True if the file's own reading gives the published scores, within what is allowed
    for the file; None if there are none.
    """

    path: Path
    kind: str  # "pointwise", "listwise" or "attention"
    parts: int  # members of a .dear file, tensors of a .gguf
    hashed: bool  # False for a .gguf that records no sha256
    readings: tuple[ScoreReading, ...] = ()
    scores: tuple[ComparedScore, ...] = ()
    reproduced: bool | None = None
    message: str = ""  # the outcome of the comparison in one line


def verify(model: str | Path, *, report: Report | None = None) -> Verification:
    """The outcome for `model`, a name of models.toml or a file, once every part of it matches its hash.

    A `.dear` file that states `pair_limited` is checked for it.

    A file whose entry in models.toml names published scores is compared with them: raw logits, or probabilities where
    its makers publish those. A model of DeAR is scored in every way in question: at the last token or the last position
    of the padded row, with two spaces before a passage without a title or with one. `report` receives one line for each
    step that is done.

    Raises ModelFileError for a part that does not match, or for int8 weights beyond the limit that the file states. A
    file that does not give the published scores raises nothing: `reproduced` is False then.

    Examples:
        >>> from dearlite.export import verify
        >>> outcome = verify("minilm-l12")
        >>> outcome.parts, outcome.reproduced
        (6, True)
        >>> [round(score.difference, 2) for score in outcome.scores]
        [-0.86, -0.29, -0.69, -0.39]

    """
    path = find_model(str(model))
    return _verify_gguf(str(model), path, report) if is_gguf(path) else _verify_bundle(str(model), path, report)


def _verify_gguf(model: str, path: Path, report: Report | None) -> Verification:
    file = GgufFile(path)
    hashed = file.verify()
    if report is not None:
        outcome = "the file matches its sha256" if hashed else "it records no sha256, so its bytes are not checked"
        report(f"{path}: {len(file.tensors)} tensors within the file, and {outcome}")
    entry = find_entry(model)
    kind = runner_of(path)[0].kind if entry is None else entry.kind
    whole = Verification(path=path, kind=kind, parts=len(file.tensors), hashed=hashed)
    return whole if entry is None or not entry.golden else _compared(whole, entry)


def _compared(outcome: Verification, entry: ModelEntry) -> Verification:
    """The outcome with the file's scores beside the published ones. Raises UsageError if none have the entry's name."""
    scores, error = compare(outcome.path, entry, golden_sets(entry.golden))
    reproduced, message = verdict(entry.golden, scores, error)
    return replace(outcome, scores=scores, reproduced=reproduced, message=message)


def _verify_bundle(model: str, path: Path, report: Report | None) -> Verification:
    bundle = Bundle(path)
    bundle.verify()
    limited = check_pair_limit(bundle)
    members, name = len(bundle.manifest.members), bundle.manifest.name
    if report is not None:
        exact = f", and {limited} int8 matrices keep the limit of pairs" if limited else ""
        report(f"{path}: {members} members match their sha256{exact}")
    entry = find_entry(model) or find_entry(name)
    if entry is None or not entry.golden:
        if report is not None:
            report(f"{name}: models.toml names no published scores to compare it with")
        return Verification(path=path, kind=bundle.manifest.kind, parts=members, hashed=True)
    if entry.golden in golden_names():
        return _compared(Verification(path=path, kind="pointwise", parts=members, hashed=True), entry)
    published_scores = need("dearlite.export.decoders.published_scores", extra="export")
    if entry.golden not in published_scores.SCORES:
        known_names = ", ".join((*published_scores.SCORES, *golden_names()))
        raise UsageError(f"no published scores are called {entry.golden!r}: models.toml may name {known_names}")
    readings = tuple(published_scores.readings(bundle, entry.golden))
    reproduced, message = published_scores.verdict(readings, entry.golden)
    return Verification(
        path=path,
        kind="pointwise",
        parts=members,
        hashed=True,
        readings=readings,
        reproduced=reproduced,
        message=message,
    )
