"""Released clients against a running server; each is skipped where its package is not installed."""

import json
import subprocess
import sys

import pytest
from waiting import WITHIN_S

pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra serve)")

QUERY = "Who invented the light bulb?"
DOCS = ["Coffee is a drink", "Edison's light bulb of 1879", "The bulb of a tulip"]
BEST = (1, DOCS[1])


@pytest.fixture(scope="module")
def url(embedded_path):
    """A running server of the embedded model."""
    command = [sys.executable, "-m", "dearlite", "serve", "--port", "0", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()
            assert process.wait(WITHIN_S) == 0


def test_cohere_sdk(url):
    cohere = pytest.importorskip("cohere")
    answer = cohere.ClientV2(api_key="any", base_url=url).rerank(model="any", query=QUERY, documents=DOCS, top_n=2)
    assert [row.index for row in answer.results] == [1, 2]
    assert answer.results[0].relevance_score > 0.5
    assert answer.meta.warnings == []
    old = cohere.Client(api_key="any", base_url=url)
    records = [{"text": text} for text in DOCS]
    answer = old.rerank(model="any", query=QUERY, documents=records, top_n=1, return_documents=True)
    assert [(row.index, row.document.text) for row in answer.results] == [BEST]
    with pytest.raises(cohere.BadRequestError) as refused:
        old.rerank(model="any", query=QUERY, documents=[])
    assert refused.value.body["message"] == "documents is empty: send at least one document"


def test_voyage_sdk(url):
    voyageai = pytest.importorskip("voyageai")
    answer = voyageai.Client(api_key="any", base_url=url).rerank(QUERY, DOCS, model="rerank-2.5", top_k=1)
    assert [(row.index, row.document) for row in answer.results] == [BEST]
    assert answer.total_tokens > 0


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("hosted_vllm/m", ""),
        ("infinity/m", "/infinity"),
        ("cohere/rerank-v3.5", ""),
        ("jina_ai/m", ""),
        ("huggingface/m", ""),
        ("voyage/rerank-2", ""),
    ],
)
def test_litellm(url, model, path, monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it asks a host for prices otherwise
    litellm = pytest.importorskip("litellm")
    answer = litellm.rerank(
        model=model, query=QUERY, documents=DOCS, top_n=1, return_documents=True, api_base=url + path, api_key="any"
    )
    (row,) = answer.results
    assert (row["index"], row["document"]["text"]) == BEST
    assert row["relevance_score"] > 0.5


def test_langchain_cohere_rerank(url):
    compressors = pytest.importorskip("langchain_cohere")
    from langchain_core.documents import Document

    compressor = compressors.CohereRerank(model="any", base_url=url, cohere_api_key="any", top_n=1)
    (document,) = compressor.compress_documents([Document(page_content=text) for text in DOCS], QUERY)
    assert document.page_content == DOCS[1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_langchain_jina_rerank(url, monkeypatch):
    jina = pytest.importorskip("langchain_community.document_compressors.jina_rerank")
    from langchain_core.documents import Document

    monkeypatch.setattr(jina, "JINA_API_URL", f"{url}/v1/rerank")  # it has no option for it
    compressor = jina.JinaRerank(jina_api_key="any", top_n=1)
    (document,) = compressor.compress_documents([Document(page_content=text) for text in DOCS], QUERY)
    assert document.page_content == DOCS[1]
