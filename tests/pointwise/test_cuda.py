"""The CUDA graph on a real GPU; skipped where this onnxruntime cannot start CUDA."""

import numpy as np
import pytest
from noveleval import ndcg10, pairs, reference_scores

from dearlite import DearliteError, Reranker
from dearlite.models.registry import find_model

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


@pytest.fixture(scope="module", params=[("int8", "llama"), ("int8", "qwen3"), ("fp16", "llama")], ids="-".join)
def decoder(request, reranker, tmp_path_factory):
    """A decoder loaded on CUDA, its scores for PAIRS in fp16 arithmetic by torch, and the pairs."""
    pytest.importorskip("transformers")
    from half_arithmetic import run_graph
    from tiny_decoders import KINDS, PAIRS, checkpoint

    from dearlite.cli.main import run
    from dearlite.models.bundle import Bundle

    quant, family = request.param
    folder = tmp_path_factory.mktemp(family)
    kind = next(kind for kind in KINDS if kind.startswith(family))
    _, tok = checkpoint(folder, kind, hidden_size=256, intermediate_size=512, head_dim=64)
    with pytest.raises(SystemExit) as ended:
        run(["export", str(folder), "-o", str(folder / "m.dear"), "--quant", quant, "--for", "both", "--no-card"])
    assert ended.value.code == 0
    loaded = Reranker.load(folder / "m.dear", device="cuda")
    bundle = Bundle(folder / "m.dear")
    build = next(build for build in bundle.manifest.builds if build.device == "cuda")
    expected = []
    for query, document in PAIRS:
        ids = np.array([tok.encode(f"query: {query}", f"document:  {document}").ids], np.int64)
        expected.append(float(run_graph(bundle, build, ids, np.ones_like(ids))[0][0, 0]))
    return loaded, expected, PAIRS


def test_cuda_decoder_is_fp16_arithmetic_on_its_weights(decoder):
    loaded, expected, rows = decoder
    scores = loaded.score(rows)
    print(f"max error {np.abs(np.array(scores) - expected).max() / np.std(expected):.4f} of the spread")
    assert (loaded.device, loaded._backend.build.layout) == ("cuda", "padded")
    assert scores == pytest.approx(expected, abs=0.03 * np.std(expected))


def test_cuda_decoder_score_hardly_depends_on_its_batch(decoder):
    loaded, expected, rows = decoder
    alone = [loaded.score([row])[0] for row in rows]
    assert alone == pytest.approx(loaded.score(rows), abs=0.02 * np.std(expected))
