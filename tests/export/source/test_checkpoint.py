"""A Hugging Face folder read in blocks: values against the safetensors library, each damage against its message."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dearlite.errors import CheckpointError, DearliteError
from dearlite.export.source.checkpoint import Checkpoint, name_some

ROWS = np.arange(15, dtype="<f4").reshape(5, 3)


def write_weights(path, tensors):
    """Writes a safetensors file without the library, from {name: (dtype, array)}."""
    entries, data = {}, b""
    for name, (dtype, value) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [len(data)]}
        data += value.tobytes()
        entries[name]["data_offsets"].append(len(data))
    write_raw(path, entries, data)


def write_raw(path, entries, data):
    header = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


@pytest.fixture
def folder(tmp_path):
    """A small complete model: two tensors in one file."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text('{"model_type": "llama"}')
    write_weights(made / "model.safetensors", {"rows": ("F32", ROWS), "bias": ("F32", np.ones(2, "<f4"))})
    return made


def shard(folder, places=None):
    """Splits the small model into two shards and an index with the weight map `places`."""
    (folder / "model.safetensors").unlink()
    write_weights(folder / "a.safetensors", {"rows": ("F32", ROWS)})
    write_weights(folder / "b.safetensors", {"bias": ("F32", np.ones(2, "<f4"))})
    places = {"rows": "a.safetensors", "bias": "b.safetensors"} if places is None else places
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def refusal(path, read=None):
    """The one-line error of opening the folder, or of reading the tensor `read`."""
    with pytest.raises(CheckpointError) as caught:  # noqa: PT012 - opening alone may raise
        checkpoint = Checkpoint(path)
        checkpoint.read(read)
    message = str(caught.value)
    assert isinstance(caught.value, DearliteError)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("max_shard_size", ["1GB", "20KB"])
def test_every_tensor_is_what_the_safetensors_library_reads(tmp_path, dtype, max_shard_size):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import load_file

    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_labels=1, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(3)
    model = transformers.LlamaForSequenceClassification(config).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    files = list(tmp_path.glob("*.safetensors"))
    assert len(files) == 1 if max_shard_size == "1GB" else len(files) > 1
    wanted = {name: value for file in files for name, value in load_file(file).items()}

    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.config["hidden_size"] == 32
    assert set(checkpoint.names) == set(wanted)
    for name, value in wanted.items():
        values = checkpoint.read(name)
        assert values.dtype == np.float32
        assert checkpoint.shape(name) == values.shape
        assert np.array_equal(values, value.float().numpy())
        blocks = list(checkpoint.blocks(name, 7))
        assert all(len(block) == 7 for block in blocks[:-1])
        assert np.array_equal(np.concatenate(blocks), values)
    assert checkpoint.sha256s() == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_bf16_is_the_upper_half_of_a_float32(folder):
    # 0x3f80 is 1, 0xc040 is -3, 0x4049 is pi to 8 bits, 0x0001 the least subnormal, 0x7f7f the largest finite one
    words = np.array([0x3F80, 0xC040, 0x4049, 0x0001, 0x7F7F, 0x8000], "<u2")
    write_weights(folder / "model.safetensors", {"w": ("BF16", words)})
    values = Checkpoint(folder).read("w")
    assert values.tolist() == [1.0, -3.0, 3.140625, 2.0**-133, (2 - 2**-7) * 2.0**127, 0.0]
    assert np.signbit(values[-1])


def test_rows_are_the_requested_ones(folder):
    checkpoint = Checkpoint(folder)
    assert checkpoint.rows("rows", 1, 3).tolist() == [[3, 4, 5], [6, 7, 8]]
    assert checkpoint.rows("rows", 4, 4).shape == (0, 3)
    assert [len(block) for block in checkpoint.blocks("rows", 2)] == [2, 2, 1]
    spec = checkpoint.spec("rows")
    assert (spec.dtype, spec.shape, spec.file.name) == ("F32", (5, 3), "model.safetensors")
    assert np.frombuffer(spec.file.read_bytes(), "<f4", 15, spec.offset).tolist() == list(range(15))


def test_blocks_may_be_changed_by_the_caller(folder):
    checkpoint = Checkpoint(folder)
    checkpoint.rows("rows", 0, 5)[:] = 0
    assert checkpoint.read("rows").tolist() == ROWS.tolist()


def test_scalars_cubes_and_empty_tensors(folder):
    tensors = {
        "scalar": ("F16", np.array(-2.5, "<f2")),
        "cube": ("F16", np.arange(24, dtype="<f2").reshape(2, 3, 4)),
        "empty": ("F32", np.zeros((0, 4), "<f4")),
    }
    write_weights(folder / "model.safetensors", tensors)
    checkpoint = Checkpoint(folder)
    for name, (_, value) in tensors.items():
        values = checkpoint.read(name)
        assert values.shape == value.shape
        assert values.tolist() == value.tolist()
    assert [block.shape for block in checkpoint.blocks("cube", 1)] == [(1, 3, 4)] * 2
    assert list(checkpoint.blocks("empty", 3)) == []


def test_shards_are_found_through_their_index(folder):
    shard(folder)
    checkpoint = Checkpoint(folder)
    assert list(checkpoint.names) == ["rows", "bias"]
    assert checkpoint.read("rows").tolist() == ROWS.tolist()
    assert set(checkpoint.sha256s()) == {"a.safetensors", "b.safetensors"}


def test_licence_comes_along(folder):
    assert Checkpoint(folder).license_text == ""
    (folder / "LICENSE.txt").write_text("Apache")
    assert Checkpoint(folder).license_text == "Apache"


def test_integers_are_listed_and_refused_only_when_read(folder):
    write_weights(folder / "model.safetensors", {"ids": ("I64", np.arange(3)), "w": ("F32", ROWS)})
    assert Checkpoint(folder).read("w").shape == (5, 3)
    assert "tensor 'ids' is I64" in refusal(folder, read="ids")


@pytest.mark.parametrize(("dtype", "stored"), [("F32", "<f4"), ("F16", "<f2"), ("BF16", "<u2")])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_found_in_their_block(folder, dtype, stored, bad):
    value = np.zeros((6, 2), "<f4")
    value[3, 1] = bad
    value = (value.view("<u4") >> 16).astype("<u2") if dtype == "BF16" else value.astype(stored)
    write_weights(folder / "model.safetensors", {"layer.weight": (dtype, value)})
    message = refusal(folder, read="layer.weight")
    assert "tensor 'layer.weight' holds NaN or infinite values" in message
    assert "another revision" in message
    checkpoint = Checkpoint(folder)
    assert checkpoint.rows("layer.weight", 0, 3).tolist() == [[0, 0]] * 3
    with pytest.raises(CheckpointError, match="rows 3 to 3"):
        list(checkpoint.blocks("layer.weight", 1))


def test_missing_folder_and_file_instead_of_folder(tmp_path, folder):
    assert "does not exist: give the folder" in refusal(tmp_path / "nowhere")
    assert "is a file: give the folder" in refusal(folder / "model.safetensors")


def test_folder_without_or_with_a_broken_config(folder):
    for text in ("{", "[1]", '"x"', "\xff"):
        (folder / "config.json").write_text(text, encoding="latin-1")
        assert "config.json does not hold a JSON object" in refusal(folder)
    (folder / "config.json").unlink()
    assert "has no config.json: fetch the model again" in refusal(folder)


def test_adapter_given_as_a_model_is_named(folder):
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")
    assert "is a LoRA adapter: give it as the adapter" in refusal(folder)


@pytest.mark.parametrize(
    "names",
    [
        ["pytorch_model.bin"],
        ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"],
        ["consolidated.00.pth"],
        ["weights.pt"],
    ],
)
def test_pickle_is_never_read(folder, names):
    (folder / "model.safetensors").unlink()
    for name in names:
        (folder / name).write_bytes(b"\x80\x04cos\nsystem\n")
    message = refusal(folder)
    assert names[0] in message
    assert "never read" in message
    assert "save_pretrained" in message


def test_folder_without_weights_or_without_an_index(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    assert "fetch the index" in refusal(folder)
    (folder / "model-00001-of-00002.safetensors").unlink()
    (folder / "training_args.bin").write_bytes(b"")  # a pickle, and no weights
    assert "has no weights: fetch model.safetensors" in refusal(folder)


def test_missing_shards_are_named_together(folder):
    shard(folder, {"rows": "a.safetensors", "x": "c.safetensors", "y": "d.safetensors", "z": "d.safetensors"})
    assert "lacks 2 of the 3 shards" in refusal(folder)
    assert "(c.safetensors, d.safetensors): fetch the missing files" in refusal(folder)


def test_index_that_names_a_tensor_which_its_shard_lacks(folder):
    shard(folder, {"rows": "a.safetensors", "bias": "a.safetensors", "gone": "b.safetensors"})
    assert "names 2 tensors that their shard does not hold" in refusal(folder)
    assert "('bias' in a.safetensors, 'gone' in b.safetensors)" in refusal(folder)


@pytest.mark.parametrize(("places", "why"), [([], "weight_map"), ({"rows": 3}, "weight_map"),
                                             ({"rows": "../a.safetensors"}, "outside its folder")])  # fmt: skip
def test_malformed_index_is_refused(folder, places, why):
    shard(folder, places)
    assert why in refusal(folder)


def test_truncation_anywhere_is_found(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert "truncated" in refusal(folder), size
    path.write_bytes(whole + b"\0")
    assert "1 bytes that belong to no tensor" in refusal(folder)


def test_shard_cut_after_opening_is_found(folder):
    checkpoint = Checkpoint(folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match="became shorter while it was read, at tensor 'rows'"):
        checkpoint.read("rows")


def test_git_lfs_pointer_is_named(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    assert "git lfs pull" in refusal(folder)


def entry(begin, end, dtype="F32", shape=(2,)):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ({"a": entry(0, 8), "b": entry(4, 12)}, "tensor 'a' and tensor 'b' overlap"),
        ({"a": entry(0, 8), "b": entry(0, 8)}, "overlap"),
        ({"a": entry(0, 8), "b": entry(12, 20)}, "leave a gap"),
        ({"a": entry(4, 12)}, "the header and tensor 'a' leave a gap"),
        ({"a": entry(-8, 0)}, "no valid dtype, shape and offsets for tensor 'a'"),
        ({"a": entry(8, 0)}, "-8 bytes"),
        ({"a": entry(0, 8, shape=(-2,))}, "no valid dtype"),
        ({"a": entry(0, 8, shape=(3,))}, "8 bytes where F32 of shape (3,) takes 12"),
        ({"a": entry(0, 8, shape=(2**40, 2**40))}, "is damaged"),
        ({"a": entry(0, 2**60)}, "is truncated"),
        ({"a": entry(0.0, 8.0)}, "no valid dtype"),
        ({"a": entry(False, 8)}, "no valid dtype"),
        ({"a": {"dtype": "F32"}}, "no valid dtype"),
        ({"a": None}, "no valid dtype"),
        ({"a": entry(0, 8, dtype="F8_E4M3", shape=(8,))}, "stored as 'F8_E4M3', and only F32, F16, BF16 can be read"),
        ({"a": entry(0, 8, dtype="nonsense")}, "stored as 'nonsense'"),
        ({"a\nb": entry(0, 9)}, r"tensor 'a\nb'"),
        ([], "lists no tensors"),
        (b"{", "damaged header"),
        (b"\xff\xfe", "damaged header"),
        (b"[" * 100_000, "damaged header"),
    ],
)
def test_damaged_headers_say_what_is_wrong(folder, entries, why):
    write_raw(folder / "model.safetensors", entries, bytes(20))
    assert why in refusal(folder)


def test_any_changed_header_byte_is_refused_or_harmless(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    refused = 0
    for place in range(8 + int.from_bytes(whole[:8], "little")):
        for byte in b'"9\xff':
            path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
            try:
                checkpoint = Checkpoint(folder)
                for name in checkpoint.names:
                    checkpoint.read(name)
            except CheckpointError:
                refused += 1
    assert refused > 300  # of 3 x 142; a letter of a name, or the byte that was there, does no harm


def test_unknown_tensor_raises_with_the_nearest_names(folder):
    assert "has no tensor 'row' (nearest: rows)" in refusal(folder, read="row")


def test_name_some_counts_the_rest():
    assert name_some(["a", "b"]) == "a, b"
    assert name_some(["a", "b", "c", "d", "e"], 2, "; ") == "a; b and 3 more"


# Linux counts VmHWM for this program alone; ru_maxrss begins at the peak of the process that forked it.
_PEAK = """
import re, sys
from dearlite.export.source.checkpoint import Checkpoint
def peak_mb():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
checkpoint = Checkpoint(sys.argv[1])
checkpoint.rows("big", 0, 1024)
before = peak_mb()
rows = sum(len(block) for block in checkpoint.blocks("big", 1024))
streamed = peak_mb()
checkpoint.read("big")
print(rows, streamed - before, peak_mb() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_blocks_of_a_large_tensor_take_no_more_memory_than_a_block(folder):
    shape = (50_000, 2048)  # 205 MB in bf16; zeros, so that the file takes no disk
    size = 2 * shape[0] * shape[1]
    path = folder / "model.safetensors"
    write_raw(path, {"big": {"dtype": "BF16", "shape": shape, "data_offsets": [0, size]}}, b"")
    with open(path, "ab") as file:
        file.truncate(path.stat().st_size + size)
    done = subprocess.run([sys.executable, "-c", _PEAK, str(folder)], capture_output=True, text=True, check=True)
    rows, streamed_mb, whole_mb = map(float, done.stdout.split())
    assert rows == shape[0]
    assert streamed_mb < 30  # a block of 1,024 rows is 8 MB
    assert whole_mb > 300  # the measure does see a tensor that is held whole
