"""export/source/fetch.py against a fake Hub on loopback, with the real huggingface_hub, in a new process for each call.

It needs a new process because huggingface_hub reads HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE once, when it is imported.
What huggingface_hub itself imports is imported before.
"""

import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import TOKEN, FakeHub
from forked import ForkServer
from waiting import WITHIN_S

pytest.importorskip("huggingface_hub", reason="the extra `export` is not installed")

ROOT = Path(__file__).parents[3]
REPOSITORY = "somebody/tiny-reranker"
CALL = """
import json, sys
from dearlite.errors import DearliteError
from dearlite.export.source.fetch import fetch
repository, revision, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
try:
    print(json.dumps({"folder": str(fetch(repository, revision, **options))}))
except DearliteError as err:
    print(json.dumps({"error": str(err), "class": type(err).__name__}))
"""
WANTED = {
    "config.json": b'{"architectures": ["LlamaForSequenceClassification"]}',
    "model-00001-of-00002.safetensors": random.Random(1).randbytes(300_000),
    "model-00002-of-00002.safetensors": random.Random(2).randbytes(200_000),
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    ).encode(),
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "LICENSE.txt": b"LLAMA 3.2 COMMUNITY LICENSE AGREEMENT",
    "modules.json": b"[]",
    "1_Pooling/config.json": b"{}",
    "2_Dense/config.json": b'{"in_features": 4}',
    "2_Dense/model.safetensors": random.Random(3).randbytes(500),
}
UNWANTED = {
    "README.md": b"# A model",
    "pytorch_model.bin": b"pickle",
    "consolidated.safetensors": b"the same weights again",
    "checkpoint-500/model.safetensors": b"older weights",
    "500/model.safetensors": b"older weights",
    "2_Dense/pytorch_model.bin": b"pickle",
    "2_Dense/older/config.json": b"{}",
    "onnx/config.json": b"{}",
    "optimizer.pt": b"pickle",
}


@pytest.fixture
def hub(tmp_path):
    """A Hub with one repository, REPOSITORY, of WANTED and UNWANTED files."""
    put(tmp_path / "hub", REPOSITORY, WANTED | UNWANTED)
    with FakeHub(tmp_path / "hub") as hub:
        yield hub


def put(folder, repository, files):
    for name, content in files.items():
        path = folder / repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture
def environment(tmp_path, hub):
    """The variables of a process with the Hub and a cache under tmp_path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return kept | {
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


@pytest.fixture
def start(environment):
    """Starts `fetch(REPOSITORY, **options)` in a new process."""

    def call(*, options=None):
        command = [sys.executable, "-c", CALL, REPOSITORY, "main", json.dumps({"quiet": True} | (options or {}))]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment, cwd=ROOT, text=True, stdout=pipe, stderr=pipe)

    return call


@pytest.fixture(scope="module")
def server():
    with ForkServer("requests", "yaml", "tqdm.auto", "fsspec", "dearlite.export.source.fetch") as server:
        yield server


@pytest.fixture
def fetched(environment, server):
    """The result of `fetch(repository, revision, **options)` in a new process: the folder as a Path, or the error."""

    def call(repository=REPOSITORY, revision="main", *, options=None, **more):
        arguments = [repository, revision, json.dumps({"quiet": True} | (options or {}))]
        done = server.run(CALL, arguments, env=environment | more)
        assert done.stdout, done.stderr
        answer = json.loads(done.stdout)
        if "folder" in answer:
            return Path(answer["folder"])
        assert answer["class"] == "FetchError"
        assert "\n" not in answer["error"]
        return answer["error"]

    return call


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_of_a_model_are_fetched_once_and_found_offline(hub, fetched, tmp_path):
    folder = fetched()
    assert contents(folder) == WANTED
    assert tmp_path / "hf" in folder.parents
    hub.asked.clear()
    assert fetched() == folder
    assert not [path for method, path, _ in hub.asked if method == "GET" and "/resolve/" in path]
    hub.asked.clear()
    assert fetched(HF_HUB_OFFLINE="1") == folder
    assert fetched(revision=hub.commit(REPOSITORY), HF_HUB_OFFLINE="1") == folder
    assert hub.asked == []


def test_patterns_choose_and_pickles_never_come(fetched):
    folder = fetched(options={"patterns": ["*.json", "*.bin"]})
    assert set(contents(folder)) == {name for name in WANTED if name.endswith(".json")}


def test_dropped_connection_goes_on_where_it_broke(hub, fetched):
    # huggingface_hub writes blocks of 10 MiB: what it had of the block in flight is fetched again.
    weights = random.Random(3).randbytes(24_000_000)
    put(hub.folder, REPOSITORY, {"model-00001-of-00002.safetensors": weights})
    hub.cut_once["model-00001-of-00002.safetensors"] = 15_000_000
    folder = fetched()
    assert (folder / "model-00001-of-00002.safetensors").read_bytes() == weights
    assert hub.sent("model-00001-of-00002.safetensors") == ["", f"bytes={10 * 2**20}-"]


def test_killed_fetch_keeps_the_files_that_were_whole(hub, start, fetched):
    hub.stall["model-00002-of-00002.safetensors"] = 50_000
    process = start()
    assert hub.stalled.wait(WITHIN_S)
    process.kill()
    process.communicate()
    hub.stall.clear()
    hub.resume.set()
    assert contents(fetched()) == WANTED
    assert hub.sent("model-00001-of-00002.safetensors") == [""]
    assert hub.sent("model-00002-of-00002.safetensors") == ["", ""]


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "config.json"])
def test_wrong_content_is_deleted_and_reported(hub, fetched, tmp_path, name):
    hub.corrupt.add(name)
    error = fetched()
    for word in (REPOSITORY, name, "hash", "deleted", "again"):
        assert word in error
    assert error.count("hash") == 1
    snapshot = next((tmp_path / "hf").rglob(f"snapshots/{hub.commit(REPOSITORY)}"))
    assert contents(snapshot) == {other: content for other, content in WANTED.items() if other != name}
    hub.corrupt.clear()
    assert contents(fetched()) == WANTED


def test_weights_that_rotted_in_the_cache_are_found_offline(fetched):
    weights = fetched() / "model-00001-of-00002.safetensors"
    content = bytearray(weights.read_bytes())
    content[1000] ^= 1
    weights.write_bytes(content)
    assert "model-00001-of-00002.safetensors (hash" in fetched(HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE forbids" in fetched(HF_HUB_OFFLINE="1")  # it is gone, and so the copy is not whole


def test_gated_repository_says_what_to_accept_where(hub, fetched, tmp_path):
    hub.gated.add(REPOSITORY)
    for token in ({}, {"HF_TOKEN": "hf_somebodyelse"}):  # the Hub answers 401 and 403
        error = fetched(**token)
        for word in (f"accept its licence at {hub.endpoint}/{REPOSITORY}", "hf auth login", "HF_TOKEN"):
            assert word in error
        assert "hf_somebodyelse" not in error
    assert contents(fetched(HF_TOKEN=TOKEN)) == WANTED


def test_token_of_a_login_is_used(hub, fetched, tmp_path):
    hub.gated.add(REPOSITORY)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text(TOKEN)  # where `hf auth login` puts it
    assert contents(fetched()) == WANTED


def test_too_little_disk_is_reported_before_a_byte_is_fetched(hub, fetched):
    hub.claimed_size["model-00001-of-00002.safetensors"] = 10**16
    error = fetched()
    for word in ("needs 10000000.0 GB", "GB are free", "HF_HOME"):
        assert word in error
    assert not [path for _, path, _ in hub.asked if "/resolve/" in path]


def test_faults_of_the_call_and_of_the_hub_are_one_line(hub, fetched):
    put(hub.folder, "somebody/pickles", {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    put(hub.folder, "somebody/data", {"config.json": b"{}"})
    assert "no model repository somebody/nothing" in fetched("somebody/nothing")
    assert "no revision 'v9'" in fetched(revision="v9")
    assert "is not a repository name" in fetched("a/b/c")
    assert "as pickle (pytorch_model.bin)" in fetched("somebody/pickles")
    assert "no *.safetensors" in fetched("somebody/data")
    hub.failing = 503
    assert f"answered 503 for {REPOSITORY}" in fetched()
    hub.failing = 403
    assert f"refused {REPOSITORY} (403: out of order)" in fetched()


def test_no_network_is_one_line(hub, fetched):
    absent = fetched(HF_HUB_OFFLINE="1")
    for word in (f"{REPOSITORY} (main)", "unset HF_HUB_OFFLINE"):
        assert word in absent
    assert "is not a repository name" in fetched("a/b/c", HF_HUB_OFFLINE="1")
    with socket.socket() as free:  # bound, not listening: connections are refused
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
        error = fetched(HF_ENDPOINT=endpoint)
        gguf = fetched(options={"patterns": ["x.gguf"]}, HF_ENDPOINT=endpoint)
        assert hub.asked == []
        fetched()
        after = fetched(HF_ENDPOINT=endpoint)
    for word in (f"connection to {endpoint} failed", REPOSITORY, "run the same command again"):
        assert word in error
    assert "HF_HUB_OFFLINE" not in error and "GGUF" not in error  # nothing was fetched before
    assert "HF_HUB_OFFLINE" not in gguf and gguf.endswith("or give a GGUF that you have: -m FILE")
    assert after.endswith("or set HF_HUB_OFFLINE=1 to use the files that were fetched before")


def test_progress_is_on_stderr_unless_quiet(start):
    for quiet in (False, True):
        with start(options={"quiet": quiet}) as process:
            out, err = process.communicate(timeout=WITHIN_S)
        assert list(json.loads(out)) == ["folder"]
        assert (f"Fetching {len(WANTED)} files" in err) is not quiet
        assert quiet is (err == "")
