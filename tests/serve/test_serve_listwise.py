"""Cascades and listwise models over HTTP."""

import json
from dataclasses import replace

import pytest
from tiny_gguf import write_tiny

from dearlite import Listwise
from dearlite.models.chain import resolve
from dearlite.options import LISTWISE_MODES
from dearlite.serve.models import serve_model

DOCS = [f"document {n} about bulbs" for n in range(6)]
BODY = {"query": "Who invented the bulb?", "documents": DOCS}


@pytest.fixture(scope="module")
def listwise(tmp_path_factory):
    path = write_tiny(tmp_path_factory.mktemp("tiny") / "list.gguf")
    return serve_model(resolve(path), {"threads": 1}, name="list")


def test_a_listwise_models_scores_are_shares_of_ranks(serve, tiny, listwise):
    client = serve(tiny, listwise)
    answer = client.post("/v1/rerank", json={**BODY, "model": "list", "mode": "first"}).json()
    order = [hit.index for hit in listwise.reranker.rerank(BODY["query"], DOCS, listwise=Listwise(mode="first"))]
    assert answer["model"] == "list"
    assert [row["index"] for row in answer["results"]] == order
    assert [row["relevance_score"] for row in answer["results"]] == pytest.approx(
        [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    )
    assert client.post("/v1/rerank", json={**BODY, "model": "other"}).json()["model"] == "tiny"
    response = client.post("/score", json={"model": "list", "text_1": "a", "text_2": "b"})
    assert response.status_code == 400
    assert "send the request to /rerank" in response.json()["message"]


def test_reasoning_is_streamed(serve, listwise):
    body = {**BODY, "explain": True, "reasoning_tokens": 8}
    with serve(listwise).stream("POST", "/rerank", json=body, headers={"accept": "text/event-stream"}) as response:
        events = [part.partition("\ndata: ") for part in response.read().decode().strip().split("\n\n")]
    texts = [json.loads(data)["text"] for name, _, data in events if name == "event: text"]
    answer = json.loads(events[-1][2])
    assert len(texts) > 1
    assert "".join(texts).strip() == "".join(answer["meta"]["dearlite"]["reasoning"])


def test_a_cascade_reports_its_stages(serve, tiny_bundle, listwise, tmp_path_factory):
    path = listwise.reranker.recipe.model
    cascade = serve_model(resolve([tiny_bundle, (path, 3)]), {"threads": 1}, listwise=Listwise(mode="first"))
    assert cascade.name == "tiny>list"
    assert not cascade.shares
    answer = serve(cascade).post("/v1/rerank", json={**BODY, "top_n": 4}).json()
    ranking = cascade.reranker.rerank(BODY["query"], DOCS, listwise=Listwise(mode="first"))
    assert [row["index"] for row in answer["results"]] == [hit.index for hit in ranking][:4]
    scores = [row["relevance_score"] for row in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert [stage["model"] for stage in answer["meta"]["dearlite"]["stages"]] == ["tiny", "list"]
    long = serve(cascade).post("/v1/rerank", json={**BODY, "documents": ["bulb " * 600, "b"], "long": "cascade"}).json()
    assert long["meta"]["warnings"] == []
    assert all(len(row["passages"]) == 1 for row in long["results"])


def test_reasoning_of_a_form_that_the_file_names_is_streamed_without_an_option(serve, tmp_path):
    named = {"dearlite.schema": 1, "dearlite.kind": "listwise", "dearlite.prompt": "rank1"}
    model = serve_model(resolve(write_tiny(tmp_path / "rank1.gguf", extra=named)), {"threads": 1})
    body = {"query": "bulb", "documents": ["Edison"]}
    with serve(model).stream("POST", "/rerank", json=body, headers={"accept": "text/event-stream"}) as response:
        assert "event: text" in response.read().decode()


def test_a_request_of_another_mode_leaves_the_servers_own_options_of_its_mode_out(serve, listwise):
    own = Listwise(mode="setwise", group_size=3, sort="bubble", sort_k=2, shuffle_seed=1)
    client = serve(replace(listwise, listwise=own))
    for request, alike in (
        ({"mode": "permute"}, Listwise(mode="permute")),
        ({"mode": "pairwise"}, Listwise(mode="pairwise", sort_k=2)),
        ({"sort": "heap"}, replace(own, sort="heap")),
        ({"explain": True, "reasoning_tokens": 4}, Listwise(mode="reason", reasoning_tokens=4)),
    ):
        rows = client.post("/v1/rerank", json=BODY | request).json()["results"]
        order = [hit.index for hit in listwise.reranker.rerank(BODY["query"], DOCS, listwise=alike)]
        assert [row["index"] for row in rows] == order, request
    refused = client.post("/v1/rerank", json=BODY | {"mode": "permute", "sort_k": 2})
    assert "sort_k is 2, and mode permute compares no groups" in refused.json()["message"]
    windows = serve(replace(listwise, listwise=Listwise(mode="reason", window=4, reasoning_tokens=4)))
    for mode in LISTWISE_MODES:
        answer = windows.post("/v1/rerank", json=BODY | {"mode": mode})
        assert len(answer.json()["results"]) == len(DOCS), mode
