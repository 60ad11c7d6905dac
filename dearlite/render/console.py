"""The rich console of a stream, whatever width the terminal names."""

from __future__ import annotations

from typing import IO, Any

from rich.console import Console

_USUAL_WIDTH = 80  # of a terminal that names no width
_LEAST_WIDTH = 20  # rich leaves out what does not fit, and a terminal breaks the line


def console_of(stream: IO[str] | None = None, *, width: int | None = None, **options: Any) -> Console:
    """A console on `stream` (None: stdout), of `width` columns or those of the terminal, at least 20 of them."""
    console = Console(file=stream, highlight=False, width=width, **options)
    if console.width < _LEAST_WIDTH:
        console.width = _LEAST_WIDTH if console.width > 0 else _USUAL_WIDTH
    return console
