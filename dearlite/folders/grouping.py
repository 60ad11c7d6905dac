"""Rankings by file: the best passage of each, with the others that the file has."""

from __future__ import annotations

from dataclasses import replace

from dearlite.folders.passage import Passage
from dearlite.ranking import Hit, Ranking


def group_by_file(ranking: Ranking) -> Ranking:
    """`ranking` with the best passage of each file alone, in the order of those; ranks count from 1 again.

    `Hit.more` has the ids of the file's other passages, best first. A document that is no passage of a file stands
    for itself.
    """
    groups: dict[object, list[Hit]] = {}
    for hit in ranking:
        record = hit.document
        groups.setdefault(record.path if isinstance(record, Passage) else hit.index, []).append(hit)
    hits = tuple(
        replace(best, rank=rank, more=tuple(other.id or str(other.index) for other in others))
        for rank, (best, *others) in enumerate(groups.values(), start=1)
    )
    return replace(ranking, hits=hits)
