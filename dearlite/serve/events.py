"""Server-sent events of a request: its progress and the model's reasoning while it runs, then its answer.

Events are `progress` {"done", "total"}, `text` {"text"}, and at the end one `result`, the usual body, or `error`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any

from dearlite.files.json_text import json_text

_PROGRESS_S = 0.1  # least time between two events of progress
_ALIVE_S = 15.0  # silence after which a comment is sent
_QUALITY = re.compile(r"\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*")


class Events:
    """The events of one request, which its thread adds and the event loop sends."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._sent = 0.0

    def progress(self, done: int, total: int) -> None:
        """Adds the progress, at most ten times a second; called from the thread."""
        now = time.monotonic()
        if done >= total or now - self._sent >= _PROGRESS_S:
            self._sent = now
            self._add(event("progress", {"done": done, "total": total}))

    def text(self, text: str) -> None:
        """Adds a piece of the model's reasoning; called from the thread."""
        self._add(event("text", {"text": text}))

    def end(self, name: str, body: Any) -> None:
        """Adds the last event; called from the event loop."""
        self._queue.put_nowait(event(name, body))
        self._queue.put_nowait(None)

    def end_with(self, body: bytes) -> None:
        """Adds the answer, JSON without line breaks, as the last event; called from the event loop."""
        self._queue.put_nowait(b"event: result\ndata: " + body + b"\n\n")
        self._queue.put_nowait(None)

    async def stream(self) -> AsyncIterator[bytes]:
        """Yields the events as they come, up to the last."""
        while True:
            try:
                chunk = await asyncio.wait_for(self._queue.get(), _ALIVE_S)
            except TimeoutError:
                chunk = b": working\n\n"
            if chunk is None:
                return
            yield chunk

    def _add(self, chunk: bytes) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, chunk)


def asks_for_events(accept: str) -> bool:
    """True if the header `Accept` takes events, and does not prefer JSON by a higher quality (RFC 9110, 12.5.1)."""
    qualities = {"text/event-stream": 0.0, "application/json": 0.0}
    for item in accept.lower().split(","):
        name, *parameters = item.split(";")
        matches = (_QUALITY.fullmatch(parameter) for parameter in parameters)
        qualities[name.strip()] = next((float(match[1]) for match in matches if match), 1.0)
    return qualities["text/event-stream"] > 0 and qualities["text/event-stream"] >= qualities["application/json"]


def event(name: str, body: Any) -> bytes:
    """One event with a JSON body."""
    return f"event: {name}\ndata: {json_text(body)}\n\n".encode()
