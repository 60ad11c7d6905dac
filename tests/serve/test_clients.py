"""The request that each client sends, as recorded from its release, and the parts of the answer that it reads."""

import pytest

from dearlite.serve.access import PAGE_PATHS

QUERY = "Who invented the light bulb?"
DOCS = ["Coffee is a drink", "Edison's light bulb of 1879", "The bulb of a tulip"]


@pytest.fixture(scope="module")
def order(tiny):
    return [hit.index for hit in tiny.reranker.rerank(QUERY, DOCS)]


def post(client, path, body, **headers):
    response = client.post(path, json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


def indices(rows):
    return [row["index"] for row in rows]


def test_open_webui(client, order):
    body = {"model": "reranker", "query": QUERY, "documents": DOCS, "top_n": len(DOCS)}
    answer = post(client, "/v1/rerank", body, authorization="Bearer sk-any", **{"X-OpenWebUI-User-Name": "ann"})
    by_index = sorted(answer["results"], key=lambda row: row["index"])  # as it does: every document must be there
    scores = [row["relevance_score"] for row in by_index]
    assert indices(by_index) == [0, 1, 2]
    assert sorted(range(3), key=lambda index: -scores[index]) == order
    assert all(0 <= score <= 1 for score in scores)


def test_dify_plugin(client, order):
    body = {"model": "rerank", "query": QUERY, "documents": DOCS, "top_n": 3}
    for row in post(client, "/rerank", body)["results"]:
        assert {"index", "relevance_score"} <= set(row)


def test_dify_sdk(client, order):
    body = {"model": "rerank", "query": QUERY, "documents": DOCS, "top_n": 3, "return_documents": True}
    results = post(client, "/rerank", body)["results"]
    assert [row["document"]["text"] for row in results] == [DOCS[index] for index in order]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/rerank", {"model": "hosted", "query": QUERY, "documents": DOCS, "top_n": 2, "return_documents": True}),
        ("/v1/rerank", {"model": "jina-reranker-v2", "query": QUERY, "documents": DOCS, "top_n": 2}),
        (
            "/v2/rerank",
            {"model": "rerank-v3.5", "query": QUERY, "documents": DOCS, "top_n": 2, "max_tokens_per_doc": 9},
        ),
    ],
    ids=["hosted_vllm", "jina_ai", "cohere"],
)
def test_litellm(client, order, path, body):
    answer = post(client, path, body)
    assert indices(answer["results"]) == order[:2]
    assert answer["id"] and answer["usage"]["total_tokens"] > 0
    if path != "/v2/rerank":
        assert [row["document"]["text"] for row in answer["results"]] == [DOCS[index] for index in order[:2]]


def test_litellm_huggingface_and_continue_tei(client, order):
    info = client.get("/info").json()
    assert info["model_id"] == "tiny"
    assert "reranker" in info["model_type"]
    body = {
        "query": QUERY,
        "return_text": False,
        "raw_scores": False,
        "texts": DOCS,
        "truncation_direction": "Right",
        "truncate": True,
    }
    rows = post(client, "/rerank", body)
    assert indices(rows) == order
    assert all(set(row) == {"index", "score"} for row in rows)


def test_continue_openai_like(client, order):
    answer = post(client, "/rerank", {"model": "any", "query": QUERY, "documents": DOCS})
    scores = {row["index"]: row["relevance_score"] for row in answer["data"]}
    assert sorted(scores, key=lambda index: -scores[index]) == order


def test_librechat_jina(client, order):
    body = {
        "model": "jina-reranker-v2-base-multilingual",
        "query": QUERY,
        "top_n": 2,
        "documents": DOCS,
        "return_documents": True,
    }
    results = post(client, "/v1/rerank", body)["results"]
    assert [row["document"]["text"] for row in results] == [DOCS[index] for index in order[:2]]


def test_librechat_cohere_and_langchain_cohere_rerank(client, order):
    answer = post(client, "/v2/rerank", {"model": "rerank-v3.5", "query": QUERY, "top_n": 2, "documents": DOCS})
    assert indices(answer["results"]) == order[:2]
    assert all(set(row) == {"index", "relevance_score"} for row in answer["results"])
    assert answer["meta"]["api_version"]["version"] == "2"


def test_vercel_ai_sdk_sends_records_as_documents(client, order):
    records = [{"text": text, "page": page} for page, text in enumerate(DOCS)]
    body = {"model": "rerank-v3.5", "query": QUERY, "documents": records, "top_n": 1, "return_documents": True}
    (row,) = post(client, "/v2/rerank", body)["results"]
    assert row["document"] == records[order[0]]


def test_cohere_v1_ranks_the_named_fields(client, tiny):
    records = [{"title": "Edison", "year": "1879"}, {"title": "Coffee", "year": "800"}]
    body = {"query": QUERY, "documents": records, "rank_fields": ["title", "year"], "return_documents": False}
    texts = ["Edison\n1879", "Coffee\n800"]
    assert indices(post(client, "/v1/rerank", body)["results"]) == [
        hit.index for hit in tiny.reranker.rerank(QUERY, texts)
    ]


def test_vllm_rerank_and_score(client, tiny, order):
    answer = post(client, "/v1/rerank", {"query": QUERY, "documents": DOCS, "top_n": 0, "truncate_prompt_tokens": 64})
    assert indices(answer["results"]) == order
    assert "'truncate_prompt_tokens'" in answer["meta"]["warnings"][0]
    scores = {hit.index: hit.score for hit in tiny.reranker.rerank(QUERY, DOCS)}
    for body in (
        {"text_1": QUERY, "text_2": DOCS},
        {"queries": QUERY, "documents": DOCS},
        {"queries": [QUERY] * 3, "items": DOCS},
        {"data_1": QUERY, "data_2": DOCS},
    ):
        rows = post(client, "/v1/score", {"model": "m", "raw_scores": True, **body})["data"]
        assert [(row["index"], row["score"]) for row in rows] == sorted(scores.items())
    rows = post(client, "/score", {"text_1": ["bulb", "coffee"], "text_2": DOCS[:2], "use_activation": False})["data"]
    assert [row["score"] for row in rows] == tiny.reranker.score([("bulb", DOCS[0]), ("coffee", DOCS[1])])


def test_infinity_and_llama_cpp(client, tiny, order):
    body = {"query": QUERY, "documents": DOCS, "return_documents": False, "raw_scores": True, "model": "default"}
    answer = post(client, "/rerank", body)
    logits = [hit.score for hit in tiny.reranker.rerank(QUERY, DOCS)]
    assert [row["relevance_score"] for row in answer["results"]] == logits
    assert answer["object"] == "list"
    for path in ("/reranking", "/v1/reranking"):
        results = post(client, path, {"model": "m", "query": QUERY, "documents": DOCS, "top_n": 2})["results"]
        assert indices(results) == order[:2]
        assert all("document" not in row for row in results)


def test_litellm_infinity_reads_documents_as_strings(client, order):
    body = {"model": "infinity", "query": QUERY, "documents": DOCS, "top_n": 2, "return_documents": True}
    results = post(client, "/infinity/rerank", body)["results"]
    assert [row["document"] for row in results] == [DOCS[index] for index in order[:2]]


def test_voyage(client, order):
    body = {"query": QUERY, "documents": DOCS, "model": "rerank-2.5", "top_k": 2, "truncation": True}
    answer = post(client, "/rerank", {**body, "return_documents": True})
    assert [(row["index"], row["document"]) for row in answer["data"]] == [(index, DOCS[index]) for index in order[:2]]
    assert answer["object"] == "list"
    assert answer["usage"]["total_tokens"] > 0
    assert all("document" not in row for row in post(client, "/rerank", body)["data"])


def test_models_and_openapi(client):
    names = [row["id"] for path in ("/models", "/v1/models") for row in client.get(path).json()["data"]]
    assert names == ["tiny", "tiny"]
    described = client.get("/openapi.json").json()["paths"]
    routes = {route.path for route in client.app.routes}
    assert set(described) == routes - set(PAGE_PATHS)
