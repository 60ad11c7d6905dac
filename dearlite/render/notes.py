"""Remarks under a ranking: an order that is not that of the relevance shown, and ranks that a stage did not read."""

from __future__ import annotations

from itertools import pairwise

from dearlite.ranking import Ranking
from dearlite.render.scale import scale_of

_ORDERS = {"rrf": "the fused ranks", "mean": "the mean scores", "max": "the highest scores"}


def notes_of(ranking: Ranking) -> list[str]:
    """The remarks on the hits of `ranking`, one line each; empty where ranks and numbers explain themselves."""
    return [note for note in (_order(ranking), _unread(ranking)) if note]


def _order(ranking: Ranking) -> str:
    """The reason why the numbers of the hits, all on one `scale_of`, rise somewhere down the ranking."""
    by_relevance = scale_of(ranking).relevance
    numbers = [hit.relevance if by_relevance else hit.score for hit in ranking]
    known = [number for number in numbers if number is not None]
    if all(first >= second for first, second in pairwise(known)):
        return ""
    name = "relevance" if by_relevance else "score"
    if ranking.fusion is not None:
        return f"order: by {_ORDERS[ranking.fusion]} of all queries, not by {name}"
    return f"order: by the ranks of the stages, not by {name}" if len(ranking.stages) > 1 else ""


def _unread(ranking: Ranking) -> str:
    """The ranks that the last stage did not read; empty if it read all, and for a single model."""
    stages = [stage for stage in ranking.stages if not stage.error]
    ranks = [hit.rank for hit in ranking if len(hit.stages) < len(stages)]
    if len(stages) < 2 or not ranks:
        return ""
    model = stages[-1].model
    if len(ranks) == 1:
        return f"rank {ranks[0]} was not read by {model}"
    if ranks[-1] - ranks[0] + 1 == len(ranks):
        return f"ranks {ranks[0]} to {ranks[-1]} were not read by {model}"
    return f"{len(ranks)} of the ranks shown were not read by {model}"
