"""Counters of a server in the text format of Prometheus (version 0.0.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """Counters of requests, seconds and documents. Its methods are called from the event loop only."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()  # (endpoint, status)
        self._buckets: Counter[float] = Counter()
        self._seconds, self._documents, self._truncated, self._cancelled = 0.0, 0, 0, 0

    def count_request(self, endpoint: str, status: int) -> None:
        """Counts an answered request."""
        self._requests[endpoint, status] += 1

    def count_ranking(self, seconds: float, documents: int, truncated: int) -> None:
        """Counts a ranking: its time from arrival to answer, and its documents."""
        self._seconds += seconds
        self._documents += documents
        self._truncated += truncated
        self._buckets.update(bound for bound in (*_BUCKETS_S, float("inf")) if seconds <= bound)

    def count_cancelled(self) -> None:
        """Counts a request whose client closed the connection."""
        self._cancelled += 1

    def text(self, queue: int) -> str:
        """All counters; `queue` is the number of requests that run or wait."""
        bounds = [("+Inf" if bound == float("inf") else f"{bound:g}", bound) for bound in (*_BUCKETS_S, float("inf"))]
        name = "dearlite_request_duration_seconds"
        lines = [
            *_metric(
                "dearlite_requests_total",
                "counter",
                "Requests by endpoint and status.",
                [
                    (f'{{endpoint="{endpoint}",status="{status}"}}', count)
                    for (endpoint, status), count in sorted(self._requests.items())
                ],
            ),
            *_metric("dearlite_documents_total", "counter", "Ranked or scored documents.", [("", self._documents)]),
            *_metric("dearlite_truncated_total", "counter", "Documents that were cut.", [("", self._truncated)]),
            *_metric("dearlite_cancelled_total", "counter", "Clients that left.", [("", self._cancelled)]),
            *_metric("dearlite_queue_size", "gauge", "Requests that run or wait.", [("", queue)]),
            f"# HELP {name} Time from the arrival of a request to its ranking.",
            f"# TYPE {name} histogram",
            *(f'{name}_bucket{{le="{text}"}} {self._buckets[bound]}' for text, bound in bounds),
            f"{name}_sum {self._seconds:.6f}",
            f"{name}_count {self._buckets[float('inf')]}",
        ]
        return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, text: str, samples: Iterable[tuple[str, int]]) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *(f"{name}{labels} {value}" for labels, value in samples)]
