"""The CUDA graph on a real GPU; skipped where this onnxruntime cannot start CUDA."""

import numpy as np
import pytest
from noveleval import ndcg10, pairs, reference_scores

from dearlite import DearliteError, Reranker
from dearlite.registry import find_model

ROWS = [(query, text) for _, _, query, text in pairs()]


@pytest.fixture(scope="module")
def reranker():
    try:
        return Reranker.load(find_model("minilm-l12"), device="cuda")
    except DearliteError as err:
        pytest.skip(f"no CUDA here: {err}")


def test_cuda_scores_are_near_fp32(reranker):
    scores = reranker.score(ROWS)
    errors = np.abs(np.array(scores) - reference_scores())
    print(f"mean error {errors.mean():.4f}, max {errors.max():.4f}, nDCG@10 {ndcg10(scores):.4f}")
    assert reranker.device == "cuda"
    assert errors.mean() <= 0.02
    assert ndcg10(scores) == pytest.approx(0.7923, abs=0.005)


def test_cuda_score_hardly_depends_on_its_batch(reranker):
    alone = [reranker.score([row])[0] for row in ROWS[:20]]
    assert alone == pytest.approx(reranker.score(ROWS)[:20], abs=0.05)
