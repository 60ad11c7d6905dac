"""The worker that scores pairs with a written file: `python -m dearlite.export.quality.scorer FILE`.

Job: {"device", "pairs": [(query, document record)]}. Result: {"scores", "load_s", "score_s", "peak_rss_mb", "cpus"}.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from dearlite.export.quality.worker import run_job
from dearlite.machine import peak_memory_mb
from dearlite.reranker import Reranker


def score_pairs(job: dict[str, Any]) -> dict[str, Any]:
    """The scores of the job's pairs, and the time and memory that they took."""
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
    }


if __name__ == "__main__":
    run_job(score_pairs)
