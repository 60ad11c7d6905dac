from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dearlite.errors import ModelFileError, UsageError
from dearlite.models.bundle import Bundle
from dearlite.models.bundle_writer import BundleWriter
from dearlite.models.facts import PointwiseFacts
from dearlite.models.manifest import Build, Manifest, Member, Tensor, parse_manifest

TENSORS = {
    "half": np.arange(15, dtype=np.float16).reshape(3, 5),  # 30 bytes: what follows needs padding
    "scalar": np.array(-2.5, np.float32),
    "bytes": np.arange(-64, 65, dtype=np.int8),
    "words": np.array([[0, 255], [7, 8]], np.uint8),
    "single": np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4),
    "index": np.array([2**40, -1], np.int64),
    "small index": np.array([2**30, -1], np.int32),
    "nothing": np.zeros((0, 4), np.float32),
}
MEMBERS = {"tokenizer.json": b'{"a": 1}', "cpu.onnx": b"a graph", "card.json": b'{"ndcg": 0.5}', "LICENSE": b"Apache"}
MODEL = PointwiseFacts(
    name="tiny",
    architecture="bert",
    prompt="plain",
    pooling="first-token",
    max_tokens=512,
    licence="Apache-2.0",
    source={"repository": "someone/tiny"},
)
BUILDS = (Build("cpu", "cpu.onnx", "one-document", "int8", ("u8s8-exact",)),)
FACTS: dict[str, Any] = {"kind": "pointwise", "builds": BUILDS} | asdict(MODEL)
for optional in ("calibration", "template", "activation", "attention"):
    del FACTS[optional]


def write(path: Path, tensors: dict[str, np.ndarray] = TENSORS, members: dict[str, bytes] = MEMBERS) -> Path:
    with BundleWriter(path) as writer:
        for name, value in tensors.items():
            data = value.tobytes()
            writer.add_tensor(name, value.dtype.name, value.shape, [data[:7], data[7:]])
        writer.finish(members, MODEL, BUILDS)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A small whole bundle."""
    return write(tmp_path / "tiny.dear")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a small whole bundle."""
    return write(tmp_path_factory.mktemp("whole") / "tiny.dear").read_bytes()


def contents(path: Path) -> tuple[Manifest, dict[str, bytes], dict[str, tuple[str, tuple[int, ...], bytes]]]:
    """All that a bundle says."""
    bundle = Bundle(path)
    bundle.verify()
    tensors = {name: (t.dtype.name, t.shape, t.tobytes()) for name, t in bundle.tensors().items()}
    return bundle.manifest, {name: bundle.read(name) for name in bundle.manifest.members}, tensors


def refused(path: Path, data: bytes | None = None) -> str:
    """The message with which opening `path`, or using what was opened, ends."""
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ModelFileError) as caught:
        contents(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def data_offsets(data: bytes) -> dict[str, int]:
    """Where each member's data starts, read off the records of PKWARE's APPNOTE 4.3 by hand."""
    end = data.rindex(b"PK\5\6")
    count, _, place = struct.unpack_from("<HII", data, end + 10)
    offsets = {}
    for _ in range(count):
        assert data[place : place + 4] == b"PK\1\2"
        name_size, extra_size, comment_size = struct.unpack_from("<HHH", data, place + 28)
        (local,) = struct.unpack_from("<I", data, place + 42)
        name = data[place + 46 : place + 46 + name_size].decode()
        assert data[local : local + 4] == b"PK\3\4"
        local_name_size, local_extra_size = struct.unpack_from("<HH", data, local + 26)
        offsets[name] = local + 30 + local_name_size + local_extra_size
        place += 46 + name_size + extra_size + comment_size
    return offsets


def stored_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


Pieces = list[tuple[int, bytes]]  # (place in the member, bytes there); zeros elsewhere


def zip64(path: Path, members: dict[str, tuple[int, Pieces]]) -> Path:
    """Writes stored ZIP64 members by hand (APPNOTE 4.3, 4.5.3), each of a size, weights.bin at a page."""
    central = b""
    with open(path, "wb") as file:
        for name, (size, pieces) in members.items():
            local = file.tell()
            crc = zlib.crc32(pieces[0][1]) if pieces and len(pieces[0][1]) == size else 0
            extra = struct.pack("<HHQQ", 1, 16, size, size)
            if name == "weights.bin":
                padding = -(local + 30 + len(name) + len(extra) + 4) % 4096
                extra += struct.pack("<HH", 0xD935, padding) + bytes(padding)
            head = struct.pack("<HHHHHIIIHH", 45, 0, 0, 0, 33, crc, 2**32 - 1, 2**32 - 1, len(name), len(extra))
            file.write(b"PK\3\4" + head + name.encode() + extra)
            start = file.tell()
            for place, data in pieces:
                file.seek(start + place)
                file.write(data)
            file.seek(start + size)
            extra = struct.pack("<HHQQQ", 1, 24, size, size, local)
            head = struct.pack("<HHHHHHIIIHH", 45, 45, 0, 0, 0, 33, crc, 2**32 - 1, 2**32 - 1, len(name), len(extra))
            central += b"PK\1\2" + head + struct.pack("<HHHII", 0, 0, 0, 0, 2**32 - 1) + name.encode() + extra
        start, count = file.tell(), len(members)
        end = struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, len(central), start)
        file.write(central + b"PK\6\6" + end)
        file.write(b"PK\6\7" + struct.pack("<IQI", 0, start + len(central), 1))
        file.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, count, count, 2**32 - 1, 2**32 - 1, 0))
    return path


def unpacked(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def repacked(path: Path, members: dict[str, bytes]) -> Path:
    """`path`, now a ZIP of `members` that is a bundle in every respect but what they hold."""
    return zip64(path, {name: (len(data), [(0, data)]) for name, data in members.items()})


def edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """The bundle with its manifest changed by `edit`."""
    members = unpacked(path)
    manifest = json.loads(members["manifest.json"])
    edit(manifest)
    return repacked(path, members | {"manifest.json": json.dumps(manifest).encode()})


# What is written is what is read


def test_tensors_come_back_equal(path):
    tensors = Bundle(path).tensors()
    assert set(tensors) == set(TENSORS)
    for name, expected in TENSORS.items():
        assert tensors[name].dtype == expected.dtype, name
        assert tensors[name].shape == expected.shape, name
        np.testing.assert_array_equal(tensors[name], expected)


@pytest.mark.parametrize("names", [["single"], ["scalar", "half"], []])
def test_only_the_named_tensors_are_given(path, names):
    tensors = Bundle(path).tensors(names)
    assert sorted(tensors) == sorted(names)
    for name in names:
        np.testing.assert_array_equal(tensors[name], TENSORS[name])


def test_tensors_are_read_only_views_of_the_file(path):
    tensors = Bundle(path).tensors()
    with pytest.raises(ValueError, match="read-only"):
        tensors["single"][0, 0, 0] = 1.0


def test_members_and_facts_come_back_equal(path):
    bundle = Bundle(path)
    assert {name: bundle.read(name) for name in MEMBERS} == MEMBERS
    assert {name: getattr(bundle.manifest, name) for name in FACTS} == FACTS
    assert bundle.card() == {"ndcg": 0.5}
    assert bundle.manifest.members["cpu.onnx"] == Member(7, hashlib.sha256(b"a graph").hexdigest())


def test_a_bundle_without_a_card_has_an_empty_one(tmp_path):
    members = {name: data for name, data in MEMBERS.items() if name != "card.json"}
    assert Bundle(write(tmp_path / "tiny.dear", members=members)).card() == {}


def test_a_member_that_is_not_there_is_a_bundle_error(path):
    with pytest.raises(ModelFileError, match=r"no member cuda\.onnx"):
        Bundle(path).read("cuda.onnx")


def test_the_content_is_named_by_the_hash_of_its_manifest(path):
    assert Bundle(path).sha256() == hashlib.sha256(unpacked(path)["manifest.json"]).hexdigest()


def test_any_unzip_can_read_it(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert set(archive.namelist()) == {"weights.bin", "manifest.json", *MEMBERS}
        assert archive.read("cpu.onnx") == b"a graph"


def test_weights_start_at_a_page_and_tensors_at_64_bytes(path):
    data = path.read_bytes()
    start = data_offsets(data)["weights.bin"]
    assert start % 4096 == 0
    members = unpacked(path)
    assert data[start:].startswith(members["weights.bin"])
    manifest = json.loads(members["manifest.json"])
    for name, tensor in manifest["tensors"].items():
        assert tensor["offset"] % 64 == 0, name
        expected = TENSORS[name].tobytes()
        assert data[start + tensor["offset"] :][: len(expected)] == expected, name


def test_the_same_content_gives_the_same_bytes(tmp_path, whole):
    (tmp_path / "elsewhere").mkdir()
    assert write(tmp_path / "elsewhere" / "another-name.dear").read_bytes() == whole


def test_a_bundle_may_be_renamed_and_moved(path, tmp_path):
    before = contents(path)
    (tmp_path / "ein Ordner ü").mkdir()
    moved = tmp_path / "ein Ordner ü" / "renamed.bin"
    shutil.move(path, moved)
    assert contents(moved) == before


def test_a_bundle_is_opened_by_string_too(path):
    assert Bundle(str(path)).manifest.name == "tiny"


# Files that are no whole bundle


def test_a_bundle_cut_at_any_length_is_an_error(tmp_path, whole):
    cut = tmp_path / "cut.dear"
    cut.write_bytes(whole)
    for size in range(len(whole) - 1, -1, -1):
        os.truncate(cut, size)
        with pytest.raises(ModelFileError):
            Bundle(cut)


@pytest.fixture
def check_flip(path: Path, whole: bytes) -> Callable[[int, int], None]:
    """Fails unless a damaged byte is told or is one that says nothing."""
    expected = contents(path)

    def check(place: int, flip: int) -> None:
        place %= len(whole)
        data = bytearray(whole)
        data[place] ^= flip
        path.write_bytes(data)
        try:
            found = contents(path)
        except ModelFileError:
            return
        assert found == expected, f"byte {place} of {len(whole)} flipped by {flip:#x} changes what is read"

    return check


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 2**30), flip=st.integers(1, 255))
def test_one_damaged_byte_anywhere_is_told_or_means_nothing(check_flip, place, flip):
    check_flip(place, flip)


def test_each_damaged_byte_of_a_member_is_told(path, whole):
    sizes = {name: len(data) for name, data in unpacked(path).items()}
    silent = []
    for name, start in data_offsets(whole).items():
        step = 1 if sizes[name] < 100 else 7
        for place in range(0, sizes[name], step):
            data = bytearray(whole)
            data[start + place] ^= 1
            path.write_bytes(data)
            try:
                Bundle(path)
            except ModelFileError:
                continue
            silent.append((name, place))
    assert silent == []


def test_each_damaged_byte_of_the_zip_records_is_told_or_means_nothing(check_flip, whole):
    start = whole.index(b"PK\1\2")  # from here on: the central directory and its end
    places = [*range(80), *range(start, len(whole))]
    padding = bytes(50)  # of which a few bytes will do
    for place in places:
        if whole[place - 25 : place + 25] != padding or place % 100 == 0:
            check_flip(place, (1, 0x80, 0xFF)[place % 3])


@pytest.mark.parametrize(
    "data",
    [b"", b"PK", b"PK\3\4", b"just a text file\n" * 100, b"GGUF" + bytes(1000), bytes(5000), b"PK\5\6" + bytes(18)],
    ids=["empty", "two bytes", "a signature", "text", "GGUF", "zeros", "empty zip"],
)
def test_a_foreign_file_is_a_bundle_error_with_a_remedy(tmp_path, data):
    assert ".dear" in refused(tmp_path / "foreign.dear", data)


def test_a_foreign_zip_is_a_bundle_error(tmp_path):
    path = stored_zip(tmp_path / "photos.zip", {"a.txt": b"a", "b/c.txt": b"c"})
    assert "without manifest.json" in refused(path)


@pytest.mark.parametrize(
    "manifest", [b"", b"{}", b"[]", b"3", b"null", b"not json", b"\xff\xfe", b'{"manifest_version": 3}', b"[" * 100_000]
)
def test_a_zip_with_another_ones_manifest_is_a_bundle_error(tmp_path, manifest):
    assert "manifest" in refused(stored_zip(tmp_path / "extension.zip", {"manifest.json": manifest}))


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_bundle_that_was_compressed_is_a_bundle_error(path, compression):
    assert "compressed" in refused(stored_zip(path, unpacked(path), compression))


def test_an_encrypted_member_is_a_bundle_error(path, whole):
    data = bytearray(whole)
    data[whole.index(b"PK\1\2") + 8] |= 1  # general purpose bit 0 of the first member
    assert "encrypted" in refused(path, bytes(data))


def test_a_record_that_points_beyond_any_file_is_a_bundle_error(path, whole):
    # The central record of manifest.json, its offset moved to a ZIP64 field that holds 2**63 + 1.
    place, end = whole.rindex(b"PK\1\2"), whole.rindex(b"PK\5\6")
    extra = struct.pack("<HHQ", 1, 8, 2**63 + 1)
    record = bytearray(whole[place:end])
    record[30:32] = struct.pack("<H", len(extra))
    record[42:46] = b"\xff" * 4
    (size,) = struct.unpack_from("<I", whole, end + 12)
    tail = whole[end : end + 12] + struct.pack("<I", size + len(extra)) + whole[end + 16 :]
    refused(path, whole[:place] + bytes(record) + extra + tail)


def test_a_missing_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"none\.dear") as caught:
        Bundle(tmp_path / "none.dear")
    assert caught.value.exit_code == 2


def test_a_folder_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError):
        Bundle(tmp_path)


# Manifests that do not fit


def test_a_bundle_made_by_hand_is_whole(path):
    before = contents(path)
    assert contents(edited(path, lambda manifest: None)) == before  # so that the tests below fail by their edit


@pytest.mark.parametrize("schema", [5, 0, "1", None, 1.5, True])
def test_another_schema_is_refused_by_its_number(path, schema):
    message = refused(edited(path, lambda manifest: manifest.update(schema=schema)))
    assert "schema" in message


def test_a_later_schema_says_update(path):
    assert "schema 5" in (message := refused(edited(path, lambda manifest: manifest.update(schema=5))))
    assert "update dearlite" in message


def test_unknown_and_missing_keys_are_told_together(path):
    def edit(manifest):
        del manifest["licence"], manifest["pooling"]
        manifest["license"] = "MIT"

    message = refused(edited(path, edit))
    assert all(word in message for word in ("missing key 'licence'", "missing key 'pooling'", "unknown key 'license'"))


NESTED = {
    "build": lambda m: m["builds"][0],
    "member": lambda m: m["members"]["cpu.onnx"],
    "tensor": lambda m: m["tensors"]["single"],
}


@pytest.mark.parametrize("part", NESTED)
def test_unknown_keys_inside_are_told(path, part):
    assert "unknown key 'extra'" in refused(edited(path, lambda manifest: NESTED[part](manifest).update(extra=1)))


@pytest.mark.parametrize(
    ("part", "key"), [("build", "graph"), ("member", "sha256"), ("tensor", "shape"), ("tensor", "offset")]
)
def test_missing_keys_inside_are_told(path, part, key):
    assert key in refused(edited(path, lambda manifest: NESTED[part](manifest).pop(key)))


@pytest.mark.parametrize("key", [*FACTS, "members", "tensors", "schema"])
def test_each_missing_key_is_told(path, key):
    refused(edited(path, lambda manifest: manifest.pop(key)))


MISTYPED = {
    "kind": [None, 3, ["pointwise"], True],
    "max_tokens": [None, "512", 512.0, True, [512]],
    "source": [None, 3, "text", [1], True],
    "builds": [None, 3, "text", [1], [None], True],
    "members": [None, 3, "text", [1], {"cpu.onnx": 7}, True],
    "tensors": [None, 3, "text", [1], {"single": [0]}, True],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in MISTYPED.items() for value in values])
def test_a_value_of_another_type_is_a_bundle_error(path, key, value):
    refused(edited(path, lambda manifest: manifest.update({key: value})))


@pytest.mark.parametrize(
    "change",
    [
        {"offset": 32},
        {"offset": -64},
        {"offset": 2**40},
        {"offset": 64.0},
        {"shape": [2, 3, 400]},
        {"shape": [-2, -3, 4]},
        {"shape": [2, 3, 4.0]},
        {"shape": "234"},
        {"shape": None},
        {"dtype": "float8"},
        {"dtype": "object"},
        {"dtype": None},
        {"dtype": []},
    ],
    ids=str,
)
def test_a_tensor_that_cannot_lie_in_the_weights_is_a_bundle_error(path, change):
    refused(edited(path, lambda manifest: manifest["tensors"]["single"].update(change)))


def test_a_tensor_that_a_build_needs_and_the_file_lacks_is_named(path):
    message = refused(edited(path, lambda manifest: manifest["builds"][0].update(tensors=["half", "gone"])))
    assert "gone" in message
    assert "half" not in message


@pytest.mark.parametrize("name", ["tokenizer.json", "cpu.onnx", "weights.bin"])
def test_a_member_that_was_taken_out_is_named(path, name):
    members = unpacked(path)
    del members[name]
    assert f"{name} is missing" in refused(repacked(path, members))


@pytest.mark.parametrize("name", ["tokenizer.json", "cpu.onnx", "weights.bin"])
def test_a_member_that_neither_the_manifest_nor_the_file_has_is_named(path, name):
    members = unpacked(edited(path, lambda manifest: manifest["members"].pop(name)))
    del members[name]
    assert name in refused(repacked(path, members))


def test_a_member_that_was_added_is_named(path):
    assert "virus.exe was added" in refused(repacked(path, unpacked(path) | {"virus.exe": b"MZ"}))


def test_a_member_that_was_replaced_is_named(path):
    members = unpacked(path)
    assert "cpu.onnx does not match" in refused(repacked(path, members | {"cpu.onnx": b"b graph"}))
    assert "cpu.onnx has 3 bytes instead of 7" in refused(repacked(path, members | {"cpu.onnx": b"abc"}))


# Writing that fails


class SomeError(Exception):
    pass


def failing_blocks() -> Iterator[bytes]:
    yield b"\0\0\0\0"
    raise SomeError


def failing_builds() -> Iterator[Build]:
    yield from BUILDS
    raise SomeError


def fail_before_any_tensor(writer: BundleWriter) -> None:
    raise SomeError


def fail_inside_a_tensor(writer: BundleWriter) -> None:
    writer.add_tensor("a", "float32", (2,), failing_blocks())


def fail_in_finish(writer: BundleWriter) -> None:
    writer.add_tensor("a", "float32", (1,), [b"\0\0\0\0"])
    writer.finish(MEMBERS, MODEL, failing_builds())


def fail_after_finish(writer: BundleWriter) -> None:
    writer.finish(MEMBERS, MODEL, BUILDS)
    raise SomeError


def interrupt(writer: BundleWriter) -> None:
    raise KeyboardInterrupt


FAILURES = [fail_before_any_tensor, fail_inside_a_tensor, fail_in_finish, fail_after_finish, interrupt]


@pytest.mark.parametrize("fail", FAILURES)
def test_a_failed_write_leaves_no_file(tmp_path, fail):
    with pytest.raises((SomeError, TypeError, KeyboardInterrupt)), BundleWriter(tmp_path / "new.dear") as writer:
        fail(writer)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fail", FAILURES)
def test_a_failed_write_leaves_the_old_bundle_intact(path, whole, fail):
    with pytest.raises((SomeError, TypeError, KeyboardInterrupt)), BundleWriter(path) as writer:
        fail(writer)
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == whole


def test_a_write_that_never_finishes_leaves_no_file(tmp_path):
    with BundleWriter(tmp_path / "new.dear") as writer:
        writer.add_tensor("a", "int8", (1,), [b"\1"])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_file(tmp_path):
    resource = pytest.importorskip("resource")
    # A limit on the size of files fails a write in the middle, as a full disk does.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    block = bytes(2**16)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, hard))
        with pytest.raises(OSError, match="large"), BundleWriter(tmp_path / "new.dear") as writer:
            writer.add_tensor("a", "int8", (2**20,), [block] * 16)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_a_good_write_replaces_the_old_bundle(path):
    write(path, tensors={"one": np.ones(3, np.float32)})
    assert list(path.parent.iterdir()) == [path]
    assert list(Bundle(path).tensors()) == ["one"]


@pytest.mark.parametrize("blocks", [[], [b"\0" * 7], [b"\0" * 8, b"\0"]])
def test_a_tensor_of_another_size_than_its_shape_is_an_error(tmp_path, blocks):
    with pytest.raises(ModelFileError, match="tensor a"), BundleWriter(tmp_path / "new.dear") as writer:
        writer.add_tensor("a", "float32", (2,), blocks)


@pytest.mark.parametrize("position", [0, 6, 7, 20])
def test_an_int8_tensor_with_the_lowest_value_is_refused(tmp_path, position):
    """-128 times -128, twice, does not fit into 16 bits, in which Arm CPUs without dot products add."""
    values = np.linspace(-127, 127, 21).astype(np.int8)
    write(tmp_path / "good.dear", {"a": values})
    values[position] = -128
    with pytest.raises(ModelFileError, match="tensor a holds -128"):
        write(tmp_path / "bad.dear", {"a": values})
    write(tmp_path / "unsigned.dear", {"a": values.view(np.uint8)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.dear", "unsigned.dear"]


def test_no_int8_tensor_of_a_shipped_file_holds_the_lowest_value():
    shipped = sorted((resources.files("dearlite") / "data").glob("*.dear"))
    tensors = {name: tensor for path in shipped for name, tensor in Bundle(path).tensors().items()}
    matrices = {name: tensor for name, tensor in tensors.items() if tensor.dtype == np.int8}
    assert len(matrices) == 51
    assert [name for name, tensor in matrices.items() if tensor.min() < -127] == []


def test_a_tensor_written_twice_is_an_error(tmp_path):
    with BundleWriter(tmp_path / "new.dear") as writer:
        writer.add_tensor("a", "int8", (1,), [b"\1"])
        with pytest.raises(ModelFileError, match="tensor a"):
            writer.add_tensor("a", "int8", (1,), [b"\1"])


# Larger than 4 GB: the sparse file takes no room on the disk


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """A bundle of 5 GB, nearly all of it a hole."""
    if os.name != "posix":
        pytest.skip("needs files with holes")
    size, last = 5 * 2**30, 5 * 2**30 - 64
    first, end = np.arange(16, dtype=np.float32), np.arange(16, 32, dtype=np.float32)
    manifest = Manifest(
        **FACTS,
        members={n: Member(len(d), hashlib.sha256(d).hexdigest()) for n, d in MEMBERS.items()}
        | {"weights.bin": Member(size, "not hashed on opening")},
        tensors={
            "first": Tensor("float32", (16,), 0),
            "hole": Tensor("int8", (3, 2**30), 64),
            "end": Tensor("float32", (4, 4), last),
        },
    )
    small = {name: (len(data), [(0, data)]) for name, data in MEMBERS.items()}
    manifest_json = manifest.to_json()
    weights = (size, [(0, first.tobytes()), (last, end.tobytes())])
    small["manifest.json"] = (len(manifest_json), [(0, manifest_json)])
    path = zip64(tmp_path / "huge.dear", {"weights.bin": weights, **small})
    if path.stat().st_blocks * 512 > 2**20:
        pytest.skip("this file system keeps no holes")
    return path


def test_weights_of_more_than_4_gb_are_mapped(huge):
    bundle = Bundle(huge)
    tensors = bundle.tensors()
    np.testing.assert_array_equal(tensors["first"], np.arange(16))
    np.testing.assert_array_equal(tensors["end"], np.arange(16, 32).reshape(4, 4))
    assert tensors["hole"].shape == (3, 2**30)
    assert tensors["hole"][2, 2**30 - 1] == 0
    assert bundle.read("LICENSE") == b"Apache"  # it lies behind the first 4 GB


def test_a_huge_bundle_cut_short_is_an_error(huge):
    for size in (huge.stat().st_size - 1, huge.stat().st_size - 23, 5 * 2**30, 2**32, 2**31, 100):
        os.truncate(huge, size)
        with pytest.raises(ModelFileError):
            Bundle(huge)


def test_each_damaged_byte_of_the_zip64_records_is_told_or_means_nothing(huge):
    end = 56 + 20 + 22  # the three records at the end: ZIP64's, its locator, the plain one
    # Left out, as zipfile then reads gigabytes before it gives up: both signatures and the directory's size.
    places = set(range(end)) - {*range(4), *range(40, 48), *range(56, 60)}
    with open(huge, "r+b") as file:
        start = file.seek(-end, os.SEEK_END)
        records = file.read()
        assert records.startswith(b"PK\6\6")
        before = Bundle(huge).manifest
        for place in places:
            for flip in (1, 0x80):
                damaged = bytearray(records)
                damaged[place] ^= flip
                file.seek(start)
                file.write(damaged)
                file.flush()
                try:
                    bundle = Bundle(huge)
                except ModelFileError:
                    continue
                assert bundle.manifest == before, f"byte {place} flipped by {flip:#x}"


# The embedded model


def test_the_embedded_bundle_is_whole_and_small(embedded_path):
    bundle = Bundle(embedded_path)
    bundle.verify()
    assert bundle.manifest.name == "minilm-l12"
    assert embedded_path.stat().st_size < 40_000_000
    with zipfile.ZipFile(embedded_path) as archive:
        assert archive.testzip() is None


def test_the_embedded_tensors_can_be_mapped(embedded_path):
    bundle = Bundle(embedded_path)
    tensors = bundle.tensors()
    for name, tensor in bundle.manifest.tensors.items():
        assert tensors[name].shape == tensor.shape
        assert tensors[name].ctypes.data % 64 == 0, f"{name} is not aligned in memory"


@pytest.mark.parametrize("name", ["calibration", "activation", "source", "members", "tensors"])
@pytest.mark.parametrize("value", [0.5, [], "text", True])
def test_a_part_of_the_manifest_that_is_no_object_is_refused(path, name, value):
    raw = json.loads(Bundle(path).manifest.to_json())
    with pytest.raises(ModelFileError, match="does not fit schema"):
        parse_manifest(json.dumps(raw | {name: value}).encode(), "m.dear")
    assert parse_manifest(json.dumps(raw | {"calibration": None}).encode(), "m.dear").calibration is None


@pytest.mark.parametrize("name", ["requires", "tensors"])
@pytest.mark.parametrize("value", [[["a"]], [1], [None], [{}]])
def test_a_build_that_names_other_things_than_texts_is_refused(path, name, value):
    raw = json.loads(Bundle(path).manifest.to_json())
    raw["builds"][0][name] = value
    with pytest.raises(ModelFileError, match=f"'{name}' is not a list of names"):
        parse_manifest(json.dumps(raw).encode(), "m.dear")
