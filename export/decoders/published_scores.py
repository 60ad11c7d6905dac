"""Published scores, and the comparison of a model file with them in every plausible reading.

A reading is a position at which the score is read, and a number of spaces before a passage without a title. Each is run
by the runtime's own engine on the weights of the file; only the graph's pooling is changed. Readings are compared by
the values of the scores, since a wrong reading often keeps their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean

from dearlite.documents import Document
from dearlite.errors import ModelFileError
from dearlite.export.decoders.pooling import at_last_position, padded_to
from dearlite.export.decoders.quantisations import POOLINGS
from dearlite.machine import check_threads
from dearlite.models.bundle import Bundle
from dearlite.models.manifest import Manifest
from dearlite.pointwise.engine import OnnxBackend
from dearlite.pointwise.prompts import PAIR_FORMS
from dearlite.pointwise.tokens import PairEncoder, TokenRow

# Published scores are rounded to bf16, in steps of 1/32 to 1/16, and have its error in each layer; int8 adds its own.
TOLERANCE = 0.25

QUERY = "When did Thomas Edison invent the light bulb?"
DOCUMENTS = (
    "Lightning strike at Seoul National University",
    "Thomas Edison tried to invent a device for car but failed",
    "Coffee is good for diet",
    "KEPCO fixes light problems",
    "Thomas Edison invented the light bulb in 1879",
)
# From the models' cards: no titles, bf16, one batch padded to its longest row. `golden` in models.toml is the key.
SCORES = {
    "8b-ce": (-6.5, -5.6875, -6.375, -6.78125, -2.015625),
    "8b-ranknet": (-7.75, -6.375, -8.125, -7.4375, -2.984375),
    "3b-ce": (-11.125, -10.1875, -12.0625, -11.625, -6.0625),
    "3b-ranknet": (-6.4375, -5.125, -6.96875, -6.3125, -1.3046875),
}


@dataclass(frozen=True, slots=True)
class ScoreReading:
    """A way to read the file, with the scores of DOCUMENTS that it gives."""

    pooling: str
    two_spaces: bool
    own: bool  # True for the reading that dearlite uses with this file
    scores: tuple[float, ...]
    published: tuple[float, ...]

    @property
    def name(self) -> str:
        """A label for tables and messages, as "last-token, two spaces"."""
        return f"{self.pooling}, {'two spaces' if self.two_spaces else 'one space'}"

    @property
    def largest_difference(self) -> float:
        """The largest absolute difference from the published scores."""
        return max(abs(a - b) for a, b in zip(self.scores, self.published, strict=True))

    @property
    def mean_difference(self) -> float:
        """The mean absolute difference from the published scores."""
        return fmean(abs(a - b) for a, b in zip(self.scores, self.published, strict=True))

    @property
    def agreeing_pairs(self) -> int:
        """The number of document pairs in the published order, out of n (n - 1) / 2."""
        both = zip(self.scores, self.published, strict=True)
        return sum((a - b) * (x - y) > 0 for (a, x), (b, y) in combinations(both, 2))


def readings(bundle: Bundle, golden: str) -> list[ScoreReading]:
    """The scores of the file in every reading, its own first. Raises ModelFileError for a file that reads no pairs."""
    manifest, published = bundle.manifest, SCORES[golden]
    if manifest.prompt not in PAIR_FORMS:
        raise ModelFileError(
            f"{bundle.path} reads the prompt {manifest.prompt}, and the published scores {golden!r} are those of "
            "pairs: correct the golden of its entry in models.toml"
        )
    if manifest.pooling not in POOLINGS or not any(build.layout == "shared-prefix" for build in manifest.builds):
        raise ModelFileError(
            f"{bundle.path} has no decoder graph for a CPU, on which scores are compared: export a decoder with --for "
            "cpu or both"
        )
    encoder = PairEncoder(bundle.read("tokenizer.json"), max_tokens=manifest.max_tokens)
    own_form = PAIR_FORMS[manifest.prompt]
    results = []
    for pooling in sorted(POOLINGS, key=lambda name: name != manifest.pooling):
        for two_spaces in (own_form.keep_empty_title, not own_form.keep_empty_title):
            form = replace(own_form, keep_empty_title=two_spaces)
            texts = [form.document(Document(text)) for text in DOCUMENTS]
            rows = list(encoder.pairs(encoder.ids(form.query(QUERY)), texts))
            own = pooling == manifest.pooling and two_spaces == own_form.keep_empty_title
            results.append(ScoreReading(pooling, two_spaces, own, tuple(_scores(bundle, pooling, rows)), published))
    return results


def verdict(results: Sequence[ScoreReading], golden: str) -> tuple[bool, str]:
    """True if the file's own reading gives the published scores, and a line that names the nearest reading."""
    nearest = min(results, key=lambda reading: reading.largest_difference)
    own = next(reading for reading in results if reading.own)
    if nearest.largest_difference > TOLERANCE:
        return False, (
            f"no reading is within {TOLERANCE} of the published scores {golden!r} (nearest: {nearest.name}, largest "
            f"difference {nearest.largest_difference:.2f}): the file is not the published model, or its quantisation "
            "is too coarse"
        )
    difference = f"largest difference {nearest.largest_difference:.2f}"
    line = f"{nearest.name}: {difference}: reproduces the published scores {golden!r}"
    if own.largest_difference > TOLERANCE:
        return False, (
            f"{line}, but this file is read at {own.name} (largest difference {own.largest_difference:.2f}): "
            "correct its entry of models.toml and export it again"
        )
    others = [reading for reading in results if reading is not nearest and reading.largest_difference <= TOLERANCE]
    if others:
        line += f"; so do, within {TOLERANCE}: {', '.join(map(_describe, others))}"
    return True, line


def _describe(reading: ScoreReading) -> str:
    """The reading's name and its largest difference; the file's own reading is marked."""
    own = ", as this file is read" if reading.own else ""
    return f"{reading.name}{own} ({reading.largest_difference:.2f})"


def _scores(bundle: Bundle, pooling: str, rows: list[TokenRow]) -> list[float]:
    """The rows' scores from the runtime's engine, read at `pooling`, with padding up to the longest row."""
    change = _graph_change(bundle.manifest, pooling, max(row.tokens_used for row in rows))
    changed = bundle if change is None else _BundleWithChangedGraphs(bundle, change)
    return list(OnnxBackend(changed, device="cpu", threads=check_threads(None)).score(rows))


def _graph_change(manifest: Manifest, pooling: str, longest: int) -> Callable[[bytes], bytes] | None:
    """The function that makes a graph of the file read its score at `pooling`; None if it does so already."""
    if manifest.pooling == "last-position":
        return lambda graph: padded_to(graph, 1 if pooling == "last-token" else longest)
    if pooling == "last-token":
        return None
    pad_id = manifest.source.get("pad_id", "")
    if not pad_id.isdecimal():
        raise ModelFileError(f"{manifest.name} does not record its padding token (pad_id): export the model again")
    return lambda graph: at_last_position(graph, int(pad_id), longest)


class _BundleWithChangedGraphs(Bundle):
    """A bundle that passes each CPU graph through `change` when it is read."""

    def __init__(self, bundle: Bundle, change: Callable[[bytes], bytes]) -> None:
        super().__init__(bundle.path)
        builds = tuple(build for build in bundle.manifest.builds if build.layout == "shared-prefix")
        self.manifest = replace(bundle.manifest, builds=builds)
        self._change = change

    def read(self, name: str) -> bytes:
        data = super().read(name)
        return self._change(data) if any(build.graph == name for build in self.manifest.builds) else data
