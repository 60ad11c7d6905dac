"""The check of a model file: the hashes of its parts, and its scores beside those that its makers published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dearlite.errors import need
from dearlite.export.options import Report
from dearlite.models.bundle import Bundle
from dearlite.models.formats import runner_of
from dearlite.models.gguf import GgufFile, is_gguf
from dearlite.models.registry import find_model, load_registry

if TYPE_CHECKING:
    from dearlite.export.decoders.published_scores import ScoreReading


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """A model file whose parts are whole, compared with published scores where the model has some.

    `readings` are the file's scores, read in every way in question, the file's own way first; empty if no scores are
    published. `reproduced` is True if the file's own reading gives the published scores, None if there are none.
    """

    path: Path
    kind: str  # "pointwise" or "listwise"
    parts: int  # members of a .dear file, tensors of a .gguf
    hashed: bool  # False for a .gguf that records no sha256
    readings: tuple[ScoreReading, ...] = ()
    reproduced: bool | None = None
    message: str = ""  # the outcome of the comparison in one line


def verify(model: str | Path, *, report: Report | None = None) -> Verification:
    """The outcome for `model`, a name of models.toml or a file, once every part of it matches its hash.

    A `.dear` file whose entry in models.toml names published scores is scored in every way in question: at the last
    token or the last position of the padded row, with two spaces before a passage without a title or with one.
    `report` receives one line for each step that is done.

    Raises ModelFileError for a part that does not match. A file that does not give the published scores raises nothing:
    `reproduced` is False then.

    Examples:
        >>> from dearlite.export import verify
        >>> outcome = verify("minilm-l12")
        >>> outcome.parts, outcome.reproduced
        (7, None)

    """
    path = find_model(str(model))
    return _verify_gguf(path, report) if is_gguf(path) else _verify_bundle(str(model), path, report)


def _verify_gguf(path: Path, report: Report | None) -> Verification:
    file = GgufFile(path)
    hashed = file.verify()
    if report is not None:
        outcome = "the file matches its sha256" if hashed else "it records no sha256, so its bytes are not checked"
        report(f"{path}: {len(file.tensors)} tensors within the file, and {outcome}")
    return Verification(path=path, kind=runner_of(path)[0].kind, parts=len(file.tensors), hashed=hashed)


def _verify_bundle(model: str, path: Path, report: Report | None) -> Verification:
    bundle = Bundle(path)
    bundle.verify()
    members, name = len(bundle.manifest.members), bundle.manifest.name
    if report is not None:
        report(f"{path}: {members} members match their sha256")
    known = load_registry()
    entry = known.get(model) or known.get(name)
    if entry is None or not entry.golden:
        if report is not None:
            report(f"{name}: models.toml names no published scores to compare it with")
        return Verification(path=path, kind="pointwise", parts=members, hashed=True)
    published_scores = need("dearlite.export.decoders.published_scores", extra="export")
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
