"""Sliding windows over a list of documents, from its end to its head."""

from __future__ import annotations


def window_spans(count: int, window: int, stride: int) -> list[tuple[int, int]]:
    """(start, end) of each window over `count` documents; the last window starts at 0.

    Starts are `stride` apart, except for the last. The head is always covered, by a full window if there are at least
    `window` documents (published code skips the head if the stride does not divide `count` - `window`).
    Examples: (100, 20, 10) -> (80, 100), (70, 90) ... (0, 20); (25, 20, 10) -> (5, 25), (0, 20); (3, 20, 10) -> (0, 3).
    """
    spans = []
    start = count - window
    while start > 0:
        spans.append((start, start + window))
        start -= stride
    spans.append((0, min(count, window)))
    return spans if count else []
