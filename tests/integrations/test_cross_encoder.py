"""The calls of sentence-transformers' CrossEncoder; its package is not needed."""

import numpy as np
import pytest
from integrations.conftest import ORDER, QUERY, TEXTS

from dearlite import InvalidInput, UsageError
from dearlite.integrations.cross_encoder import CrossEncoder

PAIRS = [(QUERY, text) for text in TEXTS]


def test_predict_keeps_the_order_of_the_pairs(reranker, relevance, logits):
    scores = CrossEncoder(reranker).predict(PAIRS)
    assert (scores.dtype, scores.shape) == (np.float32, (4,))
    assert scores.tolist() == [np.float32(relevance[text]) for text in TEXTS]
    raw = CrossEncoder(reranker, raw_scores=True).predict([list(pair) for pair in PAIRS], batch_size=2)
    assert raw.tolist() == [np.float32(logits[text]) for text in TEXTS]
    assert CrossEncoder(reranker).predict([]).shape == (0,)


def test_a_single_pair_has_a_single_score(reranker, relevance):
    for pair in (PAIRS[1], list(PAIRS[1])):
        score = CrossEncoder(reranker).predict(pair)
        assert isinstance(score, np.float32) and score == np.float32(relevance[TEXTS[1]])
    assert CrossEncoder(reranker).predict(PAIRS[:2]).shape == (2,)


def test_an_activation_function_replaces_the_models_own(reranker, logits):
    scores = CrossEncoder(reranker).predict(PAIRS, activation_fn=lambda values: values / 2)
    assert scores.dtype == np.float32
    assert scores.tolist() == [np.float32(logits[text]) / 2 for text in TEXTS]


def test_a_progress_bar_is_a_line_on_stderr(reranker, capsys):
    CrossEncoder(reranker).predict(PAIRS, show_progress_bar=True)
    captured = capsys.readouterr()
    assert "4 of 4 pairs" in captured.err and captured.out == ""


def test_rank_gives_records(reranker, relevance):
    model = CrossEncoder(reranker)
    expected = [{"corpus_id": index, "score": np.float32(relevance[TEXTS[index]])} for index in ORDER]
    assert model.rank(QUERY, TEXTS) == expected
    assert model.rank(QUERY, TEXTS, top_k=1, return_documents=True) == [expected[0] | {"text": TEXTS[1]}]
    assert model.rank(QUERY, []) == []


def test_models_without_a_score_of_a_pair_rank_all_the_same(reranker, tmp_path):
    tiny_gguf = pytest.importorskip("tiny_gguf", reason="gguf is not installed (extra export)")
    model = CrossEncoder(tiny_gguf.write_tiny(tmp_path / "tiny.gguf"), threads=1)
    with model.reranker:
        assert [float(row["score"]) for row in model.rank(QUERY, TEXTS)] == [1.0, 0.75, 0.5, 0.25]
        with pytest.raises(UsageError, match="has no score of a single document"):
            model.predict(PAIRS)


def test_bad_pairs_are_named(reranker):
    with pytest.raises(InvalidInput, match="the document of pair 1 is empty"):
        CrossEncoder(reranker).predict([PAIRS[0], (QUERY, "")])
    with pytest.raises(InvalidInput, match="pair 0"):
        CrossEncoder(reranker).predict([("one",)])
