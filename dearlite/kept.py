"""The model that `dearlite.rerank` loaded last, which its next call with the same file and options uses again."""

from __future__ import annotations

import os
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dearlite.models.chain import Model
    from dearlite.models.chain_names import StageLike
    from dearlite.reranker import Reranker


class KeptModel:
    """One Reranker and the key that it was loaded for. Threads may share it."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._key: object = None
        self._reranker: Reranker | None = None
        self._of_parent: list[Reranker | None] = []

    def load(self, model: Model, options: Mapping[str, Any]) -> Reranker:
        """The Reranker that `Reranker.load(model, **options)` returns, loaded now unless it is the kept one.

        A model file that changed is another model. The kept one is dropped before another is loaded, and stays in
        memory only for the calls that still use it. Raises as `Reranker.load`.
        """
        from dearlite.models.chain import Chain
        from dearlite.models.registry import DEFAULT_MODEL
        from dearlite.reranker import Reranker

        if isinstance(model, Chain):  # it may hold open files
            return Reranker.load(model, **options)
        names = [model or DEFAULT_MODEL] if model is None or isinstance(model, (str, Path)) else list(model)
        key = (_files_of(names), repr(options))  # as text: True is no thread count, and yet equal to 1
        with self._lock:
            if self._reranker is None or self._key != key:
                self.drop()
                self._reranker, self._key = Reranker.load(model, **options), key
            return self._reranker

    def drop(self) -> None:
        """Gives up the kept model."""
        with self._lock:
            self._reranker = self._key = None

    def forget_after_fork(self) -> None:
        """Makes a forked process load its own. The parent's is not released there: its threads are missing."""
        self._lock = RLock()  # the parent's may be held by a thread that is missing
        self._of_parent.append(self._reranker)
        self._reranker = self._key = None


def _files_of(names: Sequence[StageLike]) -> tuple[object, ...]:
    """The stages of a chain: entry of models.toml and depth, and path and state of the file where there is one."""
    from dearlite.models.chain_names import parse_chain
    from dearlite.models.registry import find_cascade, find_entry, find_model, load_lexical

    files = list[object]()
    for stage in parse_chain(names):
        if (lexical := load_lexical().get(stage.model)) is not None:
            files.append((lexical, stage.depth))
            continue
        path = find_model(stage.model)
        state = path.stat()
        identity = (state.st_mtime_ns, state.st_size, state.st_ino)
        files.append((find_entry(stage.model), path.absolute(), stage.depth, identity))
    return (len(names) == 1 and find_cascade(str(names[0])), *files)


KEPT = KeptModel()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=KEPT.forget_after_fork)
