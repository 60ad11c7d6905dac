"""Libraries outside of dearlite: whatever they raise becomes an EngineError of one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from dearlite.errors import DearliteError, EngineError, first_line

_PANIC = "PanicException"  # of Rust's pyo3: a BaseException without a public class


@contextmanager
def engine_errors(library: str) -> Iterator[None]:
    """Within the block, an exception of `library` becomes an EngineError. Errors of dearlite and interrupts pass."""
    try:
        yield
    except DearliteError:
        raise
    except BaseException as err:
        if not isinstance(err, Exception) and type(err).__name__ != _PANIC:
            raise
        raise EngineError(f"{library} failed ({first_line(err)})") from err


@contextmanager
def one_line_errors(what: str, remedy: str, kind: type[DearliteError] = DearliteError) -> Iterator[None]:
    """Within the block, an exception of a library becomes a `kind` of one line: `what`, the reason, `remedy`.

    Errors of dearlite, interrupts, too little memory, and errors of the system, which have an errno, pass.
    """
    try:
        yield
    except (DearliteError, MemoryError):
        raise
    except BaseException as err:
        if not isinstance(err, Exception) and type(err).__name__ != _PANIC:
            raise
        if isinstance(err, OSError) and err.errno is not None:
            raise
        reason = f"no {err}" if isinstance(err, KeyError) else first_line(err)
        raise kind(f"{what} ({reason[:200]}): {remedy}") from err


@contextmanager
def naming(model: str, document: str) -> Iterator[None]:
    """Within the block, an EngineError gets the names of `model` and of what it reads: "document 3", "the query"."""
    try:
        yield
    except EngineError as err:
        raise err.about(model, document) from err.__cause__


class Foreign:
    """A module or object of a library, whose calls raise EngineError and nothing else.

    Attributes that are classes or no functions are the library's own.
    """

    def __init__(self, library: str, target: Any) -> None:
        self._library, self._target = library, target

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if isinstance(value, type) or not callable(value):
            return value

        @wraps(value, assigned=())
        def call(*arguments: Any, **options: Any) -> Any:
            with engine_errors(self._library):
                return value(*arguments, **options)

        return call
