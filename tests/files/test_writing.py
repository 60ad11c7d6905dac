"""An output is written whole or not at all: to a file behind its links, to a device or a pipe, and to stdout."""

import errno
import gzip
import io
import json
import os
import stat
import subprocess
import sys
import threading
import warnings
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from posix_only import need_posix
from waiting import join

from dearlite.errors import DearliteError, UsageError
from dearlite.files import drafts
from dearlite.files.hashing import sha256_of
from dearlite.files.json_text import JsonText, json_text
from dearlite.files.writing import standard_output, whole_file, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def reader(tmp_path):
    """Makes a pipe and reads it in a thread; gives the pipe's path and a function that returns what was read."""
    need_posix()
    pipe, read = tmp_path / "pipe.jsonl", []
    os.mkfifo(pipe)
    thread = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    thread.start()

    def result():
        join(thread)
        return read[0]

    return pipe, result


def test_the_sha256_of_a_file_is_that_of_the_standard(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "abc") == sha256_of(str(tmp_path / "abc")) == digest


def test_a_block_that_fails_leaves_no_file_and_keeps_the_old_one(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with suppress(KeyboardInterrupt), whole_file(path) as stream:
        stream.write("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["out.txt"] and path.read_text() == "old"
    write_text(path, "new")
    assert names(tmp_path) == ["out.txt"] and path.read_text() == "new"


def test_a_link_stays_a_link_and_its_file_is_written(tmp_path):
    need_posix()
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "target.txt"
    target.write_text("old")
    (tmp_path / "link").symlink_to("real/target.txt")  # relative to the link's folder
    (tmp_path / "real" / "chain").symlink_to(tmp_path / "link")
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "dangling").symlink_to("real/created.txt")
    for number, name in enumerate(["link", "real/chain", "folder/chain"]):
        write_text(tmp_path / name, str(number))
        assert target.read_text() == str(number) and not target.is_symlink()
    write_text(tmp_path / "dangling", "made")
    assert (tmp_path / "real" / "created.txt").read_text() == "made"
    assert all((tmp_path / name).is_symlink() for name in ("link", "real/chain", "dangling", "folder"))
    assert names(tmp_path / "real") == ["chain", "created.txt", "target.txt"]


def test_a_pipe_is_written_to_and_stays_a_pipe(reader):
    pipe, result = reader
    write_text(pipe, "line\n")
    assert result() == b"line\n"
    assert stat.S_ISFIFO(pipe.stat().st_mode) and names(pipe.parent) == ["pipe.jsonl"]


def test_a_block_that_fails_writes_nothing_to_a_pipe(reader):
    pipe, result = reader
    with suppress(ZeroDivisionError), whole_file(pipe) as stream:
        stream.write("half")
        raise ZeroDivisionError
    write_text(pipe, "whole")
    assert result() == b"whole"


def test_a_pipe_whose_reader_has_gone_is_an_error(tmp_path):
    need_posix()
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with pytest.raises(DearliteError, match=rf"cannot write /dev/fd/{writing}: Broken pipe"):
            write_text(f"/dev/fd/{writing}", "line\n")
    finally:
        os.close(writing)


def test_an_open_descriptor_is_written_to_where_it_stands(tmp_path):
    need_posix()
    log = tmp_path / "log"
    with open(log, "wb", buffering=0) as stream:
        stream.write(b"head ")
        write_text(f"/dev/fd/{stream.fileno()}", "body ")
        (tmp_path / "link").symlink_to(f"/proc/self/fd/{stream.fileno()}")
        write_text(tmp_path / "link", "tail")
    assert log.read_bytes() == b"head body tail"
    with open(log, "rb") as stream, pytest.raises(UsageError, match="open for reading only"):
        write_text(f"/dev/fd/{stream.fileno()}", "x")
    with pytest.raises(UsageError, match="cannot write /dev/fd/999: "):
        write_text("/dev/fd/999", "x")


def test_a_terminal_and_a_null_device_are_written_to(tmp_path):
    main, side = pytest.importorskip("pty").openpty()
    write_text(os.ttyname(side), "hello")
    assert os.read(main, 100) == b"hello"
    os.close(side)
    os.close(main)
    null = tmp_path / "null"
    try:
        os.mknod(null, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        null.write_bytes(b"x")
    except OSError:
        pytest.skip("device nodes cannot be made here")
    write_text(null, "gone")
    assert stat.S_ISCHR(null.stat().st_mode) and names(tmp_path) == ["null"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_the_mode_and_the_owner_of_the_old_file_are_kept(tmp_path, mode):
    path = tmp_path / "out.txt"
    path.write_text("old")
    path.chmod(mode)
    if os.geteuid() == 0:
        os.chown(path, 1234, 2345)
    before = path.stat()
    write_text(path, "new")
    after = path.stat()
    assert path.read_text() == "new"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_a_new_file_has_the_mode_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "out.txt", "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.txt").stat().st_mode) == 0o640


def test_a_private_file_has_a_private_draft(tmp_path):
    (tmp_path / "out.txt").touch(0o600)
    with whole_file(tmp_path / "out.txt"):
        (draft,) = (path for path in tmp_path.iterdir() if path.suffix == ".draft")
        assert stat.S_IMODE(draft.stat().st_mode) == 0o600


def test_two_writers_of_one_name_have_drafts_of_their_own(tmp_path):
    path = tmp_path / "out.txt"
    with whole_file(path) as one:
        one.write("one")
        with whole_file(path) as other:
            other.write("other")
            assert len(names(tmp_path)) == 2  # the second does not take the first's draft for a leftover
        assert path.read_text() == "other"
    assert path.read_text() == "one" and names(tmp_path) == ["out.txt"]


@pytest.mark.parametrize("folder", [False, True])
def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path, folder):
    code = (
        "import os, sys; from dearlite.files.drafts import Draft; "
        f"draft = Draft(sys.argv[1], folder={folder}); print(draft.path); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out.txt")], capture_output=True, check=False)
    assert killed.returncode == -9 and len(names(tmp_path)) == 1
    if folder:
        (tmp_path / names(tmp_path)[0] / "weights").write_text("large")
    write_text(tmp_path / "other.txt", "x")  # another output's draft is left alone
    assert len(names(tmp_path)) == 2
    write_text(tmp_path / "out.txt", "new")
    assert names(tmp_path) == ["other.txt", "out.txt"]


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("moment", ["before it is opened", "before it is locked", "while it is locked"])
def test_a_draft_that_another_writer_takes_for_a_leftover_is_made_again(tmp_path, monkeypatch, folder, moment):
    need_posix()
    locks, lock, opens, taken = pytest.importorskip("fcntl"), drafts.lock_alone, os.open, []

    def take():
        (draft,) = tmp_path.iterdir()
        taken.append(draft)
        if moment == "while it is locked":
            handle = opens(draft, os.O_RDONLY)
            lock(handle)
            taken.append(handle)
        elif folder:
            draft.rmdir()
        else:
            draft.unlink()

    def open_late(path, flags, *mode):
        if not taken and folder and moment == "before it is opened":
            take()
        return opens(path, flags, *mode)

    def lock_late(handle):
        if not taken:
            take()
        lock(handle)

    monkeypatch.setattr(os, "open", open_late)
    monkeypatch.setattr(drafts, "lock_alone", lock_late)
    with drafts.Draft(tmp_path / "out.txt", folder=folder) as draft:
        assert taken and draft.path.exists() and draft.path != taken[0]
        handle = opens(draft.path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            locks.flock(handle, locks.LOCK_EX | locks.LOCK_NB)
        os.close(handle)
    for handle in taken[1:]:
        os.close(handle)


def test_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / ("x" * (os.pathconf(tmp_path, "PC_NAME_MAX") - 4) + ".txt")
    write_text(path, "long")
    assert path.read_text() == "long" and len(names(tmp_path)) == 1


def test_a_full_disk_leaves_the_old_file_and_no_draft(tmp_path):
    resource, signal = pytest.importorskip("resource"), pytest.importorskip("signal")
    path = tmp_path / "out.txt"
    path.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
        with pytest.raises(DearliteError, match=r"out\.txt: File too large: the process may write no larger file"):
            write_text(path, "x" * 2**17)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) == ["out.txt"] and path.read_text() == "old"


def test_a_full_device_is_one_line(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    with open("/dev/full", "wb") as full, pytest.raises(DearliteError, match="No space left on device"):
        write_text(f"/dev/fd/{full.fileno()}", "x")


def test_gz_is_compressed_and_equal_content_gives_equal_bytes(tmp_path):
    for name in ("a.jsonl.gz", "b.GZ"):
        write_text(tmp_path / name, "é\n" * 100)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.jsonl.gz", "b.GZ"))
    assert gzip.decompress(first) == "é\n".encode() * 100 and first == second


def test_text_is_utf8_without_a_mark_and_with_lf(tmp_path):
    write_text(tmp_path / "out.txt", "é\r\n\udcff\n")
    assert (tmp_path / "out.txt").read_bytes() == b"\xc3\xa9\r\n\\udcff\n"


class Stream(io.TextIOWrapper):
    """A stdout of an encoding, which is a terminal or not."""

    def __init__(self, encoding, terminal=False):
        super().__init__(io.BytesIO(), encoding, newline="\n", errors="replace")
        self.terminal = terminal

    def isatty(self):
        return self.terminal

    def content(self):
        self.flush()
        return self.buffer.getvalue()


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "cp932"])
def test_stdout_of_another_encoding(monkeypatch, encoding):
    text = {"text": "雨 ☔ é \U0001f327"}
    monkeypatch.setattr(sys, "stdout", Stream(encoding))
    write_text("-", json_text(text), json=True)
    assert json.loads(sys.stdout.content().decode("ascii")) == text
    monkeypatch.setattr(sys, "stdout", Stream(encoding))
    write_text("-", "雨\té\n")
    assert sys.stdout.content() == "雨\té\n".encode()
    monkeypatch.setattr(sys, "stdout", Stream(encoding, terminal=True))
    write_text("-", "rain \U0001f327\n")
    assert sys.stdout.content() == b"rain ?\n"


def test_stdout_that_is_absent_or_has_no_bytes(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())  # as in a notebook
    write_text("-", "雨\n", json=True)
    assert sys.stdout.getvalue() == "雨\n"
    monkeypatch.setattr(sys, "stdout", None)  # as in pythonw
    with pytest.raises(DearliteError, match="there is no standard output to write to: name a file"):
        write_text("-", "x")


def test_a_block_that_fails_writes_nothing_to_stdout(capsys):
    with suppress(ZeroDivisionError), standard_output() as stream:
        stream.write("half")
        raise ZeroDivisionError
    assert capsys.readouterr().out == ""


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_json_is_valid_for_every_reader_and_loses_only_what_json_cannot_hold(value):
    def refuse(constant):
        raise AssertionError(constant)

    def without(value):
        if isinstance(value, float) and not np.isfinite(value):
            return None
        if isinstance(value, list):
            return [without(item) for item in value]
        return {key: without(item) for key, item in value.items()} if isinstance(value, dict) else value

    text = JsonText()(value)
    text.encode()
    assert json.loads(text, parse_constant=refuse) == without(value)


def test_numbers_of_numpy_are_numbers():
    row = {"a": np.float32(0.5), "b": np.int64(3), "c": np.float32("nan"), "d": np.array([1.0, np.inf]), "e": b"x"}
    with pytest.warns(UserWarning, match="2 numbers are NaN or infinite, which JSON cannot hold: written as null"):
        assert json.loads(json_text(row)) == {"a": 0.5, "b": 3, "c": None, "d": [1.0, None], "e": "b'x'"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert json_text({"a": 1.5}) == '{"a": 1.5}'


def test_an_error_of_the_system_has_its_remedy(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DearliteError, match="No space left on device: make room, or name a file on another"):
        write_text(tmp_path / "out.txt", "x")
    assert names(tmp_path) == []
