"""Every option that names an output, of every command: what it may lead to, what it may not be, and a full disk."""

import os
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import click
import noveleval
import pytest
from command_tree import commands
from posix_only import need_posix
from waiting import WITHIN_S, join

from dearlite import Reranker, evaluate, rerank_run
from dearlite.errors import UsageError
from dearlite.export import export
from dearlite.export.train.config import PointwiseConfig
from dearlite.export.train.loop import open_output
from dearlite.models.bundle import Bundle

COLLECTION = ("COLLECTION/queries.jsonl", "COLLECTION/corpus.jsonl.gz", "COLLECTION/run.trec", "COLLECTION/qrels.tsv")


@dataclass(frozen=True)
class Row:
    """A call that writes OUT, the ending of OUT, and the files that the call reads.

    A state is kept from call to call, and is an ordinary file; a device cannot keep it.
    """

    call: str
    ending: str
    inputs: tuple[str, ...]
    state: bool = False


def measured(option, ending):
    call = f"eval COLLECTION --scored RUN --baseline again=BASELINE --measures AP {option} OUT"
    return Row(call, ending, (*COLLECTION, "RUN", "BASELINE"))


def reranked(command, option, ending, state=False):
    others = "" if option in ("-o", "--journal") else "-o BESIDE "
    no_journal = "" if option == "--journal" else "--no-journal "
    call = f"{command} COLLECTION {others}{no_journal}{option} OUT -m MODEL"
    return Row(call + (" --measures AP" if command == "eval" else ""), ending, (*COLLECTION, "MODEL"), state)


EXPORT = "--no-card --force --max-tokens 48"
# (command, option, what is different) -> row
ROWS = {
    ("rerank", "--output", ""): Row("rerank QUERY DOCS -o OUT -m MODEL", "jsonl", ("QUERY", "DOCS", "MODEL")),
    **{
        (command, option, ""): reranked(command, option if option != "--output" else "-o", ending, state)
        for command in ("batch", "eval")
        for option, ending, state in (
            ("--output", "trec", False),
            ("--jsonl", "jsonl", False),
            ("--journal", "journal", True),
            ("--cache", "db", True),
        )
    },
    ("eval", "--json", ""): measured("--json", "json"),
    ("eval", "--csv", ""): measured("--csv", "csv"),
    ("eval", "--per-query", ""): measured("--per-query", "csv"),
    ("eval", "--per-query-long", ""): measured("--per-query-long", "csv"),
    ("eval", "--plot", ""): measured("--plot", "svg"),
    ("eval", "--latex", ""): measured("--latex", "tex"),
    ("eval", "--report", ""): measured("--report", "html"),
    ("eval", "--json", "of a suite"): Row(
        "eval --suite dear ROOT -m MODEL --no-journal --measures AP --json OUT", "json", (*COLLECTION, "MODEL")
    ),
    ("export", "--output", "pointwise"): Row(
        f"export SCORER -o OUT --quant fp32 {EXPORT}", "dear", ("SCORER/config.json", "SCORER/model.safetensors")
    ),
    ("export", "--output", "listwise"): Row(
        f"export LANGUAGE -o OUT --quant f16 {EXPORT}", "gguf", ("LANGUAGE/config.json", "LANGUAGE/model.safetensors")
    ),
    ("export", "--output", "attention"): Row(
        "export CHAT -o OUT --heads icr --quant fp32 --no-card --force",
        "dear",
        ("CHAT/config.json", "CHAT/model.safetensors"),
    ),
    ("models calibrate", "--output", ""): Row(  # its own MODEL is replaced (tests/export/quality)
        "models calibrate MODEL COLLECTION --split s -o OUT", "dear", COLLECTION
    ),
    ("models calibrate", "--journal", ""): Row(
        "models calibrate MODEL COLLECTION --split s -o BESIDE.dear --journal OUT",
        "journal",
        (*COLLECTION, "MODEL"),
        state=True,
    ),
    ("train mine", "--output", ""): Row("train mine COLLECTION -m MODEL -o OUT", "jsonl", (*COLLECTION, "MODEL")),
}
# The other options of a command that name a file or a folder: they are read.
READ = {
    "--adapter", "--queries", "--corpus", "--run", "--qrels", "--scored", "--baseline", "--model", "--api-key-file",
    "--decompose", "--heads",
}  # fmt: skip
ALL = list(ROWS)
WRITTEN = [key for key, row in ROWS.items() if not row.state]
KEPT = [key for key, row in ROWS.items() if row.state]


def ids(key):
    return " ".join(filter(None, key))


def test_every_option_that_names_a_file_is_an_input_or_has_a_row():
    named = {
        (path, max(option.opts, key=len))
        for path, command in commands().items()
        for option in command.params
        if isinstance(option, click.Option)
        and (
            isinstance(option.type, (click.Path, click.File))
            or any(word in (option.metavar or "") for word in ("FILE", "FOLDER", "PATH", "DIR"))
            or any(word in option.name for word in ("output", "file", "path", "folder"))
        )
    }
    outputs = {(path, option) for path, option in named if option not in READ}
    assert outputs == {(path, option) for path, option, _ in ROWS}


@pytest.fixture(scope="module")
def places(tmp_path_factory, tiny_bundle):
    """Name in a row -> the file or folder, read-only to the tests."""
    folder = tmp_path_factory.mktemp("inputs")
    collection = folder / "root" / "noveleval"
    collection.mkdir(parents=True)
    for name in ("queries.jsonl", "corpus.jsonl.gz", "qrels.tsv"):
        (collection / name).write_bytes((noveleval.DATA / name).read_bytes())
    lines = (noveleval.DATA / "run_bm25.trec").read_text().splitlines(keepends=True)
    few = "".join(line for line in lines if int(line.split()[0]) < 4 and int(line.split()[3]) <= 6)
    for name in (collection / "run.trec", collection / "run_bm25.trec", folder / "scored.trec", folder / "base.trec"):
        name.write_text(few)
    (folder / "query.txt").write_text("who won?")
    (folder / "docs.jsonl").write_text('{"text": "the bulb"}\n{"text": "coffee"}\n')
    (folder / "tiny.dear").write_bytes(tiny_bundle.read_bytes())
    return {
        "COLLECTION": collection,
        "ROOT": folder / "root",
        "QUERY": folder / "query.txt",
        "DOCS": folder / "docs.jsonl",
        "RUN": folder / "scored.trec",
        "BASELINE": folder / "base.trec",
        "MODEL": folder / "tiny.dear",
        "SCORER": folder / "scorer",
        "LANGUAGE": folder / "language",
        "CHAT": folder / "chat",
    }


@pytest.fixture(scope="module")
def models(places):
    """Makes the folder of a model to export when a row names it."""

    def make(row):
        if "SCORER" in row.call and not places["SCORER"].exists():
            from tiny_decoders import checkpoint

            places["SCORER"].mkdir()
            checkpoint(places["SCORER"], "qwen2")
        if "LANGUAGE" in row.call and not places["LANGUAGE"].exists():
            from gguf_models import write_model

            write_model(places["LANGUAGE"], "llama, 4 heads of 1, llama3 scaling, untied")
        if "CHAT" in row.call and not places["CHAT"].exists():
            from attention_models import causal

            places["CHAT"].mkdir()
            causal(places["CHAT"], "qwen2")

    return make


@pytest.fixture
def write(cli, places, models, tmp_path, monkeypatch):
    """Runs the call of a row with an output; gives exit code and stderr."""
    pytest.importorskip("ir_measures")
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path / "home"))
    pytest.importorskip("onnx")
    monkeypatch.setattr("dearlite.export.decoders.pipeline.check_probes", lambda *_: None)  # by a process of its own
    monkeypatch.setattr("dearlite.export.quality.calibrate.fit_logistic", lambda _: (1.0, 0.0))  # random scores

    def call(key, output):
        row = ROWS[key]
        models(row)
        beside = tmp_path / "beside"
        beside.mkdir(exist_ok=True)
        words = {"OUT": output, "BESIDE": beside / "run.trec", "BESIDE.dear": beside / "m.dear"} | places
        words |= {f"again={name}": f"again={place}" for name, place in places.items()}
        code, _, err = cli(*(words.get(word, word) for word in row.call.split()))
        assert "Traceback" not in err
        return code, err

    return call


@contextmanager
def no_more_than(size):
    """A limit on the size of files fails a write as a full disk does."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def refused(result, *words):
    code, err = result
    last = err.splitlines()[-1]
    assert code == 2 and last.startswith("dearlite: ")
    for word in words:
        assert word in last


@pytest.mark.parametrize("key", ALL, ids=ids)
def test_a_link_is_followed_and_the_mode_is_kept(write, tmp_path, key):
    need_posix()
    row = ROWS[key]
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / f"target.{row.ending}", tmp_path / f"link.{row.ending}"
    link.symlink_to(f"real/target.{row.ending}")
    if not row.state:  # a file that is there is replaced
        target.write_text("old")
        target.chmod(0o640)
    code, err = write(key, link)
    assert code == 0, err
    assert link.is_symlink() and target.read_bytes() != b"old" and target.stat().st_size > 10
    assert row.state or stat.S_IMODE(target.stat().st_mode) == 0o640
    assert not [name for name in os.listdir(tmp_path / "real") + os.listdir(tmp_path) if name.endswith(".draft")]


@pytest.mark.parametrize("key", WRITTEN, ids=ids)
def test_a_pipe_is_written_to(write, tmp_path, key):
    need_posix()
    pipe, read = tmp_path / f"pipe.{ROWS[key].ending}", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    code, err = write(key, pipe)
    assert code == 0, err
    join(reader)
    assert len(read[0]) > 10 and stat.S_ISFIFO(pipe.stat().st_mode)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(("pipe.", ".pipe")) and name != pipe.name]


@pytest.mark.parametrize("key", KEPT, ids=ids)
def test_a_pipe_keeps_no_state(write, tmp_path, key, monkeypatch):
    need_posix()
    monkeypatch.setattr(Reranker, "load", None)
    os.mkfifo(tmp_path / "pipe")
    refused(write(key, tmp_path / "pipe"), "is not an ordinary file")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("key", ALL, ids=ids)
def test_an_input_is_refused_before_the_work(write, places, tmp_path, key, monkeypatch):
    need_posix()
    row = ROWS[key]
    write(key, tmp_path / "none" / f"out.{row.ending}")  # makes a model's folder
    monkeypatch.setattr(Reranker, "load", None)
    for number, name in enumerate(row.inputs):
        head, _, tail = name.partition("/")
        source = places[head] / tail if tail else places[head]
        before = source.read_bytes()
        link, hard = tmp_path / f"{number}.{row.ending}", tmp_path / f"hard-{number}.{row.ending}"
        link.symlink_to(source)
        os.link(source, hard)
        for output in (link, hard):
            refused(write(key, output), "would overwrite the input", str(output))
        assert source.read_bytes() == before


@pytest.mark.parametrize("key", ALL, ids=ids)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(write, tmp_path, key, monkeypatch):
    need_posix()
    row = ROWS[key]
    (tmp_path / "file").write_text("old")
    locked = tmp_path / f"locked.{row.ending}"
    locked.write_text("old")
    locked.chmod(0o444)
    (tmp_path / f"round.{row.ending}").symlink_to(f"round.{row.ending}")
    (tmp_path / f"folder.{row.ending}").mkdir()
    models_made = tmp_path / "none" / f"out.{row.ending}"
    if not row.state or key[1] == "--cache":  # the folder of a journal is made
        refused(write(key, models_made), "does not exist; make it first")
    monkeypatch.setattr(Reranker, "load", None)
    for name, words in (
        (f"file/out.{row.ending}", "file"),
        (f"locked.{row.ending}", "read-only"),
        (f"round.{row.ending}", "circle"),
        (f"folder.{row.ending}", "it is a folder"),
        ("x" * 300 + f".{row.ending}", "File name too long"),
    ):
        refused(write(key, tmp_path / name), words)
    assert locked.read_text() == (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("key", WRITTEN, ids=ids)
def test_an_unknown_ending_is_refused_before_the_work(write, tmp_path, key, monkeypatch):
    write(key, tmp_path / "none" / f"out.{ROWS[key].ending}")
    monkeypatch.setattr(Reranker, "load", None)
    refused(write(key, tmp_path / "out.weird"), f".{ROWS[key].ending}", "out.weird")
    assert not (tmp_path / "out.weird").exists()


@pytest.mark.parametrize("key", WRITTEN, ids=ids)
def test_a_full_disk_leaves_the_old_file(write, tmp_path, key):
    row = ROWS[key]
    (tmp_path / "folder").mkdir()
    output = tmp_path / "folder" / f"out.{row.ending}"
    write(key, output if key[0] == "train mine" else tmp_path / "none" / f"out.{row.ending}")  # its journal is complete
    output.write_text("old")
    with no_more_than(1):
        code, err = write(key, output)
    assert code == 1 and "File too large" in err.splitlines()[-1]
    assert len([line for line in err.splitlines() if line.startswith("dearlite: cannot write")]) == 1
    assert output.read_text() == "old" and set(os.listdir(output.parent)) <= {output.name, f"{output.name}.journal"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "OUT.trec", "--jsonl", "OUT.trec.journal.jsonl", "--journal", "OUT.trec.journal.jsonl"], "both"),
        (["-o", "OUT.trec", "--jsonl", "LINK"], "both"),
        (["-o", "OUT.trec", "--cache", "OUT.trec"], "both"),
        (["-o", "OUT.trec", "--cache", "OUT.trec.journal"], "both"),
        (["-o", "-", "--jsonl", "-"], "both"),
        (["-o", "OUT.jsonl"], "--jsonl"),
    ],
)
def test_two_outputs_of_a_call_are_two_files(cli, places, tmp_path, options, words, monkeypatch):
    need_posix()
    monkeypatch.setattr(Reranker, "load", None)
    (tmp_path / "link.jsonl").symlink_to("out.trec")
    paths = {"OUT": str(tmp_path / "out"), "LINK": str(tmp_path / "link.jsonl")}
    made = [word.replace("OUT", paths["OUT"]).replace("LINK", paths["LINK"]) for word in options]
    code, _, err = cli("batch", places["COLLECTION"], "-m", places["MODEL"], *made)
    refused((code, err), words)


def test_the_journal_of_a_device_lies_in_dearlites_folder(cli, places, tmp_path, monkeypatch):
    need_posix()
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path / "home"))
    reading, writing = os.pipe()
    code, _, err = cli("batch", places["COLLECTION"], "-m", places["MODEL"], "-o", f"/dev/fd/{writing}")
    os.close(writing)
    with open(reading, "rb") as stream:
        assert code == 0 and len(stream.read().splitlines()) == 24, err
    assert [path.suffix for path in (tmp_path / "home" / "journals").iterdir()] == [".journal"]


def test_python_refuses_what_the_command_refuses(places, tmp_path):
    need_posix()
    source, model = places["COLLECTION"], places["MODEL"]
    (tmp_path / "link.trec").symlink_to(source / "run.trec")
    (tmp_path / "model.jsonl").symlink_to(model)
    for options, words in (
        ({"output": tmp_path / "link.trec"}, "would overwrite the input"),
        ({"jsonl": tmp_path / "model.jsonl"}, "would overwrite the input --model"),
        ({"output": tmp_path / "out.csv"}, "ending .csv"),
        ({"output": tmp_path / "none" / "out.trec"}, "does not exist"),
        ({"output": tmp_path / "out.trec", "cache": tmp_path / "out.trec"}, "both written"),
    ):
        with pytest.raises(UsageError, match=words):
            rerank_run(source, model=model, **options)
        with pytest.raises(UsageError, match=words):
            evaluate(source, model=model, measures="AP", **options)
    for options in ({"output": "x.trec"}, {"jsonl": "x.jsonl"}, {"cache": "x.db"}, {"journal": "x.journal"}):
        with pytest.raises(UsageError, match="would not be written: scored"):
            evaluate(source, scored=places["RUN"], **options)


def test_a_cluster_does_not_overwrite_its_input(cli, places, tmp_path, monkeypatch):
    monkeypatch.setattr("dearlite.cli.batch_ray.need", lambda *_, **__: None)
    monkeypatch.setattr("dearlite.cli.batch_ray.rerank_on_ray", None)
    before = (places["COLLECTION"] / "run.trec").read_bytes()
    (tmp_path / "file").touch()
    for folder, words in (
        (places["COLLECTION"], "run.trec would overwrite the input SOURCE"),
        (tmp_path / "file" / "out", "Not a directory"),
    ):
        code, _, err = cli("batch", places["COLLECTION"], "--ray", "-m", places["MODEL"], "-o", folder)
        refused((code, err), words)
    assert (places["COLLECTION"] / "run.trec").read_bytes() == before


def test_the_folder_of_a_training(tmp_path):
    need_posix()
    data = tmp_path / "data.jsonl"
    data.write_text("{}")
    (tmp_path / "file").touch()
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "training.json").symlink_to(data)
    for name, words in (
        ("file", "it is a file; name a folder"),
        ("file/out", "Not a directory"),
        ("round", "circle|File exists"),
        ("theirs", "would overwrite the input data"),
    ):
        config = PointwiseConfig(base="x", data=(str(data),), output=str(tmp_path / name))
        with pytest.raises(UsageError, match=words), open_output(config):
            pass
    with open_output(PointwiseConfig(base="x", data=(str(data),), output=str(tmp_path / "link"))) as (folder, _):
        assert sorted(os.listdir(folder)) == ["settings.json", "training.lock"]
    assert (tmp_path / "link").is_symlink() and data.read_text() == "{}"


def test_two_processes_with_one_output_both_succeed(places, tmp_path):
    command = [sys.executable, "-m", "dearlite", "rerank", str(places["QUERY"]), str(places["DOCS"]), "-m"]
    output = tmp_path / "same.jsonl"
    running = [subprocess.Popen([*command, str(places["MODEL"]), "-o", str(output)]) for _ in range(3)]
    assert [process.wait(WITHIN_S) for process in running] == [0, 0, 0]
    assert len(output.read_text().splitlines()) == 2 and os.listdir(tmp_path) == ["same.jsonl"]


def test_two_exports_with_one_output_leave_a_whole_file(write, places, models, tmp_path):
    """Case x04: both used to write FILE.draft."""
    models(ROWS["export", "--output", "pointwise"])
    output, options = tmp_path / "same.dear", {"quant": "fp32", "card": False, "force": True, "max_tokens": 48}
    with ThreadPoolExecutor(4) as pool:
        exports = [pool.submit(export, places["SCORER"], output=output, **options) for _ in range(4)]
        assert [result.result().path for result in exports] == [output] * 4
    Bundle(output).verify()
    assert os.listdir(tmp_path) == ["same.dear"]


REPEATED = [
    (path, option)
    for path, command in commands().items()
    for option in command.params
    if isinstance(option, click.Option) and not option.is_eager
]


@pytest.mark.parametrize(("path", "option"), REPEATED, ids=lambda value: getattr(value, "name", value))
def test_an_option_of_one_value_is_given_once(cli, path, option):
    name = max(option.opts, key=len)
    if option.is_flag:
        words = [name, name]
    else:
        value = option.type.choices[0] if isinstance(option.type, click.Choice) else "1"
        words = [name, value, name, value]
    code, _, err = cli(*path.split(), *words, "-h")
    refuses = not option.multiple and not (option.is_flag and not option.secondary_opts)
    assert (f"{name} is given 2 times, and takes one value: give it once" in err) == refuses
    assert not refuses or (code == 2 and err.count("\n") == 1)
