"""The numbers and bars of a ranking: the relevance from 0 to 1 where the hits have one, otherwise the raw score."""

from __future__ import annotations

from dataclasses import dataclass

from dearlite.ranking import Hit, Ranking

_LEAST = 1 / 8  # the bar of the lowest score shown, which is no zero


@dataclass(frozen=True, slots=True)
class Scale:
    """The meaning of a ranking's bars. `low` and `high` are the scores of the least bar and of a full one.

    `name` is "relevance" or "score". Both ends are None where there is nothing to compare: one document, or equal
    scores.
    """

    name: str
    low: float | None = None
    high: float | None = None

    @property
    def relevance(self) -> bool:
        """True if the bars show the relevance."""
        return self.name == "relevance"

    @property
    def note(self) -> str:
        """The scale in words, empty where there are no bars, and for the relevance, whose bars go from 0 to 1."""
        if self.relevance or self.low is None or self.high is None:
            return ""
        return f"bars: from the lowest score shown, {self.low:.3f}, to the highest, {self.high:.3f}"

    def number(self, hit: Hit) -> str:
        """The relevance with two decimals or the score with three; empty for a document that was not read."""
        value = hit.relevance if self.relevance else hit.score
        return "" if value is None else f"{value:.{2 if self.relevance else 3}f}"

    def share(self, hit: Hit) -> float | None:
        """The length of the bar, from 0 to 1; None for no bar."""
        if self.relevance:
            return hit.relevance
        score = hit.score
        if score is None or self.low is None or self.high is None:
            return None
        return _LEAST + (1 - _LEAST) * (score - self.low) / (self.high - self.low)


def scale_of(ranking: Ranking) -> Scale:
    """The scale of the bars of `ranking`."""
    if any(hit.relevance is not None for hit in ranking):
        return Scale("relevance", 0.0, 1.0)
    scores = [hit.score for hit in ranking if hit.score is not None]
    if not scores or min(scores) == max(scores):
        return Scale("score")
    return Scale("score", min(scores), max(scores))


def movement(hit: Hit) -> int:
    """The number of ranks that the document moved up from the caller's order, negative for down."""
    return hit.index + 1 - hit.rank
