"""Haystack: the ranker, alone and in a pipeline."""

import asyncio
import copy

import pytest

haystack = pytest.importorskip("haystack", reason="haystack-ai is not installed")

from integrations.conftest import ORDER, QUERY, TEXTS  # noqa: E402

from dearlite import DearliteWarning, UsageError  # noqa: E402
from dearlite.integrations.haystack import DearliteRanker  # noqa: E402


@pytest.fixture(scope="module")
def documents():
    return [
        haystack.Document(id=f"d{index}", content=text, meta={"page": index}, score=0.5)
        for index, text in enumerate(TEXTS)
    ]


def test_copies_by_relevance_with_ids_and_meta(reranker, documents, relevance):
    before = copy.deepcopy(documents)
    ranked = DearliteRanker(reranker).run(QUERY, documents)["documents"]
    assert [(document.id, document.meta["page"], document.score) for document in ranked] == [
        (f"d{index}", index, relevance[TEXTS[index]]) for index in ORDER
    ]
    assert documents == before


def test_top_k_of_the_call_logits_and_async(reranker, documents, logits):
    ranker = DearliteRanker(reranker, top_k=3, raw_scores=True)
    assert len(ranker.run(QUERY, documents)["documents"]) == 3
    ranked = ranker.run(QUERY, documents, top_k=2)
    assert [document.score for document in ranked["documents"]] == [logits[TEXTS[index]] for index in ORDER[:2]]
    assert asyncio.run(ranker.run_async(QUERY, documents, top_k=2)) == ranked


def test_meta_fields_are_read_before_the_content(reranker):
    documents = [
        haystack.Document(content="in 1879"),
        haystack.Document(content="in 1879", meta={"title": "Edison invented the light bulb"}),
    ]
    plain = DearliteRanker(reranker).run(QUERY, documents)["documents"]
    titled = DearliteRanker(reranker, meta_fields_to_embed=["title"]).run(QUERY, documents)["documents"]
    assert plain == [documents[0], documents[1]] or plain[0].score == plain[1].score
    assert titled[0].meta == documents[1].meta
    assert titled[0].score > titled[1].score


def test_a_document_without_content_comes_last(reranker, documents):
    image = haystack.Document(id="image", content=None)
    with pytest.warns(DearliteWarning, match="document 0 is empty"):
        ranked = DearliteRanker(reranker).run(QUERY, [image, *documents])["documents"]
    assert (ranked[-1].id, ranked[-1].score) == ("image", 0.0)


def test_it_is_serialised_by_its_options(reranker):
    options = {
        "model": "minilm-l12",
        "top_k": 2,
        "device": "cpu",
        "threads": 1,
        "instruction": None,
        "meta_fields_to_embed": ["title"],
        "embedding_separator": " ",
        "raw_scores": True,
    }
    ranker = DearliteRanker(options["model"], **{name: value for name, value in options.items() if name != "model"})
    data = ranker.to_dict()
    assert data == {"type": "dearlite.integrations.haystack.DearliteRanker", "init_parameters": options}
    assert DearliteRanker.from_dict(data).to_dict() == data
    with pytest.raises(UsageError, match="minilm-l12 is a loaded model, which is not serialised"):
        DearliteRanker(reranker).to_dict()


def test_closing_releases_its_own_model_and_not_a_lent_one(reranker, documents):
    lent, own = DearliteRanker(reranker), DearliteRanker(threads=1)
    lent.warm_up()
    lent.close()
    assert len(reranker.rerank(QUERY, TEXTS)) == 4
    own.warm_up()
    loaded = own._reranker
    asyncio.run(own.close_async())
    with pytest.raises(UsageError, match="was closed"):
        loaded.rerank(QUERY, TEXTS)
    assert len(own.run(QUERY, documents)["documents"]) == 4


def test_in_a_pipeline_that_was_written_and_read(documents):
    from haystack import Pipeline
    from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    store = InMemoryDocumentStore()
    store.write_documents(documents)
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(document_store=store, top_k=4))
    pipeline.add_component("ranker", DearliteRanker(top_k=2, threads=1))
    pipeline.connect("retriever", "ranker")
    inputs = {"retriever": {"query": QUERY}, "ranker": {"query": QUERY}}
    expected = [f"d{index}" for index in ORDER[:2]]
    for result in (pipeline.run(inputs), asyncio.run(pipeline.run_async(inputs))):
        assert [document.id for document in result["ranker"]["documents"]] == expected
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["dearlite.integrations.haystack"]).get_component("ranker")
    assert again.to_dict() == pipeline.get_component("ranker").to_dict()
