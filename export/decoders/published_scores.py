"""Published scores, and which way of reading a model file reproduces them.

A reading is where the score is read, and how many spaces stand before a passage without a title. Each runs in the
runtime's own engine on the file's own weights: only the graph's reading is changed. Differences count by value, since
a wrong reading often keeps the order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean

from dearlite.documents import Document
from dearlite.errors import ModelFileError, UsageError
from dearlite.export.decoders.pooling import POOLINGS, at_last_position, padded_to
from dearlite.machine import check_threads
from dearlite.models.bundle import Bundle
from dearlite.models.manifest import Manifest
from dearlite.pointwise.engine import OnnxBackend
from dearlite.pointwise.prompts import PAIR_FORMS
from dearlite.pointwise.tokens import PairEncoder, TokenRow

# The published scores stand on bf16's grid of 1/32 to 1/16 and carry its error in the layers; int8 adds its own.
TOLERANCE = 0.25

QUERY = "When did Thomas Edison invent the light bulb?"
DOCUMENTS = (
    "Lightning strike at Seoul National University",
    "Thomas Edison tried to invent a device for car but failed",
    "Coffee is good for diet",
    "KEPCO fixes light problems",
    "Thomas Edison invented the light bulb in 1879",
)
# From the models' cards: no titles, bf16, one batch padded to its longest. models.toml names the entry.
SCORES = {
    "8b-ce": (-6.5, -5.6875, -6.375, -6.78125, -2.015625),
    "8b-ranknet": (-7.75, -6.375, -8.125, -7.4375, -2.984375),
    "3b-ce": (-11.125, -10.1875, -12.0625, -11.625, -6.0625),
    "3b-ranknet": (-6.4375, -5.125, -6.96875, -6.3125, -1.3046875),
}


@dataclass(frozen=True, slots=True)
class ScoreReading:
    """One way to read the file, and the scores of DOCUMENTS that it gives."""

    pooling: str
    two_spaces: bool
    own: bool  # whether it is how dearlite reads this file
    scores: tuple[float, ...]
    published: tuple[float, ...]

    @property
    def name(self) -> str:
        """For tables and messages: "last-token, two spaces"."""
        return f"{self.pooling}, {'two spaces' if self.two_spaces else 'one space'}"

    @property
    def largest(self) -> float:
        """The largest difference from the published scores."""
        return max(abs(a - b) for a, b in zip(self.scores, self.published, strict=True))

    @property
    def mean(self) -> float:
        """The mean difference from the published scores."""
        return fmean(abs(a - b) for a, b in zip(self.scores, self.published, strict=True))

    @property
    def agreeing(self) -> int:
        """How many pairs of documents stand in the published order, of all n (n - 1) / 2."""
        both = zip(self.scores, self.published, strict=True)
        return sum((a - b) * (x - y) > 0 for (a, x), (b, y) in combinations(both, 2))


def readings(bundle: Bundle, golden: str) -> list[ScoreReading]:
    """The file read in every way, its own first. Raises UsageError where SCORES has no `golden`."""
    if golden not in SCORES:
        raise UsageError(f"no published scores are called {golden!r}: models.toml may name {', '.join(SCORES)}")
    manifest, published = bundle.manifest, SCORES[golden]
    if manifest.pooling not in POOLINGS or not any(build.layout == "shared-prefix" for build in manifest.builds):
        raise ModelFileError(f"{bundle.path} has no decoder's graph for a CPU, where scores are checked: export one")
    encoder = PairEncoder(bundle.read("tokenizer.json"), max_tokens=manifest.max_tokens)
    own = PAIR_FORMS[manifest.prompt]
    found = []
    for pooling in sorted(POOLINGS, key=lambda name: name != manifest.pooling):
        for two_spaces in (own.keep_empty_title, not own.keep_empty_title):
            form = replace(own, keep_empty_title=two_spaces)
            texts = [form.document(Document(text)) for text in DOCUMENTS]
            rows = list(encoder.pairs(encoder.ids(form.query(QUERY)), texts))
            own_reading = pooling == manifest.pooling and two_spaces == own.keep_empty_title
            scores = tuple(_scores(bundle, pooling, rows))
            found.append(ScoreReading(pooling, two_spaces, own_reading, scores, published))
    return found


def verdict(found: Sequence[ScoreReading], golden: str) -> tuple[bool, str]:
    """Whether the file, as dearlite reads it, gives the published scores; and one line that says which reading does."""
    nearest = min(found, key=lambda reading: reading.largest)
    own = next(reading for reading in found if reading.own)
    if nearest.largest > TOLERANCE:
        return False, (
            f"no reading is within {TOLERANCE} of the published scores {golden!r} (nearest: {nearest.name}, largest "
            f"difference {nearest.largest:.2f}): the file is not the published model, or was quantised too coarsely"
        )
    line = f"{nearest.name}: largest difference {nearest.largest:.2f}: reproduces the published scores {golden!r}"
    if own.largest > TOLERANCE:
        return False, (
            f"{line}, but this file is read at {own.name} (largest difference {own.largest:.2f}): "
            "say so in its entry of models.toml and export it again"
        )
    near = [reading for reading in found if reading is not nearest and reading.largest <= TOLERANCE]
    if near:
        names = ", ".join(f"{r.name}{', as this file is read' * r.own} ({r.largest:.2f})" for r in near)
        line += f"; so do, within {TOLERANCE}: {names}"
    return True, line


def _scores(bundle: Bundle, pooling: str, rows: list[TokenRow]) -> list[float]:
    """The rows' scores in the runtime's engine, read as `pooling` says, padded to the longest of them."""
    change = _change(bundle.manifest, pooling, max(row.tokens_used for row in rows))
    read_so = bundle if change is None else _Changed(bundle, change)
    return list(OnnxBackend(read_so, device="cpu", threads=check_threads(None)).score(rows))


def _change(manifest: Manifest, pooling: str, longest: int) -> Callable[[bytes], bytes] | None:
    """What is done to the file's graphs so that they read at `pooling`; None where they do as they are."""
    if manifest.pooling == "last-position":
        return lambda graph: padded_to(graph, 1 if pooling == "last-token" else longest)
    if pooling == "last-token":
        return None
    pad_id = manifest.source.get("pad_id", "")
    if not pad_id.isdecimal():
        raise ModelFileError(f"{manifest.name} does not say which token it is padded with: export the model again")
    return lambda graph: at_last_position(graph, int(pad_id), longest)


class _Changed(Bundle):
    """A bundle whose graphs are changed as they are read."""

    def __init__(self, bundle: Bundle, change: Callable[[bytes], bytes]) -> None:
        super().__init__(bundle.path)
        builds = tuple(build for build in bundle.manifest.builds if build.layout == "shared-prefix")
        self.manifest = replace(bundle.manifest, builds=builds)
        self._change = change

    def read(self, name: str) -> bytes:
        data = super().read(name)
        return self._change(data) if any(build.graph == name for build in self.manifest.builds) else data
