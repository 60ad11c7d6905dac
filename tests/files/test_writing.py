"""Files are written whole or not at all, checked before the work, and hashed."""

from contextlib import suppress

import pytest

from dearlite.errors import UsageError
from dearlite.files.hashing import sha256_of
from dearlite.files.writing import check_output, whole_file


def test_the_sha256_of_a_file_is_that_of_the_standard(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "abc") == sha256_of(str(tmp_path / "abc")) == digest


def test_an_output_path_is_checked_before_the_work(tmp_path):
    check_output(None)
    check_output("-")
    check_output(tmp_path / "out.trec")
    with pytest.raises(UsageError, match=r"the folder .*none does not exist; make it first"):
        check_output(tmp_path / "none" / "out.trec")
    with pytest.raises(UsageError, match="it is a folder; name a file in it"):
        check_output(tmp_path)


def test_a_block_that_fails_leaves_no_file_and_keeps_the_old_one(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with suppress(KeyboardInterrupt), whole_file(path) as stream:
        stream.write("half")
        raise KeyboardInterrupt
    assert [file.name for file in tmp_path.iterdir()] == ["out.txt"] and path.read_text() == "old"
    with whole_file(path) as stream:
        stream.write("new")
    assert path.read_text() == "new"
