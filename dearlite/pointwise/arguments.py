"""Checks of the arguments of calls that a pointwise model takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dearlite.documents import Document, as_document, check_query
from dearlite.errors import InvalidInput, UsageError
from dearlite.fields import Fields

if TYPE_CHECKING:
    from dearlite.options import Listwise


def check_pair(pair: object, position: int, fields: Fields) -> tuple[str, Document]:
    """The cleaned query and the document of `pair`. Raises InvalidInput."""
    if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
        raise InvalidInput(f"pair {position} is not (query, document)")
    return check_query(pair[0]), as_document(pair[1], f"the document of pair {position}", fields)


def check_no_listwise(listwise: Listwise | None, model: str) -> None:
    """Raises UsageError for options of listwise models."""
    if listwise is not None:
        raise UsageError(f"{model} is a pointwise model: modes, windows and reasons need a listwise model")
