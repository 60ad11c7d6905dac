"""Engines that turn token rows into scores. They see ids and numbers: no text, no files of the user's, no printing."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dearlite.pointwise.tokens import TokenRow


class PointwiseBackend(Protocol):
    """What a pointwise engine offers. `device` says what really runs the model: "cpu" or "cuda"."""

    device: str
    threads: int

    def score(self, rows: Iterable[TokenRow]) -> Generator[float, None, None]:
        """A raw logit for each row, in the rows' order, as soon as it is known. Rows are asked for as they are needed.

        Closing the generator early stops the work. May be called from several threads at once.
        """
        ...
