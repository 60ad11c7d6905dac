"""The CPU engine: weights in memory once, and smaller batches when memory runs out."""

import gc
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from waiting import WITHIN_S

onnx = pytest.importorskip("onnx")

from wide_graphs import widen  # noqa: E402

from dearlite.errors import OutOfMemory  # noqa: E402
from dearlite.export.numerics.rounding import limit_pairs  # noqa: E402
from dearlite.export.onnx.graph import Graph  # noqa: E402
from dearlite.export.onnx.linear import LINEAR_WAYS, Linear  # noqa: E402
from dearlite.models.bundle import Bundle  # noqa: E402
from dearlite.models.bundle_writer import BundleWriter  # noqa: E402
from dearlite.models.facts import PointwiseFacts  # noqa: E402
from dearlite.models.manifest import Build  # noqa: E402
from dearlite.pointwise import session  # noqa: E402
from dearlite.pointwise.engine import LAYOUTS, OnnxBackend  # noqa: E402
from dearlite.pointwise.memory import MemoryLimits, ran_out_of_memory  # noqa: E402
from dearlite.pointwise.tokens import TokenRow  # noqa: E402

ARENA = (
    "Non-zero status code: BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 1024"
)


class OrtError(Exception):
    """An exception without a useful base class, like ONNX Runtime's own."""


def row(*ids):
    return TokenRow(np.array(ids, np.int64), np.zeros(len(ids), np.int64), len(ids))


def write_model(path, *, layout="one-document", way="int8-per-row", vocabulary=300, width=256, layers=2, wide=False):
    """A model of an embedding and square matrices alone: the score is the largest mean of a token's last state.

    With `wide` it is a file from before the limit of pairs, with the graph for CPUs whose products saturate.
    """
    g, random = Graph(), np.random.default_rng(0)
    shape = ("tokens",) if layout == "one-document" else ("rows", "tokens")
    ids = g.input("ids", *shape)
    table = g.weight("embedding", random.integers(-99, 99, (vocabulary, width), np.int8))
    x = g.add("Cast", g.add("Gather", table, ids), to=onnx.TensorProto.FLOAT)
    x = g.add("Reshape", x, g.const("flat", np.array([-1, width])))
    count = g.add("Slice", g.add("Shape", x), g.const("zero", np.array([0])), g.const("one_end", np.array([1])))
    for number in range(layers):
        weight, scale = random.integers(-99, 99, (width, width), np.int8), np.full(width, 1e-4, np.float32)
        layer = Linear(f"layer.{number}", *((weight, scale) if wide else limit_pairs(weight, scale)))
        x = LINEAR_WAYS[way].write(g, x, count, layer)
    x = g.add("ReduceMean", x, g.const("last", np.array([-1])), keepdims=1)  # (rows * tokens, 1)
    if layout == "padded":
        grid = g.add("Concat", g.add("Shape", ids), g.const("one_side", np.array([1])), axis=0)
        x = g.add("Reshape", x, grid)
        g.output = g.add("ReduceMax", x, g.const("tokens_axis", np.array([1])), keepdims=0)
    else:
        g.output = g.add("ReduceMax", x, g.const("rows_axis", np.array([0])), keepdims=1)
    if wide:
        widen(g)
    facts = PointwiseFacts(
        name="tiny", architecture="none", prompt="pair", pooling="last-token", max_tokens=64, licence="MIT", source={}
    )
    builds = [Build("cpu", "cpu.onnx", layout, way, (), tuple(g.weights))]
    with BundleWriter(path) as bundle:
        for name, value in g.weights.items():
            bundle.add_tensor(name, value.dtype.name, value.shape, [value.tobytes()])
        members = {"cpu.onnx": g.to_bytes(), "tokenizer.json": b"{}"}
        bundle.finish(members, facts, builds, pair_limited=not wide)
    return path


ROWS = [row(*(np.arange(length) * 7 % 300)) for length in (3, 40, 17, 1, 64, 9)]


def scores_of(path, threads=2, rows=ROWS):
    return list(OnnxBackend(Bundle(path), device="cpu", threads=threads).score(rows))


@pytest.fixture
def in_place(monkeypatch):
    """Even the small tensors of these models are used in place, in the mapped file."""
    monkeypatch.setattr(session, "_IN_PLACE_BYTES", 2000)


def test_tensors_used_in_place_give_the_scores_of_copied_ones(tmp_path, monkeypatch, in_place):
    path = write_model(tmp_path / "m.dear")
    mapped = OnnxBackend(Bundle(path), device="cpu", threads=2)
    assert len(mapped._session.tensors_in_place) == 3  # the embedding and two matrices
    scores = list(mapped.score(ROWS))
    monkeypatch.setattr(session, "_IN_PLACE_BYTES", 2**40)
    assert scores == scores_of(path)
    assert np.std(scores) > 0.01


def test_session_keeps_the_tensors_that_it_uses(tmp_path, in_place):
    """A generator of scores may outlive its backend and bundle."""
    path = write_model(tmp_path / "m.dear")
    stream = OnnxBackend(Bundle(path), device="cpu", threads=1).score(iter(ROWS))
    gc.collect()
    filler = [np.full(2**20, n, np.uint8) for n in range(8)]
    assert list(stream) == scores_of(path)
    assert len(filler) == 8


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    "location", ["secret.bin", "../{folder}/secret.bin", "{path}/secret.bin", "*/_ORT_MEM_ADDR_/*"]
)
def test_a_graph_that_names_another_file_is_refused(tmp_path, monkeypatch, location, in_place):
    (tmp_path / "secret.bin").write_bytes(bytes(8))
    (tmp_path / "weights").mkdir()
    monkeypatch.chdir(tmp_path)
    secret = onnx.TensorProto(name="secret", data_type=onnx.TensorProto.FLOAT, dims=[2], data_location=1)
    where = {"location": location.format(folder=tmp_path.name, path=tmp_path), "offset": "0", "length": "8"}
    for key, value in where.items():
        secret.external_data.add(key=key, value=value)
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "xy"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "secret"], ["y"])], "graph", values[:1], values[1:], [secret]
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        session._create(model, {}, "cpu", 1, in_place=str(tmp_path / "weights") if in_place else None)


def test_graph_that_folds_its_weights_at_load_still_loads(tmp_path, in_place):
    scores = scores_of(write_model(tmp_path / "m.dear", way="dequantised"))
    assert scores == pytest.approx(scores_of(write_model(tmp_path / "n.dear")), abs=0.002)


def test_wide_graph_of_an_older_file_still_loads(tmp_path, in_place):
    scores = scores_of(write_model(tmp_path / "m.dear", wide=True))
    assert scores == pytest.approx(scores_of(write_model(tmp_path / "n.dear", way="dequantised", wide=True)), abs=0.002)


@pytest.mark.parametrize("way", ["int8-per-row", "int16-per-row"])
def test_weights_made_unsigned_by_numpy_give_the_same_bits(tmp_path, monkeypatch, way, in_place):
    path = write_model(tmp_path / "m.dear", way=way, wide=True)
    backend = OnnxBackend(Bundle(path), device="cpu", threads=2)
    assert len(backend._session.tensors_in_place) == 1  # the embedding; the matrices are copies
    scores = list(backend.score(ROWS))
    monkeypatch.setattr(session, "without_casts", lambda graph: (graph, frozenset()))
    assert scores == scores_of(path)


def test_scores_do_not_depend_on_threads(tmp_path):
    path = write_model(tmp_path / "m.dear")
    assert scores_of(path, threads=1) == scores_of(path, threads=4)


def in_a_process(code, *args):
    """The output of `code` in a new process, since memory and limits belong to a process; it can import this file."""
    folders = [str(Path(__file__).parent), str(Path(widen.__code__.co_filename).parent)]
    code = f"import sys\nsys.path[:0] = {folders!r}\n{textwrap.dedent(code)}"
    done = subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("wide", "at_most"),
    [
        (False, 90),  # both at once would be 32 packed and 96 of the file
        (True, 120),  # 64 at once: the unsigned matrices, and those being packed; folded by ORT, 400
    ],
)
def test_weights_are_in_memory_once(tmp_path, wide, at_most):
    """An embedding of 64 MB stays in the file; matrices of 32 MB are in memory packed, once, even at the peak."""
    path = write_model(tmp_path / "m.dear", vocabulary=32768, width=2048, layers=8, wide=wide)
    grown, peak = in_a_process(
        """
        from test_engine import Bundle, OnnxBackend, row, write_model
        from pathlib import Path
        def megabytes(*names):
            lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
            return sum(int(line[1]) / 1024 for line in lines if line[0].rstrip(":") in names)
        small = write_model(Path(sys.argv[1]).with_name("small.dear"))
        list(OnnxBackend(Bundle(small), device="cpu", threads=1).score([row(1, 2)]))
        before = megabytes("VmRSS")
        backend = OnnxBackend(Bundle(sys.argv[1]), device="cpu", threads=1)
        print(megabytes("VmRSS") - before, megabytes("VmHWM") - before)
        """,
        path,
    ).split()
    assert 30 < float(grown) < 55
    assert float(peak) < at_most


class Fake:
    """A session whose score is a row's first id, and whose out-of-memory errors are ONNX Runtime's."""

    def __init__(self, *, most_tokens=10**9, together=10**9, meet=None):
        self.most_tokens, self.together, self.meet = most_tokens, together, meet
        self.running, self.sizes, self.lock = 0, [], threading.Lock()

    def get_inputs(self):
        return [type("Node", (), {"name": "ids"})]

    def run(self, names, feeds):
        with self.lock:
            self.running += 1
            self.sizes.append(feeds["ids"].shape)
            now = self.running
        try:
            if self.meet is not None and len(self.sizes) <= 2:
                self.meet.wait(WITHIN_S)  # the first two calls run side by side, whatever the machine does
                now = 2
            if feeds["ids"].size > self.most_tokens or now > self.together:
                raise OrtError(ARENA)
            return [np.atleast_2d(feeds["ids"])[:, :1].astype(np.float32)]
        finally:
            with self.lock:
                self.running -= 1


def score_with(layout, fake, rows, threads=1):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return list(LAYOUTS[layout](fake, rows, threads, MemoryLimits())), [str(w.message) for w in caught]


TWENTY = [row(*[n] * (10 + n % 3)) for n in range(20)]


def test_padded_batch_is_halved_until_it_fits_with_one_warning():
    fake = Fake(most_tokens=65)
    scores, warned = score_with("padded", fake, TWENTY)
    assert scores == list(range(20))
    assert warned == ["memory ran out: continuing with 120 tokens at a time, or fewer"]  # of 20 rows of 12
    assert [rows * tokens for rows, tokens in fake.sizes][:3] == [240, 120, 60]
    assert (
        max(rows * tokens for rows, tokens in fake.sizes[3:]) <= 60
    )  # the limit is kept, not tried again for every batch


def test_single_row_that_does_not_fit_is_a_one_line_error():
    with pytest.raises(
        OutOfMemory, match="one document of 12 tokens: close other programs, or take a smaller"
    ) as caught:
        score_with("padded", Fake(most_tokens=5), TWENTY)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_fewer_documents_run_side_by_side_when_two_do_not_fit():
    fake = Fake(together=1, meet=threading.Barrier(2))
    scores, warned = score_with("one-document", fake, TWENTY, threads=2)
    assert scores == list(range(20))
    assert warned == ["memory ran out: continuing with 1 at a time, or fewer"]
    assert len(fake.sizes) in (21, 22)  # one or both of the first two again, and no other


def test_document_that_does_not_fit_alone_is_a_one_line_error():
    with pytest.raises(OutOfMemory, match="one document at a time: close other programs") as caught:
        score_with("one-document", Fake(most_tokens=5), TWENTY, threads=2)
    assert "\n" not in str(caught.value)


def test_other_errors_of_the_engine_are_not_taken_for_memory():
    class Broken(Fake):
        def run(self, names, feeds):
            self.sizes.append(1)
            raise OrtError("Non-zero status code returned while running Cast node")

    for layout in ("padded", "one-document"):
        fake = Broken()
        with pytest.raises(OrtError, match="Cast node"):
            score_with(layout, fake, TWENTY)
        assert len(fake.sizes) <= 20


@pytest.mark.parametrize(
    "err",
    [
        MemoryError("std::bad_alloc"),
        OrtError(ARENA),
        OrtError("CUDA failure 2: out of memory ; GPU=0"),
        OrtError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED"),
        OrtError("Available memory of 1024 is smaller than requested bytes of 2048"),
    ],
)
def test_signs_of_memory_running_out(err):
    assert ran_out_of_memory(err)


@pytest.mark.skipif(sys.platform != "linux", reason="limits its own address space")
def test_padded_batch_under_a_real_limit_gives_the_same_scores(tmp_path):
    """One activation of the whole batch takes 256 MB; the limit is 150 MB above the memory after loading."""
    path = write_model(tmp_path / "m.dear", layout="padded", width=2048, layers=1)
    out = in_a_process(
        """
        import resource, warnings
        from test_engine import Bundle, OnnxBackend, np, row
        rows = [row(*(np.arange(512) * n % 300)) for n in range(64)]
        backend = OnnxBackend(Bundle(sys.argv[1]), device="cpu", threads=1)
        free = [score for n in range(64) for score in backend.score(rows[n : n + 1])]
        pages = int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 150 * 2**20,) * 2)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            limited = list(backend.score(rows))
        print(limited == free, len(caught), caught[0].message)
        """,
        path,
    )
    assert out.startswith("True 1 memory ran out: continuing with 16384 tokens at a time")


@pytest.mark.skipif(sys.platform != "linux", reason="limits its own address space")
def test_document_under_a_real_limit_ends_in_one_line(tmp_path):
    path = write_model(tmp_path / "m.dear", width=2048, layers=1)
    out = in_a_process(
        """
        import resource
        from test_engine import Bundle, OnnxBackend, OutOfMemory, np, row
        backend = OnnxBackend(Bundle(sys.argv[1]), device="cpu", threads=1)
        list(backend.score([row(1)]))
        pages = int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 150 * 2**20,) * 2)
        try:
            list(backend.score([row(*(np.arange(40_000) % 300))]))
        except OutOfMemory as err:
            print(err)
        print(list(backend.score([row(1)])) != [])
        """,
        path,
    )
    assert out.startswith("memory ran out with one document at a time: close other programs")
    assert out.endswith("True\n")
