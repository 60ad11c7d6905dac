"""The package rerankers: its ranker interface."""

import asyncio

import pytest

rerankers = pytest.importorskip("rerankers", reason="rerankers is not installed")

from integrations.conftest import ORDER, QUERY, TEXTS  # noqa: E402

from dearlite import UsageError  # noqa: E402
from dearlite.integrations.rerankers import DearliteRanker  # noqa: E402


def rows(results):
    return [(result.doc_id, result.rank, result.score) for result in results]


def test_results_have_ids_ranks_and_scores(reranker, relevance):
    ranker = DearliteRanker(reranker)
    results = ranker.rank(QUERY, TEXTS)
    assert rows(results) == [(index, rank, relevance[TEXTS[index]]) for rank, index in enumerate(ORDER, start=1)]
    assert (results.query, results.has_scores) == (QUERY, True)
    assert results.top_k(4) == results.results
    assert rows(asyncio.run(ranker.rank_async(QUERY, TEXTS))) == rows(results)
    assert rows(ranker.rank(QUERY, [])) == []
    assert rows(ranker.rank(QUERY, TEXTS[1])) == [(0, 1, relevance[TEXTS[1]])]


def test_documents_are_copied_with_ids_and_metadata(reranker):
    documents = [
        rerankers.Document(text, doc_id=f"d{index}", metadata={"page": index}) for index, text in enumerate(TEXTS)
    ]
    before = [dict(vars(document)) for document in documents]
    results = DearliteRanker(reranker).rank(QUERY, documents)
    assert [(result.doc_id, result.metadata) for result in results] == [
        (f"d{index}", {"page": index}) for index in ORDER
    ]
    results[0].document.metadata["page"] = "changed"
    assert results[0].document is not documents[1]
    renamed = DearliteRanker(reranker).rank(QUERY, documents, doc_ids=list("abcd"), metadata=[{}] * 4)
    assert [(result.doc_id, result.metadata) for result in renamed] == [("abcd"[index], {}) for index in ORDER]
    assert [dict(vars(document)) for document in documents] == before
    with pytest.raises(UsageError, match="doc_ids has 2 values for 4 documents"):
        DearliteRanker(reranker).rank(QUERY, documents, doc_ids=[1, 2])


def test_the_score_of_one_document(reranker, relevance, logits):
    assert DearliteRanker(reranker).score(QUERY, TEXTS[1]) == relevance[TEXTS[1]]
    assert DearliteRanker(reranker, raw_scores=True).score(QUERY, TEXTS[1]) == logits[TEXTS[1]]


def test_as_a_langchain_compressor(reranker):
    pytest.importorskip("langchain", reason="langchain is not installed")
    from langchain_core.documents import Document

    compressor = DearliteRanker(reranker).as_langchain_compressor(k=2)
    ranked = compressor.compress_documents([Document(text) for text in TEXTS], QUERY)
    assert [document.page_content for document in ranked] == [TEXTS[index] for index in ORDER[:2]]
