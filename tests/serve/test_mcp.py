"""`dearlite mcp`, driven by the protocol's own client over standard input and output."""

import asyncio
import json
import subprocess
import sys
from contextlib import suppress

import pytest
from waiting import WITHIN_S

pytest.importorskip("mcp.server.mcpserver", reason="mcp is not installed (extra mcp)")

from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

DOCS = ["Coffee from Brazil", "Edison patented a light bulb", "Paris in spring", "Who sells light bulbs?"]
QUERY = "who invented the bulb?"


def command(model):
    return ["-c", "from dearlite.cli.main import run; run()", "mcp", "-m", str(model), "--threads", "1"]


MANY = ["bulb " * 400] * 1500
CALLS = {
    "whole": {"query": QUERY, "documents": [*DOCS, " "]},
    "short": {"query": QUERY, "documents": [*DOCS, " "], "top_k": 2, "return_text": True, "long": "chunk"},
    "none": {"query": QUERY, "documents": []},
    "wrong": {"query": QUERY, "documents": 5},
    "absent": {"top_k": "x"},
    "negative": {"query": QUERY, "documents": DOCS, "top_k": -1},
    "path": {"query": QUERY, "documents": DOCS, "model": "/etc/passwd"},
    "unknown": {"query": QUERY, "documents": DOCS, "top_n": 1},
    "instructed": {"query": QUERY, "documents": DOCS, "instruction": "find inventors"},
    "reasons": {"query": QUERY, "documents": DOCS, "explain": True},
}


@pytest.fixture(scope="module")
def session(tiny_bundle, tmp_path_factory):
    """What a client got in one session, by name, and what the server wrote to stderr."""
    answers, told = {}, []

    async def talk(client):
        answers["tools"] = (await client.list_tools()).tools
        resources = (await client.list_resources()).resources
        answers["models"] = await client.read_resource(resources[0].uri)
        for name, arguments in CALLS.items():
            answers[name] = await client.call_tool("rerank", arguments)

        async def progress(done, total, message):
            told.append((done, total))
            call.cancel()

        arguments = {"query": QUERY, "documents": MANY}
        call = asyncio.create_task(client.call_tool("rerank", arguments, progress_callback=progress))
        with suppress(asyncio.CancelledError):
            answers["many"] = await call
        answers["after"] = await client.call_tool("rerank", CALLS["whole"])

    async def connect(errors):
        parameters = StdioServerParameters(command=sys.executable, args=command(tiny_bundle))
        async with asyncio.timeout(WITHIN_S), Client(stdio_client(parameters, errlog=errors)) as client:
            await talk(client)

    with open(tmp_path_factory.mktemp("mcp") / "stderr", "w+") as errors:
        asyncio.run(connect(errors))
        errors.seek(0)
        return {**answers, "told": told, "stderr": errors.read()}


def test_the_tool_is_described(session):
    (tool,) = session["tools"]
    assert tool.name == "rerank"
    assert tool.annotations.read_only_hint and tool.annotations.idempotent_hint
    assert tool.input_schema["required"] == ["query", "documents"]
    assert all(field["description"] for field in tool.input_schema["properties"].values())
    assert set(tool.output_schema["required"]) == {"model", "results", "warnings"}


def test_the_models_are_a_resource(session):
    models = json.loads(session["models"].contents[0].text)["models"]
    assert models == [{"name": "tiny", "kinds": ["pointwise"], "max_tokens": 512}]


def test_the_order_and_scores_are_those_of_the_library(session, tiny):
    expected = tiny.reranker.rerank(QUERY, DOCS)
    answer = session["whole"].structured_content
    rows = answer["results"]
    assert [row["index"] for row in rows] == [hit.index for hit in expected] + [4]
    assert [row["score"] for row in rows[:4]] == pytest.approx([tiny.reranker.relevance_of(h.score) for h in expected])
    assert all(set(row) == {"index", "score", "truncated"} for row in rows)
    assert answer["warnings"] == ["1 of 5 documents is empty and was put last"]
    assert json.loads(session["whole"].content[0].text) == answer
    (warning,) = session["instructed"].structured_content["warnings"]
    assert warning == "the instruction had no effect: the prompt of tiny has no place for one"
    assert [row["text"] for row in session["short"].structured_content["results"]] == [hit.text for hit in expected[:2]]


def test_errors_are_one_line(session):
    refused = {name: session[name] for name in ("none", "wrong", "absent", "negative", "path", "unknown", "reasons")}
    assert all(answer.is_error for answer in refused.values())
    texts = {name: answer.content[0].text for name, answer in refused.items()}
    assert texts["none"] == "documents is empty: send at least one document"
    assert texts["wrong"] == "documents: input should be a valid list"
    assert texts["absent"].startswith(
        "query: field required; documents: field required; top_k: input should be a valid"
    )
    assert texts["negative"] == "top_k is -1: it must be a whole number from 0"
    assert texts["path"] == "no model '/etc/passwd': there are tiny"
    assert texts["unknown"].startswith("no argument 'top_n': there are query, documents, top_k, ")
    assert "listwise" in texts["reasons"]
    assert not any("\n" in text or "Error executing" in text for text in texts.values())
    assert "Traceback" not in session["stderr"]


def test_progress_is_told_and_a_cancelled_call_leaves_the_server_free(session):
    assert "many" not in session
    assert all(0 < done < total == len(MANY) for done, total in session["told"])
    assert session["after"].structured_content == session["whole"].structured_content


def test_stdout_has_the_protocol_only_and_the_end_of_the_input_ends_it(tiny_bundle):
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    lines = [json.dumps(hello), "no JSON", "\x00\xff", json.dumps({"jsonrpc": "2.0", "id": 2, "method": "nothing"})]
    process = subprocess.Popen(
        [sys.executable, *command(tiny_bundle)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        process.stdin.write("\n".join(lines) + "\n")
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline())]
        while answers[-1].get("id") != 2:
            answers.append(json.loads(process.stdout.readline()))
        rest, errors = process.communicate(timeout=WITHIN_S)  # closes the input
    assert process.returncode == 0, errors
    assert answers[0]["id"] == 1 and answers[0]["result"]["serverInfo"]["name"] == "dearlite"
    assert "error" in answers[-1] and rest == ""
    assert "Traceback" not in errors


def test_without_a_stdout_there_is_one_line(tiny_bundle, capsys, monkeypatch):
    from dearlite.cli.main import run

    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SystemExit) as ended:
        run(["mcp", "-m", str(tiny_bundle)])
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("dearlite: there is no standard output")
