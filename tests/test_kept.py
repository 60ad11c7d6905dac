"""`rerank` keeps the model that it loaded last, for calls with the same file and options."""

import gc
import os
import shutil
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from posix_only import need_posix
from waiting import WITHIN_S, eventually

import dearlite
from dearlite import Reranker, UnknownModel, UsageError, rerank
from dearlite.kept import KEPT
from dearlite.models.chain import resolve

DOCS = ["Coffee is good for diet", "Edison's bulb, 1879"]


@pytest.fixture(autouse=True)
def nothing_kept():
    dearlite.unload()
    yield
    dearlite.unload()


@pytest.fixture
def loads(monkeypatch):
    """The models that are loaded, and their options, in order."""
    models, load = [], Reranker.load

    def counted(model=None, **options):
        models.append((model, options["threads"]))
        return load(model, **options)

    monkeypatch.setattr(Reranker, "load", staticmethod(counted))
    return models


def test_a_loop_loads_once_and_another_model_or_option_anew(loads, tiny_bundle):
    for _ in range(3):
        assert rerank("bulb", DOCS)[0].index == 1
    for name in ("minilm-l12", "cross-encoder/ms-marco-MiniLM-L-12-v2"):  # the same model by its names
        rerank("bulb", DOCS, model=name)
    assert loads == [(None, None)]
    rerank("bulb", DOCS, threads=1)
    rerank("bulb", DOCS, threads=1, model=tiny_bundle)
    rerank("bulb", DOCS, threads=1, model=str(tiny_bundle))
    assert loads == [(None, None), (None, 1), (tiny_bundle, 1)]
    rerank("bulb", DOCS)  # one is kept, not two
    assert len(loads) == 4


def test_a_cascade_is_another_model_than_its_stages(loads):
    assert rerank("bulb", DOCS, model=["minilm-l12:1"]).stages
    assert not rerank("bulb", DOCS, model=["minilm-l12"]).stages
    assert len(rerank("bulb", DOCS, model=[("minilm-l12", None), ("minilm-l12", 1)]).stages) == 2
    assert rerank("bulb", DOCS, model=resolve(["minilm-l12", "minilm-l12"])).complete  # open files are not kept
    assert len(loads) == 4
    rerank("bulb", DOCS, model=(("minilm-l12", None), "minilm-l12:1"))  # as before the last: the kept one
    assert len(loads) == 4


def test_a_first_stage_by_words_has_no_file_and_is_kept_too(loads):
    pytest.importorskip("bm25s", reason="bm25s is not installed (extra first-stage)")
    for _ in range(2):
        assert len(rerank("bulb", DOCS, model=["bm25:2", "minilm-l12"]).stages) == 2
    assert rerank("bulb", DOCS, model="bm25").model == "bm25"
    assert rerank("bulb", DOCS, model=[("bm25", 1), "minilm-l12"]).complete
    assert len(loads) == 3


def test_a_file_that_has_changed_is_another_model(loads, tiny_bundle, tmp_path):
    path = shutil.copy(tiny_bundle, tmp_path / "model.dear")
    rerank("bulb", DOCS, model=path)
    os.utime(path, ns=(1, 1))
    rerank("bulb", DOCS, model=path)
    rerank("bulb", DOCS, model=path)
    assert len(loads) == 2


def test_what_cannot_be_loaded_leaves_the_kept_model(loads):
    rerank("bulb", DOCS, threads=1)
    for model, error in (
        ("minilm", UnknownModel),
        ("missing.dear", UsageError),
        (["minilm-l12", "a.gguf"], UsageError),
    ):
        with pytest.raises(error):
            rerank("bulb", DOCS, model=model)
    with pytest.raises(UsageError, match="threads is True"):
        rerank("bulb", DOCS, threads=True)
    rerank("bulb", DOCS, threads=1)
    assert [threads for _, threads in loads] == [1, True, 1]


def test_unload_frees_the_model_once_no_call_uses_it():
    rerank("bulb", DOCS)
    kept = weakref.ref(KEPT._reranker)
    dearlite.unload()
    eventually(lambda: gc.collect() >= 0 and kept() is None)  # a thread of another test may hold it for a moment
    ranking = rerank("bulb", DOCS, progress=lambda done, total: dearlite.unload())
    assert len(ranking) == 2
    assert KEPT._reranker is None


def test_threads_share_one_load(loads):
    barrier = threading.Barrier(8)

    def call(_):
        barrier.wait()
        return rerank("bulb", DOCS)

    with ThreadPoolExecutor(8) as pool:
        rankings = list(pool.map(call, range(8)))
    assert len(loads) == 1
    assert all(ranking == rankings[0] for ranking in rankings)


def test_a_forked_process_loads_its_own_even_while_a_thread_loads():
    need_posix()
    rerank("bulb", DOCS)
    kept, held, release = KEPT._reranker, threading.Event(), threading.Event()

    def hold():
        with KEPT._lock:
            held.set()
            release.wait(WITHIN_S)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(WITHIN_S)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if rerank("bulb", DOCS)[0].index == 1 and KEPT._reranker is not kept else 2
        finally:
            os._exit(code)
    release.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert KEPT._reranker is kept
