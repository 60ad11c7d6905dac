"""Misuse that kills or hangs llama.cpp itself: here it gives one clear error, and the process lives on.

Each case runs in a new process, which prints the error and then ranks two documents to show that it still can.
It forks from one that has imported the library and loaded nothing.
"""

import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from at_work import start_until
from forked import ForkServer
from posix_only import need_posix
from tiny_gguf import write_adapter, write_tiny
from waiting import WITHIN_S

from dearlite.errors import ModelFileError
from dearlite.llama.bindings import installed_engine
from dearlite.models.gguf import SHA256, GgufFile

HERE = Path(__file__).parents[1] / "support"
PRELUDE = """
import sys, os
sys.path.insert(0, {here!r})
from dearlite import Reranker, Listwise
from dearlite.errors import DearliteError
model = {model!r}
def tried(job):
    try:
        job()
    except DearliteError as err:
        assert "\\n" not in str(err)
        print(type(err).__name__, err)
    else:
        print("nothing raised")
def alive(reranker=None):
    ranking = (reranker or Reranker.load(model)).rerank("q", ["a", "b"])
    print("alive", sorted(hit.index for hit in ranking))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="module")
def process(model):
    """Runs code in a new process that has `model`, `tried` and `alive`."""
    prelude = PRELUDE.format(here=str(HERE), model=str(model))
    with ForkServer(installed_engine(), "dearlite.listwise.reranker", "dearlite.loading", GOMP_SPINCOUNT="0") as server:
        yield lambda code: server.run(prelude + code)


def lives(done):
    """The lines before the last, after checking that the process succeeded and its last line is a ranking."""
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "alive [0, 1]"
    return lines[:-1]


def header_end(path):
    """The offset of the tensors' data."""
    return min(tensor.offset for tensor in GgufFile(path).tensors.values())


DAMAGES = {
    "empty": lambda data, start: b"",
    "no GGUF": lambda data, start: b"PK\x03\x04" + data[4:],
    "cut in the header": lambda data, start: data[: start // 2],
    "cut in the data": lambda data, start: data[:-1000],
    "a later version": lambda data, start: data[:4] + struct.pack("<I", 9) + data[8:],
    "a million million tensors": lambda data, start: data[:8] + struct.pack("<Q", 10**12) + data[16:],
    "one tensor too many": lambda data, start: data[:8] + struct.pack("<Q", 22) + data[16:],
    "a million million keys": lambda data, start: data[:16] + struct.pack("<Q", 10**12) + data[24:],
    "a key of 2^60 bytes": lambda data, start: data[:24] + struct.pack("<Q", 2**60) + data[32:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file(process, model, tmp_path, damage):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(DAMAGES[damage](model.read_bytes(), header_end(model)))
    lines = lives(process(f"tried(lambda: Reranker.load({str(bad)!r}))\nalive()"))
    assert len(lines) == 1
    assert lines[0].startswith(("ModelFileError", "UsageError"))
    assert "bad.gguf" in lines[0]
    assert "again" in lines[0]


def test_a_missing_tensor_is_reported_with_the_librarys_error(process, model, tmp_path):
    data = model.read_bytes()
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(data.replace(b"blk.0.ffn_down", b"blk.0.ffn_gone"))
    lines = lives(process(f"tried(lambda: Reranker.load({str(bad)!r}))\nalive()"))
    assert lines[0].startswith("ModelFileError llama.cpp cannot load")
    assert "ffn_down" in lines[0]


def patched(data, key, form, value):
    """The file with another value for a metadata key."""
    name = key.encode()
    offset = data.index(struct.pack("<Q", len(name)) + name) + 8 + len(name) + 4
    return data[:offset] + struct.pack(form, value) + data[offset + struct.calcsize(form) :]


@pytest.mark.parametrize(
    ("key", "form", "value"),
    [
        ("llama.block_count", "<I", 0),
        ("llama.block_count", "<I", 2**31),
        ("llama.attention.layer_norm_rms_epsilon", "<f", float("nan")),
        ("llama.attention.layer_norm_rms_epsilon", "<f", -1.0),
        ("llama.rope.freq_base", "<f", float("inf")),
        ("llama.attention.head_count", "<I", 0),
        ("llama.attention.head_count_kv", "<I", 0),
        ("llama.attention.head_count_kv", "<I", 3),
        ("llama.embedding_length", "<I", 0),
        ("llama.embedding_length", "<I", 2**32 - 1),
        ("llama.feed_forward_length", "<I", 0),
        ("llama.rope.dimension_count", "<I", 7),
        ("llama.context_length", "<I", 0),
    ],
)
def test_invalid_hyperparameters(process, model, tmp_path, key, form, value):
    """Cases found by changing each number in the header: the library ends the process at some of them."""
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(patched(model.read_bytes(), key, form, value))
    code = f"tried(lambda: Reranker.load({str(bad)!r}).rerank('q', ['a', 'b']))\nalive()"
    lines = lives(process(code))
    assert lines[0].startswith(("ModelFileError", "InvalidInput")), lines


def test_a_tokenizer_that_cannot_spell_identifiers(process, model, tmp_path):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(model.read_bytes().replace(b"gpt2", b"bert", 1))
    lines = lives(process(f"tried(lambda: Reranker.load({str(bad)!r}).rerank('q', ['a', 'b']))\nalive()"))
    assert lines[0].startswith("ModelFileError")
    assert "order" in lines[0] or "tokenizer" in lines[0]


def test_recorded_hash(process, model, tmp_path):
    sealed = write_tiny(
        tmp_path / "sealed.gguf", extra={"dearlite.schema": 1, "dearlite.kind": "listwise", SHA256: "0" * 64}
    )
    file = GgufFile(sealed)
    start, size = file.value_span(SHA256)
    digest = file.sha256()
    data = bytearray(sealed.read_bytes())
    data[start : start + size] = digest.encode()
    sealed.write_bytes(data)
    assert GgufFile(sealed).sha256() == digest
    assert lives(process("alive()")) == []
    data[-5] ^= 1
    sealed.write_bytes(data)
    lines = lives(process(f"tried(lambda: Reranker.load({str(sealed)!r}))\nalive()"))
    assert "does not match its sha256" in lines[0]
    with pytest.raises(ModelFileError, match="does not match"):
        GgufFile(sealed).verify()


def test_two_threads(process):
    code = """
import threading
reranker = Reranker.load(model)
docs = [f"document {n}" for n in range(20)]
orders = []
def work():
    orders.append([hit.index for hit in reranker.rerank("q", docs)])
threads = [threading.Thread(target=work) for _ in range(6)]
[t.start() for t in threads]; [t.join() for t in threads]
print(len(orders), len(set(map(tuple, orders))))
alive(reranker)
"""
    assert lives(process(code)) == ["6 1"]


def test_more_tokens_than_were_allotted(process):
    code = """
from dearlite.listwise.decoding import Step
reranker = Reranker.load(model)
def wants(*counts):
    def decoding():
        for count in counts:
            yield Step(tuple([17] * count))
    return decoding()
def one_token(token):
    yield Step((token,))
tried(lambda: reranker._backend.run([wants(300)], 256))
tried(lambda: reranker._backend.run([wants(200, 100)], 256))
tried(lambda: reranker._backend.run([wants(2000), wants(100)], 1024))
tried(lambda: reranker._backend.run([one_token(10**6)], 256))
alive(reranker)
"""
    lines = lives(process(code))
    assert [line.split()[0] for line in lines] == ["ScoringError"] * 4
    assert all("room for" in line for line in lines[:3])
    assert "does not have" in lines[3]


def test_an_adapter_that_does_not_fit(process, tmp_path):
    bad = write_adapter(tmp_path / "wide.gguf", hidden=96)
    lines = lives(process(f"tried(lambda: Reranker.load(model, adapter={str(bad)!r}))\nalive()"))
    assert lines[0].startswith("ModelFileError llama.cpp cannot put the adapter")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(bad.read_bytes()[:-40])
    lines = lives(process(f"tried(lambda: Reranker.load(model, adapter={str(cut)!r}))\nalive()"))
    assert "not a complete GGUF" in lines[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_fork(process):
    code = """
reranker = Reranker.load(model)
reranker.rerank("q", ["a", "b"])
sys.stdout.flush()
child = os.fork()
if child == 0:
    tried(lambda: reranker.rerank("q", ["a", "b"]))
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
alive(reranker)
"""
    lines = lives(process(code))
    assert lines == [line for line in lines if "forked" in line and "load it in the child" in line]
    assert len(lines) == 1


def test_a_context_that_does_not_fit_in_memory(process):
    """With a limit on the address space, a huge context is refused and not fatal."""
    need_posix()
    code = """
import resource
reranker = Reranker.load(model)
reranker.rerank("q", ["a", "b"])
from dearlite.listwise.decoding import Step
def small():
    yield Step((17,))
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
tried(lambda: reranker._backend.run([small() for _ in range(200)], 200_000))
alive(reranker)
"""
    lines = lives(process(code))
    assert lines[0].startswith("OutOfMemory")
    assert "smaller --window" in lines[0]


def test_interrupt_in_a_long_prompt_ends_the_command(model, tmp_path):
    """Ctrl-C while the library works; the model is slow enough that a prompt takes many seconds."""
    need_posix()
    from tiny_gguf import smollm2

    docs = tmp_path / "d.txt"
    docs.write_text(("some words to read " * 300 + "\n") * 20)
    process = start_until(
        ("dearlite.llama.model", "LlamaModel", "read"),
        ["rerank", "-q", "x", docs, "-m", smollm2()],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=2 * WITHIN_S)
    assert (process.returncode, out) == (130, "")
    assert err.startswith("dearlite: interrupted:")
    assert err.count("\n") == 1


def test_interrupt_while_the_model_loads(process):
    """Ctrl-C arrives while the library calls back with a line of its log, where an exception would be lost."""
    code = """
import signal
import dearlite.llama.bindings as library
signal.signal(signal.SIGINT, signal.default_int_handler)
append, sent = library._append_to_log, []
def interrupting(*line):
    append(*line)
    if not sent:
        sent.append(line)
        os.kill(os.getpid(), signal.SIGINT)
library._append_to_log = interrupting
try:
    Reranker.load(model)
    print("not interrupted")
except KeyboardInterrupt:
    print(len(sent))
alive()
"""
    assert lives(process(code)) == ["1"]


def test_interrupt_leaves_a_model_that_still_ranks(process):
    code = """
import signal, threading, _thread, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job and its children ignore it
reranker = Reranker.load(model)
docs = ["word " * 250] * 20
reranker.rerank("q", docs)
for wait in (0.01, 0.05, 0.2):
    timer = threading.Timer(wait, _thread.interrupt_main)
    timer.start()
    try:
        for _ in range(50):
            reranker.rerank("q", docs)
        print("not interrupted")
    except KeyboardInterrupt:
        pass
    timer.join()
alive(reranker)
"""
    assert lives(process(code)) == []


@pytest.mark.parametrize(
    ("env", "expected"),
    [({}, "0 0"), ({"GOMP_SPINCOUNT": "77"}, "77 0"), ({"OMP_WAIT_POLICY": "active"}, "None None")],
)
def test_waiting_threads_do_not_spin_unless_asked(model, env, expected):
    code = """
alive()
print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("KMP_BLOCKTIME"))
alive()
"""
    base = {
        name: value
        for name, value in os.environ.items()
        if name not in ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")
    }
    source = PRELUDE.format(here=str(HERE), model=str(model)) + code
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=120, check=False, env={**base, **env}
    )
    assert done.stdout.splitlines()[1] == expected


def test_a_model_whose_logits_are_nan(process, tmp_path):
    import numpy as np
    from tiny_gguf import HIDDEN

    bad = write_tiny(tmp_path / "nan.gguf", tensors={"output_norm.weight": np.full(HIDDEN, np.nan, np.float32)})
    lines = lives(process(f"tried(lambda: Reranker.load({str(bad)!r}).rerank('q', ['a', 'b']))\nalive()"))
    assert lines[0].startswith("ScoringError")
