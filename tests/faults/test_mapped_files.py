"""A model file that changes while it is loaded: replaced by renaming it stays, written to in place it is refused.

Without the check, a file that is cut short ends the process (SIGBUS), and one that is overwritten gives other scores.
"""

import os
import shutil

import pytest
from posix_only import need_posix

from dearlite import Reranker
from dearlite.errors import ModelFileError
from dearlite.models.bundle import Bundle
from dearlite.models.held import HeldFile

DOCUMENTS = ["a river", "a bulb", "coffee"]


def cut_short(path):
    os.truncate(path, 4096)


def overwrite(path):
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        file.write(bytes(4096))


@pytest.fixture(scope="module", params=["dear", "gguf"])
def source(request, embedded_path, tmp_path_factory):
    """The embedded model, whose large tensors are used in the mapped file, and a listwise model."""
    need_posix()
    if request.param == "dear":
        return embedded_path
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    pytest.importorskip("tiny_gguf").write_tiny(path)
    return path


@pytest.fixture
def path(source, tmp_path):
    copy = tmp_path / source.name
    shutil.copyfile(source, copy)
    os.utime(copy, (1, 1))  # a write in the same tick of the clock would not show
    return copy


def ranking_of(reranker):
    return [(hit.index, hit.score) for hit in reranker.rerank("valley", DOCUMENTS)]


@pytest.mark.parametrize("change", [cut_short, overwrite])
def test_a_file_that_is_written_to_is_refused(path, change):
    with Reranker.load(path, device="cpu") as reranker:
        assert len(ranking_of(reranker)) == 3
        change(path)
        with pytest.raises(ModelFileError, match=r"was changed while it was in use.*load it again"):
            ranking_of(reranker)


def test_a_file_that_is_replaced_stays_what_it_was(path, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"another file")
    with Reranker.load(path, device="cpu") as reranker:
        before, identity = ranking_of(reranker), reranker.identity()
        os.replace(other, path)
        assert ranking_of(reranker) == before
        # It names the weights in use, in journals and caches too. A GGUF that records no hash has none any more.
        if path.suffix == ".dear":
            assert reranker.identity() == identity
        else:
            with pytest.raises(ModelFileError, match="was changed or replaced since it was opened"):
                reranker.identity()


def test_a_bundle_is_read_from_the_file_that_was_opened(embedded_path, tmp_path):
    need_posix()
    path = tmp_path / "m.dear"
    shutil.copyfile(embedded_path, path)
    bundle = Bundle(path)
    assert bundle.tensors()
    tokenizer, sha256 = bundle.read("tokenizer.json"), bundle.sha256()
    os.replace(shutil.copyfile(__file__, tmp_path / "other"), path)
    assert (bundle.read("tokenizer.json"), bundle.sha256()) == (tokenizer, sha256)
    bundle.close()
    late = Bundle(embedded_path)
    late._file = path  # replaced between its opening and the mapping of its weights
    with pytest.raises(ModelFileError, match="was changed while it was in use"):
        late.tensors()


def test_a_held_file_is_closed_with_its_owner(tmp_path):
    need_posix()
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    held = HeldFile(path)
    descriptor = held.descriptor
    assert held.read(2, 100) == b"23456789"
    held.check_path()
    os.replace(shutil.copyfile(path, tmp_path / "other"), path)
    held.check()
    with pytest.raises(ModelFileError, match="was replaced while it was loaded"):
        held.check_path()
    del held
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
