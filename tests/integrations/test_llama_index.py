"""LlamaIndex: the node postprocessor, alone and in a query engine."""

import asyncio
import copy

import pytest

pytest.importorskip("llama_index.core", reason="llama-index-core is not installed")

from integrations.conftest import ORDER, QUERY, TEXTS
from llama_index.core.schema import NodeWithScore, TextNode

from dearlite import UsageError
from dearlite.integrations.llama_index import DearliteRerank


@pytest.fixture(scope="module")
def nodes():
    return [NodeWithScore(node=TextNode(text=text, id_=f"n{index}"), score=0.5) for index, text in enumerate(TEXTS)]


def test_new_records_around_the_same_nodes(reranker, nodes, relevance):
    before = copy.deepcopy(nodes)
    ranked = DearliteRerank(model=reranker).postprocess_nodes(nodes, query_str=QUERY)
    assert [(item.node.node_id, item.score) for item in ranked] == [
        (f"n{index}", relevance[TEXTS[index]]) for index in ORDER
    ]
    assert all(item.node is nodes[index].node for item, index in zip(ranked, ORDER, strict=True))
    assert nodes == before


def test_top_n_logits_and_async(reranker, nodes, logits):
    postprocessor = DearliteRerank(model=reranker, top_n=2, raw_scores=True)
    ranked = postprocessor.postprocess_nodes(nodes, query_str=QUERY)
    assert [item.score for item in ranked] == [logits[TEXTS[index]] for index in ORDER[:2]]
    assert asyncio.run(postprocessor.apostprocess_nodes(nodes, query_str=QUERY)) == ranked


def test_the_metadata_that_a_node_shows_to_embeddings_is_read(reranker):
    """As LlamaIndex's own rerankers do."""
    bare = TextNode(text="He did it in 1879", metadata={"person": "Edison, inventor of the light bulb"})
    hidden = TextNode(text=bare.text, metadata=bare.metadata, excluded_embed_metadata_keys=["person"])
    nodes = [NodeWithScore(node=hidden), NodeWithScore(node=bare)]
    ranked = DearliteRerank(model=reranker).postprocess_nodes(nodes, query_str=QUERY)
    assert [item.node for item in ranked] == [bare, hidden]
    assert ranked[0].score > ranked[1].score


def test_a_call_without_a_query_is_refused(reranker, nodes):
    with pytest.raises(UsageError, match="a reranker needs the query"):
        DearliteRerank(model=reranker).postprocess_nodes(nodes)


def test_wrong_options_are_refused_when_it_is_made(reranker):
    with pytest.raises(UsageError, match=r"^no model 'minilm'"):
        DearliteRerank(model="minilm")
    with pytest.raises(ValueError, match="top_k"):
        DearliteRerank(model=reranker, top_k=2)


def test_it_is_serialised_by_its_options(reranker, nodes):
    postprocessor = DearliteRerank(model="minilm-l12", top_n=1, threads=1)
    again = DearliteRerank.from_dict(postprocessor.to_dict())
    assert (again.model, again.top_n, again.threads) == ("minilm-l12", 1, 1)
    assert again.postprocess_nodes(nodes, query_str=QUERY)[0].node is nodes[1].node
    assert DearliteRerank(model=reranker).to_dict()["model"] == "minilm-l12"


def test_instrumentation_sees_the_start_and_the_end(reranker, nodes):
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.event_handlers import BaseEventHandler

    events = []

    class Handler(BaseEventHandler):
        def handle(self, event, **_):
            events.append(event)

    root, handler = get_dispatcher(), Handler()
    root.add_event_handler(handler)
    try:
        DearliteRerank(model=reranker, top_n=2).postprocess_nodes(nodes, query_str=QUERY)
    finally:
        root.event_handlers.remove(handler)
    start, end = (event for event in events if event.class_name().startswith("ReRank"))
    assert (start.model_name, start.top_n, len(start.nodes)) == ("minilm-l12", 2, 4)
    assert [item.node.node_id for item in end.nodes] == ["n1", "n2"]


def test_in_a_query_engine(reranker):
    from llama_index.core import MockEmbedding, VectorStoreIndex
    from llama_index.core.llms import MockLLM

    index = VectorStoreIndex([TextNode(text=text) for text in TEXTS], embed_model=MockEmbedding(embed_dim=4))
    engine = index.as_query_engine(
        similarity_top_k=4, llm=MockLLM(), node_postprocessors=[DearliteRerank(model=reranker, top_n=2)]
    )
    expected = [TEXTS[index] for index in ORDER[:2]]
    assert [item.text for item in engine.query(QUERY).source_nodes] == expected
    assert [item.text for item in asyncio.run(engine.aquery(QUERY)).source_nodes] == expected
