"""The lines of docs/integrations.md that set up a framework run as they stand, in a program that has the rest."""

import re
from pathlib import Path

import pytest
from integrations.conftest import QUERY, TEXTS

PAGE = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text(encoding="utf-8")
FRAMEWORKS = ("LangChain", "LlamaIndex", "Haystack", "LanceDB", "txtai", "rerankers")


def run(framework, **names):
    """The names that the framework's block leaves, run with `names`."""
    block = re.search(rf"^## {framework}\n\n```python\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    exec(block[1], names)
    return names


def test_every_framework_of_the_page_is_here():
    assert re.findall(r"^\| \[(\w+)\]\(#", PAGE, re.MULTILINE) == list(FRAMEWORKS)
    assert all(f"def test_{name.lower()}(" in Path(__file__).read_text(encoding="utf-8") for name in FRAMEWORKS)


def test_langchain():
    pytest.importorskip("langchain_classic", reason="langchain-classic is not installed")
    from langchain_core.embeddings import DeterministicFakeEmbedding
    from langchain_core.vectorstores import InMemoryVectorStore

    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=4))
    store.add_texts(TEXTS)
    assert run("LangChain", retriever=store.as_retriever())["reranked"].invoke(QUERY)[0].page_content == TEXTS[1]


def test_llamaindex(monkeypatch):
    core = pytest.importorskip("llama_index.core", reason="llama-index-core is not installed")
    from llama_index.core.llms import MockLLM
    from llama_index.core.schema import TextNode

    monkeypatch.setattr(core.Settings, "_llm", MockLLM())
    index = core.VectorStoreIndex([TextNode(text=text) for text in TEXTS], embed_model=core.MockEmbedding(4))
    assert run("LlamaIndex", index=index)["engine"].query(QUERY).source_nodes[0].text == TEXTS[1]


def test_haystack():
    haystack = pytest.importorskip("haystack", reason="haystack-ai is not installed")
    from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    store, pipeline = InMemoryDocumentStore(), haystack.Pipeline()
    store.write_documents([haystack.Document(content=text) for text in TEXTS[:3]])
    pipeline.add_component("retriever", InMemoryBM25Retriever(document_store=store))
    run("Haystack", pipeline=pipeline)
    result = pipeline.run({name: {"query": QUERY} for name in ("retriever", "ranker")})
    assert result["ranker"]["documents"][0].content == TEXTS[1]


def test_lancedb(tmp_path):
    lancedb = pytest.importorskip("lancedb", reason="lancedb is not installed")
    from lancedb.index import FTS

    table = lancedb.connect(tmp_path).create_table("documents", [{"text": text} for text in TEXTS])
    table.create_index("text", config=FTS())
    assert run("LanceDB", table=table, query=QUERY)["rows"]["text"].to_pylist()[0] == TEXTS[1]


def test_txtai():
    txtai = pytest.importorskip("txtai", reason="txtai is not installed")
    embeddings = txtai.Embeddings(keyword=True, content=True)
    embeddings.index(enumerate(TEXTS))
    assert run("txtai", embeddings=embeddings)["search"]("light bulb")[0]["text"] == TEXTS[1]


def test_rerankers():
    pytest.importorskip("rerankers", reason="rerankers is not installed")
    assert run("rerankers", query="light bulb")["results"][0].doc_id == "b"
