"""Published scores of named texts (data/golden.toml), and the comparison of a model file's own scores with them.

Scores are those of the runtime, with the file's own prompt and its default instruction. A file of 8 bits may lie
further off than the arithmetic of the source allows: by the error that its quality card states, and no more. A file
whose publisher rounded the weights has no card against the original: models.toml states its distance.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from dearlite.errors import UsageError
from dearlite.models.bundle import Bundle
from dearlite.models.calibration import Calibration, read_activation
from dearlite.models.entries import ModelEntry
from dearlite.models.gguf import GgufFile, is_gguf
from dearlite.models.gguf_kinds import exported_record, scoring_kind
from dearlite.reranker import Reranker
from dearlite.templates.families import FAMILIES

_PLAIN = Calibration(1.0, 0.0)  # the sigmoid of a model whose makers publish no other


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenSet:
    """Published values of a query's documents: raw logits or, with `probability`, from 0 to 1."""

    query: str
    documents: tuple[str, ...]
    values: tuple[float, ...]
    probability: bool
    tolerance: float  # how far another arithmetic than that of `source` may lie
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedScore:
    """A document's published value beside the file's own: raw logits or, with `probability`, from 0 to 1.

    `allowed` is the largest difference at which the file reproduces the value.
    """

    document: str
    published: float
    own: float
    allowed: float
    probability: bool
    source: str

    @property
    def difference(self) -> float:
        """The file's own value minus the published one."""
        return self.own - self.published

    @property
    def agrees(self) -> bool:
        """True if the difference is allowed."""
        return abs(self.difference) <= self.allowed


@dataclass(frozen=True, slots=True)
class StatedError:
    """The error in raw logits that a file states of itself, with the place of the statement.

    `whole`: it is the distance from the published scores themselves, their own tolerance included.
    """

    size: float
    where: str
    whole: bool = False


def golden_names() -> tuple[str, ...]:
    """The names that `golden` of models.toml may have."""
    return tuple(_tables()["scores"])


def golden_sets(name: str) -> tuple[GoldenSet, ...]:
    """The published values called `name`. Raises UsageError for an unknown name."""
    tables = _tables()
    if name not in tables["scores"]:
        raise UsageError(f"no published scores are called {name!r}: it may be {', '.join(tables['scores'])}")
    sets = []
    for record in tables["scores"][name]:
        texts, source = tables["texts"][record["texts"]], tables["sources"][record["source"]]
        probability = record.get("probability", False)
        sets.append(
            GoldenSet(
                query=texts["query"],
                documents=tuple(texts["documents"]),
                values=tuple(record["values"]),
                probability=probability,
                tolerance=source["probability" if probability else "score"],
                source=source["about"],
            )
        )
    return tuple(sets)


def compare(path: Path, entry: ModelEntry, sets: Sequence[GoldenSet]) -> tuple[tuple[ComparedScore, ...], StatedError]:
    """Each document of `sets` with the file's own value, and the error that the file states of itself."""
    error, curve = stated_error(path, entry), _curve(path, entry)
    prompt = _prompt_of(path, entry)
    options: dict[str, Any] = {} if prompt is None else {"prompt": prompt}
    reranker = Reranker.load(path, device="cpu", **options)
    compared = []
    for golden in sets:
        scores = reranker.score([(golden.query, document) for document in golden.documents])
        for document, value, score in zip(golden.documents, golden.values, scores, strict=True):
            own = curve(score) if golden.probability else score
            ends = [curve(score + sign * error.size) if golden.probability else score + error.size for sign in (-1, 1)]
            spread = max(abs(end - own) for end in ends)
            compared.append(
                ComparedScore(
                    document=document,
                    published=value,
                    own=own,
                    allowed=max(golden.tolerance, spread) if error.whole else golden.tolerance + spread,
                    probability=golden.probability,
                    source=golden.source,
                )
            )
    return tuple(compared), error


def stated_error(path: Path, entry: ModelEntry) -> StatedError:
    """The error in raw logits that models.toml or the quality card states; 0 for a file without a statement."""
    if entry.known_difference is not None:
        where = "models.toml, for the publisher's int8 weights, their limit of pairs and int8 activations together"
        return StatedError(entry.known_difference, where, whole=True)
    card = (exported_record(GgufFile(path), "card") or {}) if is_gguf(path) else Bundle(path).card()
    stated = card.get("max_error")
    if isinstance(stated, (int, float)) and not isinstance(stated, bool):
        return StatedError(float(stated), "its quality card")
    return StatedError(0.0, "no statement of the file")


def verdict(name: str, compared: Sequence[ComparedScore], error: StatedError) -> tuple[bool, str]:
    """True if every value is reproduced, and the outcome in one line."""
    worst = max(compared, key=lambda score: abs(score.difference) - score.allowed)
    largest = max(abs(score.difference) for score in compared)
    allowance = f"{error.size:g} by {error.where}" if error.size else error.where
    if worst.agrees and error.whole:
        return True, (
            f"its distance from the published scores {name!r} is the known one: largest difference {largest:.3f}, "
            f"up to {allowance}"
        )
    if worst.agrees:
        return True, (
            f"reproduces the published scores {name!r}: largest difference {largest:.3f} (allowed for the file's "
            f"weights: {allowance})"
        )
    return False, (
        f"does not give the published scores {name!r}: {worst.own:.3f} for {worst.document[:40]!r}, published "
        f"{worst.published:g}, allowed {worst.allowed:.3f} (for the file's weights: {allowance}): the file is not the "
        "published model, or its quantisation is too coarse"
    )


def _curve(path: Path, entry: ModelEntry) -> Calibration:
    """The makers' own map from a raw logit to a probability; a sigmoid where they publish no other."""
    if is_gguf(path):
        file = GgufFile(path)
        family = FAMILIES.get(_prompt_of(path, entry) or "")
        if family is not None and family.scale > 0:
            return Calibration(family.scale, family.bias(entry.hidden))
        record = exported_record(file, "activation")
    else:
        record = Bundle(path).manifest.activation
    return read_activation(record, path.name) or _PLAIN


def _prompt_of(path: Path, entry: ModelEntry) -> str | None:
    """The family that a GGUF without a score of its own is run as, by its entry; None for any other file."""
    plain = is_gguf(path) and scoring_kind(GgufFile(path)) is None
    return entry.prompt if plain and entry.prompt in FAMILIES else None


@lru_cache(maxsize=1)
def _tables() -> dict[str, Any]:
    text = resources.files("dearlite.export").joinpath("data/golden.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
