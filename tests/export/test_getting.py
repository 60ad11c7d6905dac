"""`dearlite models get`, and the licences that it and `dearlite export` ask for, against a fake Hub on loopback."""

import hashlib
import json
import os

import numpy as np
import pytest
from fake_hub import FakeHub
from forked import ForkServer

pytest.importorskip("huggingface_hub", reason="the extra `export` is not installed")
gguf = pytest.importorskip("gguf", reason="the extra `export` is not installed")

from dearlite.errors import UsageError  # noqa: E402
from dearlite.export import export, get  # noqa: E402

MAKER, FILE = "maker/tiny-reranker-GGUF", "tiny-q8_0.gguf"
RUN = """
import json, sys
from dearlite.cli.main import run
try:
    run(json.loads(sys.argv[1]))
except SystemExit as ended:
    print(f"exit {ended.code}")
"""
ENTRY = """
[{name}]
kind = "{kind}"
repository = "{repository}"
file = "{file}"
architecture = "bert"
prompt = "plain"
pooling = "first-token"
max_tokens = 64
licence = "{licence}"
commercial = {commercial}
download_mb = 2
size_mb = 2
memory_mb = 3
"""


def write_gguf(path, *, head):
    """A GGUF that states a score (`head`) or none, with two megabytes of weights."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_bool("bert.attention.causal", False)
    writer.add_tensor("blk.0.weight", np.random.default_rng(0).standard_normal((512, 1024)).astype(np.float32))
    writer.add_tensor("cls.output.weight" if head else "output.weight", np.ones((1, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def entry(name, **changes):
    values = {"kind": "pointwise", "repository": MAKER, "file": FILE, "licence": "MIT", "commercial": "true"}
    return ENTRY.format(name=name, **values | changes)


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "models.toml").write_text(
        entry("tiny")
        + entry("guarded", licence="cc-by-nc-4.0", commercial="false")
        + entry("absent", file="other.gguf")
        + entry("mistaken", kind="listwise")
        + entry("words", file="words.gguf")
        + entry("damaged", file="damaged.gguf")
        + entry("nested", file="q8/tiny-q8_0.gguf"),
        encoding="utf-8",
    )
    monkeypatch.setenv("DEARLITE_HOME", str(folder))
    return folder


@pytest.fixture(scope="module")
def server():
    with ForkServer("requests", "tqdm.auto", "fsspec", "dearlite.export.getting", "dearlite.cli.models") as server:
        yield server


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    write_gguf(folder / FILE, head=True)
    write_gguf(folder / "words.gguf", head=False)
    (folder / "damaged.gguf").write_bytes(b"GGUF" + bytes(100))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(tmp_path, weights):
    folder = tmp_path / "hub" / MAKER
    (folder / "q8").mkdir(parents=True)
    for name, content in weights.items():
        (folder / name).write_bytes(content)
    (folder / "q8" / FILE).write_bytes(weights[FILE])
    with FakeHub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def dearlite(hub, home, tmp_path, server):
    """Runs the command line in a process of its own, as huggingface_hub reads its variables once."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment = kept | {
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "DEARLITE_HOME": str(home),
    }

    def call(*arguments):
        done = server.run(RUN, [json.dumps([str(argument) for argument in arguments])], env=environment)
        *out, ended = done.stdout.splitlines()
        return int(ended.removeprefix("exit ")), "\n".join(out), done.stderr

    return call


def test_published_file_is_fetched_as_it_is_and_only_once(dearlite, hub, home, weights):
    code, out, err = dearlite("models", "get", "tiny")
    path = home / "models" / "tiny.gguf"
    assert (code, path.read_bytes()) == (0, weights[FILE]), err
    assert f"{path}: 0.00 GB, as published" in out
    assert f"dearlite: tiny: licence MIT; downloads 0.0 GB from {MAKER}" in err
    assert [file.name for file in path.parent.iterdir()] == ["tiny.gguf"]  # no draft is left
    hub.asked.clear()
    code, out, err = dearlite("models", "get", "tiny")
    assert (code, hub.asked, err) == (0, [], "")
    assert "--force does it again" in out
    path.write_bytes(b"GGUF damaged")
    assert dearlite("models", "get", "tiny", "--force")[0] == 0
    assert path.read_bytes() == weights[FILE]


def test_file_in_a_folder_of_the_repository_is_fetched(dearlite, home, weights):
    assert dearlite("models", "get", "nested")[0] == 0
    assert (home / "models" / "nested.gguf").read_bytes() == weights[FILE]


def test_dropped_connection_goes_on_where_it_broke(dearlite, hub, home, weights):
    hub.cut_once[FILE] = 1_000_000
    assert dearlite("models", "get", "tiny")[0] == 0
    assert (home / "models" / "tiny.gguf").read_bytes() == weights[FILE]
    assert len(hub.sent(FILE)) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent", [MAKER, "has no file other.gguf", FILE, "words.gguf"]),
        ("mistaken", [FILE, "is a pointwise model", "mistaken listwise"]),
        ("damaged", ["damaged.gguf is not a complete GGUF file"]),
        ("words", ["words.gguf", "is a listwise model", "words pointwise"]),
    ],
)
def test_file_that_is_not_what_the_entry_says_is_refused(dearlite, home, name, words):
    code, out, err = dearlite("models", "get", name)
    assert (code, out) == (1, "")
    assert all(word in err.splitlines()[-1] for word in words), err
    assert not list((home / "models").glob("*")) if (home / "models").exists() else True


def test_file_in_the_place_of_the_models_folder_is_named(dearlite, home):
    (home / "models").write_text("mine")
    code, out, err = dearlite("models", "get", "tiny")
    assert (code, out) == (2, "")
    assert f"{home / 'models'} is a file, not a folder" in err.splitlines()[-1]
    assert (home / "models").read_text() == "mine"


def test_corrupt_download_leaves_no_model(dearlite, hub, home):
    hub.corrupt.add(FILE)
    code, _, err = dearlite("models", "get", "tiny")
    assert code == 1
    assert "did not arrive as the Hub lists it" in err
    assert not (home / "models" / "tiny.gguf").exists()


def test_licence_that_forbids_commercial_use_is_accepted_first(dearlite, hub, home):
    code, _, err = dearlite("models", "get", "guarded")
    assert (code, hub.asked, err.count("\n")) == (2, [], 1)
    assert "guarded has the licence cc-by-nc-4.0, not for commercial use: add --accept-licence" in err
    code, _, err = dearlite("models", "get", "guarded", "--accept-licence")
    assert (code, (home / "models" / "guarded.gguf").is_file()) == (0, True)
    assert "guarded: licence cc-by-nc-4.0, not for commercial use" in err


def test_full_disk_is_noticed_before_the_download(dearlite, hub, home):
    hub.claimed_size[FILE] = 10**15
    code, _, err = dearlite("models", "get", "tiny")
    assert code == 1
    assert "needs 1000000.0 GB" in err
    assert hub.sent(FILE) == []


def test_model_without_a_published_file_is_exported(dearlite, hub, home):
    """The export's own refusal shows that it was called: this Hub has no such repository."""
    code, _, err = dearlite("models", "get", "dear-3b-ce")
    assert code == 1
    assert "dear-3b-ce: licence llama3.2" in err.splitlines()[0]
    assert "no model repository abdoelsayed/dear-3b-reranker-ce-v1" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("zerank-2", "zerank-2 has the licence cc-by-nc-4.0, not for commercial use"),
        ("qwen3-reranker-0.6b-gguf", "is published as a file, which is used as it is: `dearlite models get"),
    ],
)
def test_export_refuses_in_one_line(home, cli, name, words):
    code, out, err = cli("export", name)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dear", "dear is a cascade: get its models (`dearlite models get dear-3b-ce`, `dearlite models get dear-8b-l"),
        ("minilm-l99", "no model 'minilm-l99' (nearest: minilm-l"),
    ],
)
def test_name_that_is_no_model_is_refused(home, cli, name, words):
    code, _, err = cli("models", "get", name)
    assert (code, words in err, err.count("\n")) == (2, True, 1)


def test_embedded_model_needs_nothing(home, cli, embedded_path):
    code, out, err = cli("models", "get", "minilm-l12")
    assert (code, err) == (0, "")
    assert f"{embedded_path}: 0.03 GB, part of the package" in out
    assert (get("minilm-l12").how, get("minilm-l12", force=True).how) == ("embedded", "embedded")


def test_python_refuses_as_the_command_line_does(home):
    with pytest.raises(UsageError, match="accept_licence=True"):
        get("guarded")
    with pytest.raises(UsageError, match="accept_licence=True"):
        export("zerank-1")


def test_absent_models_name_the_command_the_download_and_the_licence(home, cli):
    code, _, err = cli("rerank", "-q", "a", os.devnull, "-m", "zerank-2")
    assert code == 2
    for word in (
        "`dearlite models get zerank-2 --accept-licence`",
        "downloads 8.1 GB",
        "licence cc-by-nc-4.0, not for comm",
    ):
        assert word in err
    assert err.count("\n") == 1
    code, _, err = cli("rerank", "-q", "a", os.devnull, "-m", "qwen3-reranker-0.6b-gguf")
    path = home / "models" / "qwen3-reranker-0.6b-gguf.gguf"
    assert f"`dearlite models get qwen3-reranker-0.6b-gguf` fetches it to {path} (downloads 0.6 GB" in err
    assert "needs 0.6 GB of disk" in err


def test_list_fits_80_columns_and_has_what_is_here_first(home, cli, weights):
    (home / "models").mkdir()
    (home / "models" / "zerank-2.dear").write_bytes(b"")
    (home / "models" / "tiny.gguf").write_bytes(weights[FILE])
    code, out, _ = cli("models")
    table, cascades = out.split("cascade", 1)
    names = [line.split()[0] for line in table.splitlines()[3:] if line.strip()]
    assert code == 0
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    assert names[0] == "minilm-l12"
    assert {"zerank-2", "tiny"} == set(names[1:3])
    assert "default" in cascades
    assert "dear-3b-ce, then dear-8b-listwise:30" in cascades


def test_show_has_the_licence_the_quality_and_the_parameters(home, cli):
    out = " ".join(cli("models", "show", "zerank-2")[1].split())
    for word in ("cc-by-nc-4.0, not for commercial use", "4,022 million", "MTEB(eng, v2) retrieval 0.53"):
        assert word in out
    out = " ".join(cli("models", "show", "minilm-l12")[1].split())
    for word in (
        "kendall_tau",
        "differ by up to 0.9",
        "the publisher's int8 weights, their limit of pairs and int8 activations together",
        "33 million",
        "NanoBEIR 0.6369",
    ):
        assert word in out


def test_link_and_copy_have_the_same_bytes(tmp_path, monkeypatch):
    from dearlite.export import getting

    source = tmp_path / "source"
    source.write_bytes(b"weights")
    (tmp_path / "draft").mkdir()
    getting._link_or_copy(source, tmp_path / "draft" / "linked")
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("two disks")))
    getting._link_or_copy(source, tmp_path / "draft" / "copied")
    digests = {hashlib.sha256((tmp_path / "draft" / name).read_bytes()).hexdigest() for name in ("linked", "copied")}
    assert digests == {hashlib.sha256(b"weights").hexdigest()}
