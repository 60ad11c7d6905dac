"""The limits of a server, each with the status of a request that exceeds it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a request.

    - `body_bytes`: size of its body; more is 413.
    - `documents`: number of its documents or pairs; more is 413.
    - `queue`: number of requests that run or wait; another is 429.
    - `seconds`: time from its arrival to its answer; more is 504. A budget of the request is cut to it.
    - `body_seconds`: time in which its headers, and then its body, must have come; more is 408.
    """

    body_bytes: int = 32 * 1024 * 1024
    documents: int = 10_000
    queue: int = 64
    seconds: float = 300.0
    body_seconds: float = 30.0
