"""Outputs are checked before the work: they can be written, and no output is an input or another output."""

import os
import socket
import stat
from pathlib import Path

import pytest
from posix_only import need_posix

from dearlite.errors import UsageError
from dearlite.files.outputs import check_outputs, make_folder
from dearlite.files.targets import ending_of


def refused(output, inputs=None, **outputs):
    with pytest.raises(UsageError) as raised:
        check_outputs({"--output": output} | outputs, inputs)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_outputs_that_can_be_written_pass_and_nothing_is_left(tmp_path):
    check_outputs({"--output": None, "--csv": "-", "--json": tmp_path / "out.json"}, {"DOCS": tmp_path / "none"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "the name of an output is empty"),
        ("none/out", r"the folder none does not exist; make it first"),
        ("file/out", "file is a file, not a folder"),
        ("file/deep/out", "file is a file, not a folder"),
        ("folder", "it is a folder; name a file in it"),
        ("new/", "it is a folder; name a file in it"),
        ("folder/", "it is a folder; name a file in it"),
        ("x" * 300, "File name too long: shorten it"),
        ("round", "its links lead in a circle"),
        ("missing", "does not exist; make it first"),
        ("locked", "the file is read-only; chmod u+w it"),
        ("nul\0l", "null"),
        ("socket", "it is a socket"),
    ],
)
def test_an_output_that_cannot_be_written_is_told(tmp_path, monkeypatch, name, words):
    need_posix()
    monkeypatch.chdir(tmp_path)
    os.mkdir("folder")
    for file in ("file", "locked"):
        (tmp_path / file).write_text("old")
    os.chmod("locked", 0o444)
    os.symlink("round", "other")
    os.symlink("other", "round")
    os.symlink("none/target", "missing")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert words in refused(name)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    tmp_path.chmod(0o555)
    assert "Permission denied" in refused(tmp_path / "out")


def test_an_input_is_never_an_output(tmp_path, monkeypatch):
    need_posix()
    monkeypatch.chdir(tmp_path)
    for name in ("docs", "docs.journal", "other"):
        (tmp_path / name).write_text("kept")
    os.symlink("docs", "link")
    os.link("docs", "hard")
    for output in ("docs", "./docs", "link", "hard", tmp_path / "docs"):
        for source in ("docs", "link", "hard"):
            message = refused(output, {"DOCS": ["other", source], "QUERY": None})
            assert "--output" in message and "would overwrite the input DOCS" in message
    assert "would overwrite the journal of an input, docs.journal" in refused("docs.journal", {"DOCS": "docs"})
    check_outputs({"--output": "new", "--journal": "docs.journal"}, {"DOCS": "docs"})  # only appended to
    assert (tmp_path / "docs").read_text() == "kept"


def test_standard_input_is_an_input(tmp_path):
    (tmp_path / "docs").write_text("kept")
    before = os.dup(0)
    try:
        with open(tmp_path / "docs") as stream:
            os.dup2(stream.fileno(), 0)
            assert "would overwrite the input DOCS" in refused(tmp_path / "docs", {"DOCS": "-"})
    finally:
        os.dup2(before, 0)
        os.close(before)


def test_two_outputs_are_two_files(tmp_path, monkeypatch):
    need_posix()
    monkeypatch.chdir(tmp_path)
    os.symlink("out", "link")
    os.mkfifo("pipe")
    for one, other in (("out", "out"), ("out", "link"), ("pipe", "pipe"), ("-", "-")):
        assert "--output and --csv are both written to" in refused(one, **{"--csv": other})
    check_outputs({"--output": "out", "--csv": "out.csv"})
    check_outputs({"--output": os.devnull, "--csv": os.devnull})  # a check opens no device


def test_the_ending_of_an_output(tmp_path, monkeypatch):
    need_posix()
    monkeypatch.chdir(tmp_path)
    known = ("jsonl", "csv")
    os.mkfifo("pipe.weird")
    for name, ending in (("a.jsonl", "jsonl"), ("a.b.CSV.GZ", "csv"), ("plain", ""), ("pipe.weird", ""), ("-", "")):
        assert ending_of(name, known) == ending
    with pytest.raises(UsageError, match=r"cannot write a\.txt: .* has the ending \.txt \(known: \.jsonl, \.csv; hint"):
        ending_of("a.txt", known, remedy="; hint")
    with pytest.raises(UsageError, match="its ending names no format"):
        ending_of("plain", known, needed=True)
    with pytest.raises(UsageError, match=r"the ending \.gz"):
        ending_of("model.csv.gz", known, needed=True)
    assert stat.S_ISFIFO(os.stat("pipe.weird").st_mode)


@pytest.mark.parametrize("name", ["new", "out", "x", ".draft"])
def test_a_folder_of_outputs_may_hold_folders_of_any_name(tmp_path, name):
    (tmp_path / "runs" / name).mkdir(parents=True)
    make_folder(tmp_path / "runs")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [name]


def test_a_folder_of_outputs_that_cannot_be_made_or_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for folder, words in ((tmp_path / "file", "it is a file; name a folder"), (tmp_path / "file" / "in", "file")):
        with pytest.raises(UsageError, match=words):
            make_folder(folder)
    need_posix()
    with pytest.raises(UsageError, match=r"cannot write to /proc/self/fdinfo: "):
        make_folder(Path("/proc/self/fdinfo"))
