"""Several passes of a listwise model: shuffled input, fusion by mean rank, agreement."""

from dataclasses import replace

import pytest
from llama import need_llama

from dearlite import Listwise, Reranker
from dearlite.agreement import fuse, shuffled_orders
from dearlite.documents import as_documents
from dearlite.errors import UsageError
from dearlite.hits import make_hits
from dearlite.ranking import Ranking
from dearlite.scores import kendall_tau


def ranking_of(texts, best_first):
    """A ranking of `texts` in the order `best_first`."""
    scores = [-float(best_first.index(text)) for text in texts]
    hits = make_hits(as_documents(texts), scores, [(1, 1)] * len(texts), None)
    return Ranking(hits, "q", "m", "cpu", 1.0, len(texts))


@pytest.mark.parametrize(
    ("a", "b", "tau"),
    [
        ([1, 2, 3], [1, 2, 3], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 2, 3], [1, 3, 2], 1 / 3),
        ([1], [1], 1.0),
        ([], [], 1),
        ([1, 1, 2], [3, 3, 4], 1.0),  # a pair tied in both lists agrees
        ([1, 1], [3, 4], 0.0),
    ],
)
def test_tau_is_kendalls(a, b, tau):
    assert kendall_tau(a, b) == pytest.approx(tau)


def test_first_pass_keeps_the_given_order_and_shuffles_are_reproducible():
    orders = shuffled_orders(10, 3)
    assert orders[0] == list(range(10))
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert orders[1] != orders[0] != orders[2] != orders[1]
    assert shuffled_orders(10, 3) == orders


def test_ranks_are_averaged_over_the_input_orders():
    texts, orders = ["a", "b", "c"], [[0, 1, 2], [2, 0, 1], [1, 2, 0]]
    answers = ["abc", "bac", "acb"]  # ranks: a 1 2 1, b 2 1 3, c 3 3 2
    rankings = [ranking_of([texts[i] for i in order], list(best)) for order, best in zip(orders, answers, strict=True)]
    fused = fuse(rankings, orders)
    assert [(hit.text, hit.index, hit.rank) for hit in fused] == [("a", 0, 1), ("b", 1, 2), ("c", 2, 3)]
    assert [hit.score for hit in fused] == pytest.approx([3 - 4 / 3, 3 - 2, 3 - 8 / 3])
    assert fused.agreement == pytest.approx((1 / 3 + 1 / 3 - 1 / 3) / 3)
    assert fused.elapsed_s == 3.0
    assert [hit.text for hit in fuse(rankings, orders, top_k=1)] == ["a"]


def test_a_pass_that_a_budget_cut_short_leaves_the_ranking_incomplete():
    rankings = [ranking_of(["a", "b"], ["a", "b"]) for _ in range(2)]
    assert fuse(rankings, [[0, 1], [0, 1]]).complete
    assert not fuse([rankings[0], replace(rankings[1], complete=False)], [[0, 1], [0, 1]]).complete


def test_equal_means_keep_the_first_passs_order():
    fused = fuse([ranking_of(["a", "b"], ["b", "a"]), ranking_of(["a", "b"], ["a", "b"])], [[0, 1], [0, 1]])
    assert [hit.text for hit in fused] == ["b", "a"]
    assert fused.agreement == -1.0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    need_llama()
    from tiny_gguf import write_tiny

    return Reranker.load(write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf"))


def test_model_reads_every_input_order(tiny):
    docs = [f"document {n}" for n in range(6)]
    options = Listwise(mode="first", passes=3)
    fused = tiny.rerank("which?", docs, listwise=options)
    alone = Listwise(mode="first")
    orders = shuffled_orders(6, 3)
    expected = fuse([tiny.rerank("which?", [docs[i] for i in order], listwise=alone) for order in orders], orders)
    assert [hit.index for hit in fused] == [hit.index for hit in expected]
    assert fused.agreement == expected.agreement
    assert tiny.rerank("which?", docs, listwise=alone).agreement is None
    many = tiny.rerank_many([("which?", docs), ("what?", []), ("q", docs[:2])], batch_size=2, listwise=options, top_k=4)
    assert [len(ranking) for ranking in many] == [4, 0, 2]
    assert [hit.index for hit in many[0]] == [hit.index for hit in fused][:4]
    assert tiny.identity(options) != tiny.identity(alone)


def test_passes_below_one_are_refused(tiny):
    with pytest.raises(UsageError, match="passes is 0"):
        tiny.rerank("q", ["a"], listwise=Listwise(passes=0))
