"""Bad input to the server: one clear sentence in a body that every family of clients reads, and never a 5xx."""

import gzip
import json
from dataclasses import replace

import pytest

from dearlite.errors import UsageError
from dearlite.options import Listwise
from dearlite.serve.access import Access, allowed_hosts, allowed_origins, host_name, read_keys
from dearlite.serve.limits import Limits

GOOD = {"query": "bulb", "documents": ["Edison"]}


def refusal(response, status):
    """The message of a refusal, which each family of clients finds in its own field."""
    assert response.status_code == status, response.text
    body = response.json()
    message = body["message"]
    assert body["detail"] == body["error"]["message"] == message
    assert body["error"]["code"] == status
    assert body["error"]["type"]
    assert body["error_type"] in {"Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"}
    assert "\n" not in message
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[1]", "the body is a list"),
        (b'"text"', "the body is a string"),
        (b"null", "the body is null"),
        (b'{"query": "a", "documents": [NaN]}', "NaN"),
        (b'{"query": "a", "documents": ["b"], "budget_ms": -Infinity}', "-Infinity"),
        (b'{"query": "a", "documents": ["b"], "budget_ms": 1e999}', "out of range"),
        (b'{"query": "a", "documents": ["b"], "top_n": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b'{"query": "a", "documents": [{"text": "b", "n": 1e999}]}', "1e999, which is out of range"),
        (b'{"query": "a", "query": "b", "documents": ["c"]}', "the field 'query' twice with different values"),
        (b'{"query": "a\xff", "documents": ["b"]}', "not UTF-8 (byte 0xff at 12)"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"query": "a", "documents": ' + b'{"text":' * 100_000, "nested too deeply"),
    ],
)
def test_a_body_that_is_no_json_object(client, body, reason):
    assert reason in refusal(client.post("/v1/rerank", content=body), 400)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"query": None}, "query is missing"),
        ({"query": 5}, "query is a number: it must be a string"),
        ({"query": "  "}, "the query is empty or only spaces"),
        ({"documents": None}, "documents is missing"),
        ({"documents": []}, "documents is empty"),
        ({"documents": "Edison"}, "documents is a string"),
        ({"documents": {"text": "a"}}, "documents is an object"),
        ({"documents": ["a", 7]}, "document 1 is a number: it must be a string or an object with a text"),
        ({"documents": ["a", None]}, "document 1 is null"),
        ({"documents": ["a", ["b"]]}, "document 1 is a list"),
        ({"documents": [{"image": "data:"}]}, "document 0 has no text (it has 'image'): send it in the field text, or"),
        ({"documents": [{}]}, "document 0 has no text (it has no field): send it in"),
        ({"documents": [{"text": None, "n": 1}]}, "document 0 has no text (it has 'text', 'n'): send it in"),
        ({"documents": [{"text": 5}]}, "document 0 has a number as its text: it must be a string"),
        ({"documents": [{"contents": ["a"]}]}, "document 0 has a list as its contents: it must be a string"),
        ({"documents": ["", " ", {"text": "\u200b"}]}, "every document is empty"),
        ({"top_n": -1}, "top_n is -1: it must be a whole number from 0"),
        ({"top_n": 1.5}, "top_n is 1.5"),
        ({"top_n": "5"}, "top_n is a string: it must be a number"),
        ({"top_n": True}, "top_n is true or false: it must be a number"),
        ({"top_n": 10**30}, "top_n is out of range"),
        ({"return_documents": "yes"}, "return_documents is a string: it must be true or false"),
        ({"model": 5}, "model is a number: it must be a string"),
        ({"budget_ms": 0}, "budget_ms is 0"),
        ({"long": "fold"}, "no long mode 'fold'"),
        ({"long": {"mode": "chunk", "size": 5}}, "long has no field 'size'"),
        ({"long": "cascade"}, "needs a stage before it"),
        ({"mode": "permute"}, "pointwise model"),
        ({"window": 0}, "window is 0"),
        ({"rank_fields": "title"}, "rank_fields must be a list of strings"),
        ({"rank_fields": [5]}, "rank_fields must be a list of strings"),
    ],
)
def test_a_field_that_cannot_be_read(client, changes, reason):
    assert reason in refusal(client.post("/rerank", json={**GOOD, **changes}), 400)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "text_1 is missing"),
        ({"text_1": "a"}, "text_2 is missing"),
        ({"text_1": ["a", "b"], "text_2": ["c"]}, "text_1 has 2 texts and text_2 1"),
        ({"text_1": [], "text_2": ["c"]}, "text_1 is empty"),
        ({"text_1": [5], "text_2": ["c"]}, "query 0 is a number: it must be a string"),
        ({"text_1": [{"x": "a"}], "text_2": ["c"]}, "query 0 is an object: it must be a string"),
        ({"text_1": "a", "text_2": [5]}, "document 0 is a number: it must be a string"),
        ({"text_1": "a", "text_2": ["b"], "mode": "reason"}, "pointwise model"),
        ({"text_1": "a", "text_2": [{}]}, "document 0 has no text"),
        ({"text_1": "a", "text_2": ["b", ""]}, "document 1 is empty"),
    ],
)
def test_pairs_that_cannot_be_read(client, body, reason):
    assert reason in refusal(client.post("/score", json=body), 400)


def test_the_limits(serve):
    client = serve(limits=Limits(body_bytes=100_000, documents=3))
    assert "4 documents are more than the 3" in refusal(
        client.post("/rerank", json={**GOOD, "documents": ["a"] * 4}), 413
    )
    assert "larger than the 100000 bytes" in refusal(client.post("/rerank", content=b" " * 100_001), 413)
    chunks = (b" " * 60_000 for _ in range(2))  # no Content-Length
    assert "larger than the 100000 bytes" in refusal(client.post("/rerank", content=chunks), 413)
    assert client.post("/rerank", json={**GOOD, "documents": ["a"] * 3}).status_code == 200


def test_100_000_documents(client):
    body = json.dumps({**GOOD, "documents": ["bulb"] * 100_000})
    assert "100000 documents are more than the 10000" in refusal(client.post("/rerank", content=body), 413)


def test_a_surrogate_and_control_characters_are_answered(client):
    body = rb'{"query": "bulb \ud83d", "documents": [{"text": "Edison \udc00", "k\ud800": "\u0000"}, "b\u0007"]}'
    response = client.post("/v1/rerank", content=body)
    assert response.status_code == 200
    assert {row["document"]["text"] for row in response.json()["results"]} == {"Edison \ufffd", "b\u0007"}


def test_an_empty_document_is_ranked_last_and_reported(client, tiny):
    texts = ["", "Edison", {"text": " "}, "Coffee"]
    answer = client.post("/v1/rerank", json={**GOOD, "documents": texts}).json()
    order = [[1, 3][hit.index] for hit in tiny.reranker.rerank("bulb", ["Edison", "Coffee"])]
    assert [row["index"] for row in answer["results"]] == [*order, 0, 2]
    assert [row["relevance_score"] for row in answer["results"]][2:] == [0.0, 0.0]
    for rows in (
        answer["results"],
        answer["data"],
        client.post("/rerank", json={"query": "bulb", "texts": texts}).json(),
    ):
        assert [row.get("scored", True) for row in rows] == [True, True, False, False]
    assert answer["meta"]["warnings"] == ["2 of 4 documents are empty and were put last"]


def test_cut_documents_are_counted_and_can_be_forbidden(client):
    body = {**GOOD, "documents": ["Edison " * 2000, "short"]}
    response = client.post("/v1/rerank", json=body)
    assert response.headers["x-dearlite-truncated"] == "1"
    assert response.json()["meta"]["warnings"] == ["1 of 2 documents is longer than the model's input and was cut"]
    for name in ("truncate", "truncation"):
        assert "1 of 2 documents is longer" in refusal(client.post("/v1/rerank", json={**body, name: False}), 422)


def test_a_path_as_a_model_name_opens_nothing(client, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("builtins.open", lambda path, *rest, **options: opened.append(path) or 1 / 0)
    for name in (str(tmp_path / "secret.dear"), "../../etc/passwd", "C:\\x.dear", "OWNER/NAME", "\x00"):
        assert client.post("/rerank", json={**GOOD, "model": name}).json()["model"] == "tiny"
    assert client.get("/../../etc/passwd").status_code == 404
    assert client.get("/%2e%2e/pyproject.toml").status_code == 404
    assert not opened


def test_wrong_paths_and_methods(client):
    assert "no such endpoint" in refusal(client.get("/v3/rerank"), 404)
    assert "this endpoint takes POST" in refusal(client.get("/rerank"), 405)
    assert client.get("/rerank").headers["allow"] == "POST"


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "[::2]"),
        *("[::1]evil.example", "[localhost]", "localhost:80@evil.example", "localhost:x", "localhost, evil.example"),
    ],
)
def test_another_host_is_refused_on_loopback(client, host, caplog):
    """A page whose name was bound to 127.0.0.1 after it was loaded sends that name."""
    assert "--allow-host" in refusal(client.get("/info", headers={"host": host}), 403)
    assert "403" in caplog.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:8787", "[::1]:8787", "127.9.9.9"])
def test_names_of_loopback_are_let_in(client, host):
    assert client.get("/info", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:3000", "https://localhost.evil.example"]
)
def test_pages_of_other_sites_are_refused(client, origin):
    response = client.post("/rerank", json=GOOD, headers={"origin": origin})
    assert "--allow-origin" in refusal(response, 403)
    assert "access-control-allow-origin" not in response.headers


def test_an_allowed_site_gets_answers_and_preflights(serve):
    client = serve(
        access=Access(origins=frozenset({"http://localhost:3000"}), hosts=frozenset({"host.docker.internal"}))
    )
    headers = {"origin": "http://localhost:3000"}
    preflight = client.options("/rerank", headers={**headers, "access-control-request-method": "POST"})
    assert preflight.status_code == 204
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-origin"] == headers["origin"]
    assert (
        client.post("/rerank", json=GOOD, headers=headers).headers["access-control-allow-origin"] == headers["origin"]
    )
    assert client.get("/info", headers={"host": "host.docker.internal:8787"}).status_code == 200
    assert client.get("/info", headers={"origin": "http://localhost"}).status_code == 200  # the server's own page


def test_keys(serve, tmp_path):
    (tmp_path / "keys").write_text("0123456789abcdef\n\nfedcba9876543210\n")
    client = serve(access=Access(loopback=False, keys=read_keys(tmp_path / "keys")))
    assert "Authorization: Bearer KEY" in refusal(client.post("/rerank", json=GOOD), 401)
    for value in (
        b"",
        b"Bearer",
        b"Bearer 0123456789abcdeF",
        b"Bearer 0123456789",
        b"Basic 0123456789abcdef",
        b"Bearer \xe9",
    ):
        response = client.post("/rerank", json=GOOD, headers={b"authorization": value})
        refusal(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"
    for headers in ({"authorization": "Bearer fedcba9876543210"}, {"x-api-key": "0123456789abcdef"}):
        assert client.post("/rerank", json=GOOD, headers=headers).status_code == 200
    assert client.get("/metrics").status_code == 401
    assert client.get("/health").status_code == 200
    assert client.get("/info", headers={"host": "box.lan", "x-api-key": "0123456789abcdef"}).status_code == 200


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no key"),
        ("short\n", "fewer than 16 characters"),
        (None, "cannot read the keys"),
        ("0123456789 abcdef\n", "which a header cannot carry"),
        ("schl\u00fcssel-schl\u00fcssel\n", "which a header cannot carry"),
        ("0123456789\0abcdef\n", "which a header cannot carry"),
    ],
)
def test_files_of_keys(tmp_path, text, reason):
    if text is not None:
        (tmp_path / "keys").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=reason):
        read_keys(tmp_path / "keys")


@pytest.mark.parametrize(
    ("header", "name"), [("A.example:80", "a.example"), ("[::1]:80", "::1"), ("localhost.", "localhost"), ("", "")]
)
def test_the_name_in_a_host_header(header, name):
    assert host_name(header) == name


def test_a_fault_of_the_server_is_named_only_in_its_log(serve, tiny, monkeypatch, caplog):
    client = serve()
    monkeypatch.setattr(type(tiny), "rank", lambda *_: 1 / 0)
    message = refusal(client.post("/rerank", json=GOOD), 500)
    assert message == "a fault of the server (ZeroDivisionError): its log has the details"
    assert "division by zero" in caplog.text


@pytest.mark.parametrize("text", ["x", "-5", "nan", "inf", "0", ""])
def test_a_wrong_timeout_header(client, text):
    assert "X-Timeout-Ms" in refusal(client.post("/rerank", json=GOOD, headers={"x-timeout-ms": text}), 400)


def test_a_file_of_keys_from_an_editor_of_windows(tmp_path):
    (tmp_path / "keys").write_bytes(b"\xef\xbb\xbf0123456789abcdef\r\n")
    assert Access(keys=read_keys(tmp_path / "keys")).knows("0123456789abcdef")


@pytest.mark.parametrize("name", ["", " ", "http://box", "box:80", "box/", "a b", "[::1]", "box..:"])
def test_names_that_no_host_header_has_are_refused(name):
    with pytest.raises(UsageError, match=r"--allow-host .* is no name of a host"):
        allowed_hosts([name])


@pytest.mark.parametrize("name", ["", "*", "localhost:3000", "http://", "http://a/b", "null", "http://a b"])
def test_sites_that_no_browser_sends_are_refused(name):
    with pytest.raises(UsageError, match=r"--allow-origin .* is no site"):
        allowed_origins([name])


def test_names_and_sites_are_compared_in_lower_case():
    assert allowed_hosts(["Box.LAN.", "fe80::1"]) == {"box.lan", "fe80::1"}
    assert allowed_origins(["HTTP://Box.lan:3000/", "vscode-webview://abc"]) == {
        "http://box.lan:3000",
        "vscode-webview://abc",
    }


def test_of_two_names_of_a_field_the_one_without_effect_is_named(client):
    body = {**GOOD, "texts": ["Coffee"], "top_n": 1, "top_k": 2, "k": 1}
    assert client.post("/rerank", json=body).json()["meta"]["warnings"] == [
        "the field 'texts' has no effect beside documents",
        "the field 'top_k' has no effect beside top_n",
    ]


def test_rank_fields_that_a_document_lacks_are_reported(client):
    documents = [{"text": "a", "title": "b"}, {"text": "a"}, "c"]
    answer = client.post("/rerank", json={**GOOD, "documents": documents, "rank_fields": ["title"]}).json()
    assert answer["meta"]["warnings"] == ["2 of 3 documents are without the rank_fields: the text was read"]


def test_a_bare_list_has_its_warnings_in_a_header(client):
    body = {"query": "bulb", "texts": ["Edison"], "instruction": "find", "caf\u00e9": 1}
    response = client.post("/rerank", json=body)
    assert json.loads(response.headers["x-dearlite-warnings"]) == [
        "the instruction had no effect: the prompt of tiny has no place for one",
        "fields without effect here: 'caf\\xe9'",
    ]
    assert "x-dearlite-warnings" not in client.post("/rerank", json={"query": "bulb", "texts": ["Edison"]}).headers


def test_options_of_scores_have_their_effect_or_are_named(client):
    pair = {"text_1": "bulb", "text_2": ["Edison " * 2000, "short"]}
    for name in ("truncate", "truncation"):
        assert "1 of 2 documents is longer" in refusal(client.post("/score", json={**pair, name: False}), 422)
    whole = client.post("/score", json={**pair, "long": "chunk"}).json()
    assert whole["meta"]["warnings"] == []
    answer = client.post("/score", json={**pair, "budget_ms": 1, "top_n": 1, "queries": ["x"]}).json()
    assert len(answer["data"]) == 2
    assert answer["data"][0]["score"] != whole["data"][0]["score"]
    assert answer["meta"]["warnings"] == [
        "1 of 2 documents is longer than the model's input and was cut",
        "fields without effect here: 'top_n', 'queries'",
        "the budget has no effect on scores: every pair is read",
    ]
    assert "X-Timeout-Ms" in refusal(client.post("/score", json=pair, headers={"x-timeout-ms": "soon"}), 400)


def test_a_compressed_body_is_refused_by_its_coding(client):
    body = gzip.compress(json.dumps(GOOD).encode())
    response = client.post("/rerank", content=body, headers={"content-encoding": "gzip"})
    assert "the body is compressed ('gzip')" in refusal(response, 415)


def test_a_document_too_deep_for_the_answer_is_the_clients_fault(serve, tiny, monkeypatch):
    """The depth that can be written is not the one that can be read in every Python."""
    nested = []
    for _ in range(100_000):
        nested = [nested]
    monkeypatch.setattr("dearlite.serve.shapes._document", lambda *_: {"document": nested})
    assert "nested too deeply" in refusal(serve().post("/v1/rerank", json=GOOD), 400)


def test_a_model_with_a_name_that_no_header_can_carry(serve, tiny):
    client = serve(replace(tiny, name="\u6a21\u578b"))
    for path, body in (("/rerank", GOOD), ("/score", {"text_1": "bulb", "text_2": "Edison"})):
        response = client.post(path, json=body)
        assert (response.status_code, response.json()["model"]) == (200, "\u6a21\u578b")
        assert response.headers["x-dearlite-model"] == "%E6%A8%A1%E5%9E%8B"


def test_a_listwise_model_has_a_limit_of_passes():
    """The orders of all passes are in memory at once: a large number ended the server."""
    with pytest.raises(UsageError, match="passes is 2147483648: it must be 100 or less"):
        Listwise(passes=2**31).checked(20, 10)
    assert Listwise(passes=100).checked(20, 10).passes == 100
