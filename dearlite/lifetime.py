"""The lifetime of a Reranker: closing it, pickling it by its recipe, and copies that share its loaded model.

A copy may have another instruction: `with_instruction`.
"""

from __future__ import annotations

from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any, SupportsIndex
from weakref import WeakSet

from dearlite.errors import UsageError
from dearlite.options import check_instruction

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from types import TracebackType
    from typing import Self

    from dearlite.loading import Recipe

_change = Lock()  # of the sharers of a model


class Lifetime:
    """The end of a Reranker, and its copies.

    A copy has an end of its own: the model is released when the last of those that share it is closed or dropped.
    """

    model: str
    recipe: Recipe | None = None
    _closed = False
    _threads: Executor | None = None  # that run the calls of tasks

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        if self.recipe is None:
            return super().__reduce_ex__(protocol)
        from dearlite.loading import remember  # models.toml is not read before a model is loaded

        remember(self.recipe, self.sharers)
        return type(self.recipe).load, (self.recipe,)

    def __enter__(self) -> Self:
        self.check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def close(self) -> None:
        """Gives back the model's memory, file and threads; a later call raises UsageError. Closing twice is allowed.

        Calls that run in other threads end first, or raise the same error where they need the model again. A copy that
        shares the model stays open. `with` and `async with` close at their end. Windows replaces and deletes no file of
        a loaded model.
        """
        with _change:
            if self._closed:
                return
            self._closed = True
            shared = any(not sharer._closed for sharer in self.sharers)
        if self._threads is not None:
            self._threads.shutdown(wait=False)
        if not shared:
            self._release()

    async def aclose(self) -> None:
        """`close` in a thread: the event loop does not wait for the calls that run."""
        import asyncio  # a program without an event loop does not pay for it

        await asyncio.to_thread(self.close)

    def check_open(self) -> None:
        """Raises UsageError after `close`."""
        if self._closed:
            raise closed(self.model)

    def share(self) -> Self | None:
        """Another Reranker with this one's loaded model; None if this one was closed."""
        copy, sharers = object.__new__(type(self)), self.sharers
        with _change:
            if self._closed:
                return None
            copy.__dict__.update(self.__dict__, _threads=None)
            sharers.add(copy)
        return copy

    @property
    def takes_instruction(self) -> bool:
        """True if the model's prompt has a place for an instruction; of a cascade, if a stage's has one."""
        return False

    def with_instruction(self, instruction: str) -> Self:
        """The model with another task in words, for the calls that have one.

        It shares the loaded model, and has an end of its own (`close`). In a cascade the stages that take an
        instruction get it. Raises UsageError if the model takes none, if it is too long, and after `close`.
        """
        text = self._checked_instruction(instruction)
        instructed = self.share()
        if instructed is None:
            raise closed(self.model)
        instructed._instruct(text)
        instructed.recipe = self._instructed_recipe(text)
        return instructed

    def _checked_instruction(self, instruction: str) -> str:
        self.check_open()
        text = check_instruction(instruction)
        if text is None:
            raise UsageError("the instruction is None: it must be a text")
        if not self.takes_instruction:
            raise UsageError(f"{self.model} takes no instruction: leave it out")
        return text

    def _instruct(self, instruction: str) -> None:
        """Makes this the model with `instruction`; only for one that takes it."""
        raise NotImplementedError

    def _instructed_recipe(self, instruction: str) -> Recipe | None:
        recipe = self.recipe
        return recipe and replace(recipe, pointwise={**recipe.pointwise, "instruction": instruction})

    @property
    def sharers(self) -> WeakSet[Lifetime]:
        """The Rerankers of this model, made at the first use: subclasses need not call `__init__`."""
        sharers: WeakSet[Lifetime] = self.__dict__.setdefault("_shared_by", WeakSet([self]))
        return sharers

    def _release(self) -> None:
        """Gives back memory and file; called once, by the last Reranker of the model."""


def closed(model: str) -> UsageError:
    """The error for a call after `close`."""
    return UsageError(f"{model}: this model was closed: load it again")
