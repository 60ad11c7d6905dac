"""The worker that scores texts with a written file: `python -m dearlite.export.quality.scorer FILE`.

Job: {"device", "pairs": [(query, document record)], "probes": [text]}. Result: {"scores", "load_s", "score_s",
"peak_rss_mb", "cpus", "probe_fault"}; the last is the reason why one of the probes has no score, or empty.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from typing import Any

from dearlite.errors import OutOfMemory, first_line
from dearlite.export.quality.worker import run_job
from dearlite.machine import peak_memory_mb
from dearlite.reranker import Reranker


def score_pairs(job: dict[str, Any]) -> dict[str, Any]:
    """The scores of the job's pairs, the time and memory that they took, and the fault of the probes."""
    start = time.perf_counter()
    reranker = Reranker.load(sys.argv[1], device=job["device"])
    loaded = time.perf_counter()
    scores = reranker.score([(query, record) for query, record in job["pairs"]])
    return {
        "scores": scores,
        "load_s": round(loaded - start, 2),
        "score_s": round(time.perf_counter() - loaded, 2),
        "peak_rss_mb": peak_memory_mb(),
        "cpus": os.cpu_count(),
        "probe_fault": _probe_fault(reranker, job["probes"]),
    }


def _probe_fault(reranker: Reranker, probes: Iterable[str]) -> str:
    """The reason why a text of `probes` has no score; empty if all have one."""
    for text in probes:
        try:
            reranker.score([("a", text)])
        except OutOfMemory:
            raise
        except Exception as err:  # errors of ONNX Runtime have no common base class
            return f"{text[:60]!r}: {first_line(err)[:200]}"
    return ""


if __name__ == "__main__":
    run_job(score_pairs)
