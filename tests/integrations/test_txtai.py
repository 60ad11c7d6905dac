"""txtai: the similarity function, and txtai's own Reranker pipeline around it."""

import pytest
from integrations.conftest import ORDER, QUERY, TEXTS

from dearlite.integrations.txtai import DearliteSimilarity


def test_pairs_of_positions_and_scores(reranker, relevance, logits):
    expected = [(index, relevance[TEXTS[index]]) for index in ORDER]
    assert DearliteSimilarity(reranker)(QUERY, TEXTS) == expected
    assert DearliteSimilarity(reranker)([QUERY, QUERY], TEXTS) == [expected, expected]
    assert DearliteSimilarity(reranker, raw_scores=True)(QUERY, TEXTS)[0] == (1, logits[TEXTS[1]])
    assert DearliteSimilarity(reranker)(QUERY, []) == []


def test_in_txtais_reranker(reranker, relevance):
    txtai = pytest.importorskip("txtai", reason="txtai is not installed")
    from txtai.pipeline import Reranker

    embeddings = txtai.Embeddings(keyword=True, content=True)
    embeddings.index(enumerate(TEXTS))
    results = Reranker(embeddings, DearliteSimilarity(reranker))("light bulb", limit=2)
    assert [row["text"] for row in results] == [TEXTS[1], TEXTS[2]]
    assert results[0]["score"] == reranker.rerank("light bulb", [TEXTS[1]])[0].relevance
