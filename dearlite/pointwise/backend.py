"""The engine of a pointwise model, as the reranker sees it: token rows in, raw scores out."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dearlite.pointwise.tokens import TokenRow


class Backend(Protocol):
    """The engine of a pointwise model."""

    device: str
    threads: int
    notes: list[str]

    def score(self, rows: Iterable[TokenRow]) -> Generator[float, None, None]:
        """The raw score of each row, in order. Rows are taken as needed."""
