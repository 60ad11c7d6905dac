"""The embedded model against transformers in fp32 on all of NovelEval, and its scores in other batches and threads."""

import random
from statistics import fmean

import numpy as np
import pytest
from noveleval import DATA, RUN, assert_same_figures, by_query, kendall_tau, ndcg10, pairs, reference_scores

from dearlite import Reranker
from dearlite.export.quality import card
from dearlite.models.bundle import Bundle
from dearlite.models.registry import find_model


@pytest.fixture(scope="module")
def reranker():
    return Reranker.load("minilm-l12", device="cpu")


@pytest.fixture(scope="module")
def scores(reranker):
    """The embedded model's scores of pairs()."""
    return reranker.score([(query, text) for _, _, query, text in pairs()])


def test_reference_scores_give_the_published_ndcg():
    assert ndcg10(reference_scores()) == pytest.approx(0.7923, abs=5e-5)


def test_first_stage_gives_its_published_ndcg():
    rank = [-float(position) for position in range(len(pairs()))]  # the order of run_bm25.trec
    assert ndcg10(rank) == pytest.approx(0.5577, abs=5e-5)


def test_noveleval_ndcg_is_that_of_fp32(scores):
    assert ndcg10(scores) == pytest.approx(0.7923, abs=0.005)


def test_scores_are_near_fp32(scores):
    errors = np.abs(np.array(scores) - reference_scores())
    assert errors.mean() <= 0.05
    assert errors.max() <= 0.3


def test_orders_are_near_fp32(scores):
    reference = reference_scores()
    taus = [kendall_tau([scores[i] for i in g], [reference[i] for i in g]) for g in by_query().values()]
    assert fmean(taus) >= 0.985


def test_card_in_the_file_is_what_the_scores_give(scores):
    """With transformers' fp32 scores, which those of the exporter's fp32 graph equal (test_export_minilm)."""
    shipped = Bundle(find_model("minilm-l12")).card()
    assert_same_figures(card.compare_scores(card.load_pairs(DATA, RUN), reference_scores(), scores), shipped)


def test_score_does_not_depend_on_batch_order_or_threads(reranker, scores):
    rows = [(query, text) for _, _, query, text in pairs()][:24]
    alone = [reranker.score([row])[0] for row in rows]
    shuffled = random.Random(7).sample(range(24), 24)
    other = dict(zip(shuffled, reranker.score([rows[i] for i in shuffled]), strict=True))
    assert alone == pytest.approx(scores[:24], abs=1e-5)
    assert [other[i] for i in range(24)] == pytest.approx(scores[:24], abs=1e-5)
    for threads in (1, 3):
        assert Reranker.load(threads=threads).score(rows[:8]) == pytest.approx(scores[:8], abs=1e-5)


def test_rerank_and_score_agree(reranker, scores):
    query = pairs()[0][2]
    ranking = reranker.rerank(query, [text for _, _, q, text in pairs() if q == query])
    assert [hit.score for hit in sorted(ranking, key=lambda h: h.index)] == pytest.approx(scores[:20], abs=1e-5)
