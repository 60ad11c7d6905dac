"""The journal: complete lines only, a single writer, and no use of damaged entries."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from posix_only import need_posix

from dearlite.documents import Document
from dearlite.errors import DearliteError, JournalInUse, UsageError
from dearlite.offline.run import journal as journal_module
from dearlite.offline.run.cache import ScoreCache, pair_key
from dearlite.offline.run.journal import Journal, digest_of, result_key, settings_key
from dearlite.offline.run.results import QueryScores
from dearlite.ranking import PairScore


def entries(path):
    with Journal(path) as journal:
        return list(journal.entries()), journal.cut_bytes, journal.damaged


@pytest.fixture
def journal_file(tmp_path):
    path = tmp_path / "a.journal"
    with Journal(path) as journal:
        for number in range(3):
            journal.add({"key": str(number), "scores": [0.1 * number]})
    return path


def test_what_was_added_is_there_after_opening_again(journal_file):
    saved, cut, damaged = entries(journal_file)
    assert [entry["key"] for entry in saved] == ["0", "1", "2"]
    assert saved[1]["scores"] == [0.1]
    assert (cut, damaged) == (0, 0)


def test_cut_at_any_byte_only_the_last_line_is_lost(journal_file, tmp_path):
    data = journal_file.read_bytes()
    ends = [position + 1 for position, byte in enumerate(data) if byte == ord("\n")]
    for size in range(len(data)):
        path = tmp_path / "cut.journal"
        path.write_bytes(data[:size])
        saved, cut, damaged = entries(path)
        whole = sum(end <= size for end in ends)
        assert len(saved) == max(0, whole - 1)  # the first line is the header
        assert cut == size - max([0, *(end for end in ends if end <= size)])
        assert damaged == 0
        assert entries(path)[:2] == (saved, 0)  # repaired


def test_a_damaged_line_is_not_believed_and_the_others_are(journal_file):
    data = bytearray(journal_file.read_bytes())
    position = data.index(b'"1"') + 1
    data[position] ^= 2
    journal_file.write_bytes(data)
    saved, cut, damaged = entries(journal_file)
    assert [entry["key"] for entry in saved] == ["0", "2"]
    assert (cut, damaged) == (0, 1)


def test_another_file_is_left_alone(tmp_path):
    path = tmp_path / "precious.txt"
    for text in ("my notes", "my notes\nmore\n", '00000000 {"dearlite":"journal","schema":1}\n'):
        path.write_text(text)
        with pytest.raises(UsageError, match="is not a journal of this dearlite: move it away"):
            Journal(path)
        assert path.read_text() == text


def test_a_journal_of_another_schema_is_named_as_such(tmp_path):
    path = tmp_path / "later.journal"
    path.write_bytes(journal_module._line({"dearlite": "journal", "schema": 2}))
    with pytest.raises(UsageError, match="is a journal of schema 2, and this dearlite writes schema 1: resume it with"):
        Journal(path)


def test_differences_of_identities_are_named_with_both_values():
    before = {"model": "m", "sha256": "0123456789abcdef" * 4, "onnxruntime": "1.31", "graph": "cpu.onnx"}
    now = {"model": "m", "sha256": "fedcba9876543210" * 4, "onnxruntime": "1.32", "processor": "arm64"}
    assert journal_module.differences(before, now) == (
        "sha256 (0123456789ab, here fedcba987654), onnxruntime (1.31, here 1.32), graph (cpu.onnx, here none), "
        "processor (none, here arm64)"
    )
    assert journal_module.differences(before, dict(before)) == ""


def test_a_second_process_is_refused(journal_file):
    opened = f"Journal(Path({str(journal_file)!r}))"
    code = f"from pathlib import Path\nfrom dearlite.offline.run.journal import Journal\n{opened}"
    with Journal(journal_file) as journal:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "JournalInUse" in done.stderr and "is being written by another dearlite" in done.stderr
        with pytest.raises(JournalInUse):
            Journal(journal_file)
        journal.add({"key": "still mine"})
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_full_disk_leaves_the_journal_whole(tmp_path, monkeypatch):
    """A file-size limit stands for the disk: the system takes a part of the line and refuses the rest."""
    need_posix()
    path = tmp_path / "a.journal"
    code = f"""
import resource, signal, sys
from pathlib import Path
from dearlite.offline.run.journal import DiskFull, Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
journal = Journal(Path({str(path)!r}))
try:
    for number in range(100):
        journal.add({{"key": str(number), "scores": [0.5] * 20}})
except DiskFull as err:
    print(number, err)
    sys.exit(3)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    number, message = done.stdout.split(" ", 1)
    assert "no disk space left for" in message and "free space and run the same command again" in message
    saved, cut, damaged = entries(path)
    assert len(saved) == int(number) > 3
    assert (cut, damaged) == (0, 0)
    with Journal(path) as journal:
        journal.add({"key": "after"})
    assert entries(path)[0][-1] == {"key": "after"}


def test_a_journal_is_an_ordinary_file(tmp_path):
    with pytest.raises(UsageError, match="is not an ordinary file"):
        Journal(Path(os.devnull))
    with pytest.raises(DearliteError, match="cannot write the journal"):
        Journal(tmp_path)


def test_keys_differ_in_everything_that_matters():
    model = {"model": "m", "sha256": "1", "prompt": "p", "options": "window=20"}
    settings = settings_key(model, "0.1")
    base = (settings, "q", "text", ["a", "b"], [b"1" * 16, b"2" * 16])
    others = [
        (settings_key(model | {"sha256": "2"}, "0.1"), *base[1:]),
        (settings_key(model | {"prompt": "r"}, "0.1"), *base[1:]),
        (settings_key(model | {"options": "window=10"}, "0.1"), *base[1:]),
        (settings_key(model, "0.2"), *base[1:]),
        (settings, "r", *base[2:]),
        (settings, "q", "other", *base[3:]),
        (settings, "q", "text", ["b", "a"], base[4]),
        (settings, "q", "text", ["a", "c"], base[4]),
        (settings, "q", "text", ["a", "b"], [b"1" * 16, b"3" * 16]),
        (settings, "q", "text", ["a"], [b"1" * 16]),
    ]
    keys = [result_key(*base), *(result_key(*other) for other in others)]
    assert len(set(keys)) == len(keys)
    assert result_key(*base) == keys[0]
    texts = [Document("b", title="a"), Document("", title="ab"), Document("ab"), Document("a b")]
    assert len({digest_of(document) for document in texts}) == len(texts)


def test_a_cache_gives_what_it_was_given(tmp_path):
    keys = [pair_key(b"s" * 16, f"query {i}", b"d" * 16) for i in range(1200)]
    with ScoreCache(tmp_path / "c.sqlite") as cache:
        assert cache.find(keys) == {}
        cache.add((key, PairScore(i / 7, i, i + 1)) for i, key in enumerate(keys[:1100]))
    with ScoreCache(tmp_path / "c.sqlite") as cache, ScoreCache(tmp_path / "c.sqlite") as other:
        scores = cache.find(keys)
        assert scores[keys[1099]] == PairScore(1099 / 7, 1099, 1100)
        assert len(scores) == cache.hits == 1100
        other.add([(keys[1150], PairScore(0.5, 1, 1))])
        assert cache.find(keys[1100:]) == {keys[1150]: PairScore(0.5, 1, 1)}


def test_a_file_that_is_no_cache_is_left_alone(tmp_path):
    import sqlite3

    text, database = tmp_path / "notes.txt", tmp_path / "other.sqlite"
    text.write_text("my notes, longer than a header of SQLite " * 10)
    with sqlite3.connect(database) as base:
        base.execute("CREATE TABLE mine (x)")
    for path in (text, database):
        before = path.read_bytes()
        with pytest.raises(UsageError, match="name another --cache"):
            ScoreCache(path)
        assert path.read_bytes() == before


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_not_kept(tmp_path, wrong):
    scores = QueryScores("q", ("a", "b"), "key")
    scores.put(0, PairScore(wrong, 3, 3))
    scores.put(1, PairScore(1.5, 3, 3))
    with Journal(tmp_path / "a.journal") as journal:
        journal.add(scores.entry(1.0))
    assert b"NaN" not in journal.path.read_bytes() and b"Infinity" not in journal.path.read_bytes()
    ((entry,), _, _) = entries(tmp_path / "a.journal")
    assert (entry["places"], entry["scores"]) == ([1], [1.5])


def test_the_journal_is_opened_without_translation_of_line_ends(tmp_path, monkeypatch):
    """Windows opens a descriptor in text mode unless O_BINARY is set; the CRC of every line would then be wrong."""
    binary, flags_of_calls, open_file = 0x40000000, [], os.open

    def recording(path, flags, *rest, **options):
        flags_of_calls.append(flags)
        return open_file(path, flags & ~binary, *rest, **options)

    monkeypatch.setattr(journal_module, "_BINARY", binary)
    monkeypatch.setattr(os, "open", recording)
    Journal(tmp_path / "j").close()
    assert any(flags & binary for flags in flags_of_calls)
