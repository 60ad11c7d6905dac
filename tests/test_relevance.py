"""Scores from 0 to 1 for other programs: the calibration, else the makers' activation, else the sigmoid."""

import math
import random
from dataclasses import replace

import pytest

from dearlite import Reranker, UsageError
from dearlite.models.calibration import Calibration
from dearlite.ranking import Hit, Ranking
from dearlite.relevance import shown_scores
from dearlite.reranker import Reranker as Base

QUERY, DOCS = "Who invented the light bulb?", ["Coffee is good for diet", "Edison invented the bulb in 1879", "KEPCO"]


class Kind(Base):
    model, device, quantisation, threads = "kind", "cpu", "none", 1

    def __init__(self, *, pointwise):
        self.pointwise = pointwise

    def identity(self, listwise=None):
        return {}

    def rank(self, jobs, call):
        raise NotImplementedError


def ranking_of(*relevances):
    """A ranking of a listwise model or a cascade."""
    count = len(relevances)
    hits = [
        Hit(rank, rank - 1, None, float(count - rank), relevance, "text", "", "text", 1, 1, False)
        for rank, relevance in enumerate(relevances, start=1)
    ]
    return Ranking(tuple(hits), "query", "kind", "cpu", 0.0, count)


def test_the_calibration_then_the_makers_map_then_the_sigmoid():
    reranker = Reranker.load(threads=1)
    ranking = reranker.rerank(QUERY, DOCS)
    assert shown_scores(reranker, ranking) == [hit.relevance for hit in ranking]
    assert shown_scores(reranker, ranking, raw=True) == [hit.score for hit in ranking]
    reranker._relevance = Calibration(0.5, 1.0, origin="activation")
    published = [1 / (1 + math.exp(-(0.5 * hit.score + 1.0))) for hit in ranking]
    assert shown_scores(reranker, reranker.rerank(QUERY, DOCS)) == pytest.approx(published)
    reranker._relevance = None
    sigmoid = [1 / (1 + math.exp(-hit.score)) for hit in ranking]
    assert shown_scores(reranker, reranker.rerank(QUERY, DOCS)) == pytest.approx(sigmoid)
    assert [reranker.relevance_of(hit.score) for hit in ranking] == pytest.approx(sigmoid)


def test_a_budget_keeps_the_logits_scale_and_unread_documents_have_none():
    reranker = Reranker.load(threads=1)
    reranker._relevance = None
    ranking = reranker.rerank(QUERY, DOCS, budget_s=60)
    logits = [hit.score for hit in reranker.rerank(QUERY, DOCS)]
    expected = [1 / (1 + math.exp(-logit)) for logit in logits]
    assert shown_scores(reranker, ranking) == pytest.approx(expected, abs=1e-6)
    unread = replace(ranking, hits=(*ranking.hits[:2], replace(ranking.hits[2], score=None, stages=())))
    assert shown_scores(reranker, unread)[2] == 0.0
    assert shown_scores(reranker, unread, raw=True) == [logits[0], logits[1], logits[1]]


def test_raw_scores_that_rise_become_the_number_of_documents_below():
    ranking = ranking_of(None, None, None)
    mixed = replace(ranking, hits=tuple(map(replace_score, ranking, (0.5, 0.75, None))))
    assert shown_scores(Kind(pointwise=False), mixed, raw=True) == [2.0, 1.0, 0.0]


def replace_score(hit, score):
    return replace(hit, score=score)


def test_a_listwise_order_is_a_share_of_the_documents_also_of_the_first_few():
    listwise = Kind(pointwise=False)
    ranking = ranking_of(None, None, None, None)
    assert shown_scores(listwise, ranking) == [1.0, 0.75, 0.5, 0.25]
    assert shown_scores(listwise, ranking.top(2)) == [1.0, 0.75]
    assert shown_scores(listwise, ranking_of()) == []
    with pytest.raises(UsageError, match="no pointwise model"):
        listwise.relevance_of(1.0)


def test_a_stable_sort_of_the_callers_list_by_score_gives_the_ranking():
    """As frameworks sort: equal scores, of the cascade or pooled, keep the caller's order."""
    numbers = random.Random(3)
    for _ in range(50):
        ranking = ranking_of(*(numbers.choice([None, 0.0, 0.25, 0.5]) for _ in range(8)))
        order = numbers.sample(range(8), 8)
        hits = tuple(replace(hit, index=index) for hit, index in zip(ranking, order, strict=True))
        scores = shown_scores(Kind(pointwise=False), replace(ranking, hits=hits))
        of_index = dict(zip(order, scores, strict=True))
        assert sorted(range(8), key=lambda index: -of_index[index]) == order
        assert min(scores) >= 0.0 and max(scores) <= 1.0


def test_a_cascades_relevance_never_rises_along_its_order():
    cascade = Kind(pointwise=False)
    assert shown_scores(cascade, ranking_of(0.9, 0.2, 0.4, 0.1)) == pytest.approx([0.9, 0.3, 0.3, 0.1])
    assert shown_scores(cascade, ranking_of(0.0, 0.3, 0.6, None)) == pytest.approx([0.3, 0.3, 0.3, 0.0])
    numbers = random.Random(7)
    for _ in range(50):
        values = [numbers.random() for _ in range(numbers.randrange(1, 12))]
        scores = shown_scores(cascade, ranking_of(*values))
        assert sum(scores) == pytest.approx(sum(values))
        assert scores == sorted(scores, reverse=True)
        # every block is the mean of its values, so that no other falling sequence is nearer
        for value in set(scores):
            block = [old for old, new in zip(values, scores, strict=True) if new == value]
            assert sum(block) / len(block) == pytest.approx(value)
