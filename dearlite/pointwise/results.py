"""The scores of one query's documents as they come, and the ranking that they make at any time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dearlite.hits import TokenCounts, make_hits
from dearlite.ranking import Ranking

if TYPE_CHECKING:
    from dearlite.documents import Document
    from dearlite.models.calibration import Calibration
    from dearlite.pointwise.tokens import TokenRow


@dataclass(slots=True)
class QueryResults:
    """The scores of `documents` so far, in their order, and the numbers of tokens of the rows that were taken."""

    query: str
    documents: Sequence[Document]
    scores: list[float] = field(default_factory=list)
    query_truncated: bool = False
    _tokens: list[TokenCounts] = field(default_factory=list)
    _start: float = field(default_factory=time.perf_counter)

    def noting(self, rows: Iterator[TokenRow]) -> Iterator[TokenRow]:
        """`rows`, whose numbers of tokens are kept."""
        for row in rows:
            self._tokens.append((row.tokens_used, row.tokens_total, row.tokens_total_is_bound))
            self.query_truncated |= row.query_truncated
            yield row

    def ranking(self, model: str, device: str, relevance: Calibration | None) -> Ranking:
        """The ranking by the scores so far; documents without one come last."""
        unscored = len(self.documents) - len(self.scores)
        origin = None if relevance is None else relevance.origin
        return Ranking(
            hits=make_hits(self.documents, self.scores, self._tokens, None, relevance, origin),
            query=self.query,
            model=model,
            device=device,
            elapsed_s=time.perf_counter() - self._start,
            total=len(self.documents),
            query_truncated=self.query_truncated,
            complete=not unscored,
            unscored=unscored,
        )
