"""Which documents a listwise model sees together: windows over a list, from its end to its head."""

from __future__ import annotations


def window_spans(count: int, window: int, stride: int) -> list[tuple[int, int]]:
    """(start, end) of each window over `count` documents, the last of them at the head.

    All but the head's lie `stride` apart; the head is always covered, by a whole window where there are as many
    documents (published code skips it where `count` does not fit the stride).
    Examples: (100, 20, 10) -> (80, 100), (70, 90) ... (0, 20); (25, 20, 10) -> (5, 25), (0, 20); (3, 20, 10) -> (0, 3).
    """
    spans = []
    start = count - window
    while start > 0:
        spans.append((start, start + window))
        start -= stride
    spans.append((0, min(count, window)))
    return spans if count else []
