"""LangChain: the compressor, alone and in its retrievers."""

import asyncio
import copy
import pickle

import pytest

langchain_core = pytest.importorskip("langchain_core", reason="langchain-core is not installed")

from integrations.conftest import ORDER, QUERY, TEXTS  # noqa: E402
from langchain_core.documents import Document  # noqa: E402

from dearlite import UsageError  # noqa: E402
from dearlite.integrations.langchain import DearliteReranker  # noqa: E402


@pytest.fixture(scope="module")
def documents():
    return [Document(text, id=f"d{index}", metadata={"page": index}) for index, text in enumerate(TEXTS)]


def test_copies_by_relevance_with_ids_and_metadata(reranker, documents, relevance):
    before = copy.deepcopy(documents)
    ranked = DearliteReranker(model=reranker).compress_documents(documents, QUERY)
    assert [document.id for document in ranked] == [f"d{index}" for index in ORDER]
    assert [document.metadata for document in ranked] == [
        {"page": index, "relevance_score": relevance[TEXTS[index]]} for index in ORDER
    ]
    assert documents == before


def test_top_n_logits_and_async(reranker, documents, logits):
    compressor = DearliteReranker(model=reranker, top_n=2, raw_scores=True)
    ranked = compressor.compress_documents(documents, QUERY)
    assert [document.metadata["relevance_score"] for document in ranked] == [
        logits[TEXTS[index]] for index in ORDER[:2]
    ]
    assert asyncio.run(compressor.acompress_documents(documents, QUERY)) == ranked
    assert compressor.compress_documents([], QUERY) == []


def test_wrong_options_are_refused_when_it_is_made(reranker, documents):
    with pytest.raises(UsageError, match=r"^no model 'minilm'"):
        DearliteReranker(model="minilm")
    with pytest.raises(ValueError, match="topn"):
        DearliteReranker(model=reranker, topn=2)
    with pytest.raises(UsageError, match="top_k is 0"):
        DearliteReranker(model=reranker, top_n=0).compress_documents(documents, QUERY)


def test_it_is_pickled_with_its_model(reranker, documents):
    compressor = pickle.loads(pickle.dumps(DearliteReranker(model=reranker, top_n=1)))
    assert [document.id for document in compressor.compress_documents(documents, QUERY)] == ["d1"]


def vector_store(documents):
    from langchain_core.embeddings import DeterministicFakeEmbedding
    from langchain_core.vectorstores import InMemoryVectorStore

    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
    store.add_documents(documents)
    return store.as_retriever(search_kwargs={"k": 4})


def test_after_a_retriever_in_a_chain(reranker, documents):
    from langchain_core.runnables import RunnableLambda

    retriever, compressor = vector_store(documents), DearliteReranker(model=reranker, top_n=2)
    chain = RunnableLambda(
        lambda query: compressor.compress_documents(retriever.invoke(query), query),
        afunc=lambda query: _found(retriever, compressor, query),
    )
    expected = [TEXTS[index] for index in ORDER[:2]]
    assert [document.page_content for document in chain.invoke(QUERY)] == expected
    assert [document.page_content for document in asyncio.run(chain.ainvoke(QUERY))] == expected


async def _found(retriever, compressor, query):
    return await compressor.acompress_documents(await retriever.ainvoke(query), query)


def test_in_a_contextual_compression_retriever(reranker, documents):
    retrievers = pytest.importorskip("langchain_classic.retrievers", reason="langchain-classic is not installed")
    retriever = retrievers.ContextualCompressionRetriever(
        base_compressor=DearliteReranker(model=reranker, top_n=2), base_retriever=vector_store(documents)
    )
    expected = [TEXTS[index] for index in ORDER[:2]]
    assert [document.page_content for document in retriever.invoke(QUERY)] == expected
    assert [document.page_content for document in asyncio.run(retriever.ainvoke(QUERY))] == expected
