"""One stage of a cascade, whose model is loaded when it is needed."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dearlite.reranker import Reranker


class CascadeStage:
    """One stage of a cascade: its model, loaded at the first use, and its depth.

    `depth` is the number of documents that it gets, None for all. `kind` is "pointwise", "attention",
    "listwise" or "lexical"; empty for a model that cannot be loaded.
    """

    def __init__(
        self, name: str, depth: int | None, kind: str, load: Callable[[], Reranker], lock: Lock | None = None
    ) -> None:
        """`lock` is held during loading: stages whose `load` functions share models share a lock."""
        self.name, self.depth, self.kind = name, depth, kind
        self._load, self._lock = load, lock or Lock()
        self._reranker: Reranker | None = None

    @property
    def loaded(self) -> Reranker | None:
        """The model if it is loaded."""
        return self._reranker

    def reranker(self) -> Reranker:
        """The model, which is loaded now if it is not. Raises what loading raises."""
        with self._lock:
            if self._reranker is None:
                self._reranker = self._load()
            return self._reranker

    def unload(self) -> None:
        """Drops the model; calls that still use it keep it in memory."""
        self._reranker = None
