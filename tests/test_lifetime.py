"""The life of a Reranker in another program: it ends with `close` or `with`, copies share it, nothing else is left."""

import asyncio
import copy
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
import warnings
import weakref
from concurrent.futures import ProcessPoolExecutor

import pytest
from pool_work import scored, uses
from posix_only import need_posix
from waiting import WITHIN_S, join

from dearlite import DearliteWarning, Reranker, UsageError
from dearlite.cascade import CascadeReranker
from dearlite.errors import warn

DOCS = ["Tea", "Rain falls.", "Ships carry grain."]
CLOSED = "this model was closed: load it again"


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    tiny_gguf = pytest.importorskip("tiny_gguf", reason="gguf is not installed (extra export)")
    return tiny_gguf.write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


def load(kind, gguf):
    models = {"pointwise": "minilm-l12", "listwise": gguf, "cascade": ["minilm-l12", (gguf, 2)]}
    return Reranker.load(models[kind], threads=1)


def scores(ranking):
    return [(hit.index, hit.score) for hit in ranking]


@pytest.mark.parametrize("kind", ["pointwise", "listwise", "cascade"])
def test_a_closed_model_says_so_in_one_line(kind, gguf):
    with load(kind, gguf) as model:
        assert len(model.rerank("rain", DOCS)) == 3
    model.close()  # once more
    calls = {
        "rerank": lambda: model.rerank("rain", DOCS),
        "rerank_many": lambda: model.rerank_many([("rain", DOCS)]),
        "identity": model.identity,
        "arerank": lambda: asyncio.run(model.arerank("rain", DOCS)),
        "with": model.__enter__,
    }
    if kind == "pointwise":
        calls |= {
            "score": lambda: model.score([("rain", "Tea")]),
            "stream": lambda: next(model.stream([])),
        }
    for call in calls.values():
        with pytest.raises(UsageError) as raised:
            call()
        assert str(raised.value) == f"{model.model}: {CLOSED}"


def test_closing_frees_the_memory_of_every_stage(gguf):
    model = load("cascade", gguf)
    model.rerank("rain", DOCS)
    first, second = (stage.loaded for stage in model._stages)
    session = weakref.ref(first._onnx._session)
    model.close()
    assert session() is None
    assert second._backend._objects.model is None
    assert [stage.loaded for stage in model._stages] == [None, None]


def test_a_cascade_of_functions_does_not_close_what_it_was_lent():
    with Reranker.load(threads=1) as lent:
        with CascadeReranker.of([("a", None, "pointwise", lambda: lent), ("b", 2, "pointwise", lambda: lent)]) as model:
            model.rerank("rain", DOCS)
        assert len(lent.rerank("rain", DOCS)) == 3


def test_closing_waits_for_nothing_and_a_call_that_runs_ends():
    """The call that runs has its own reference to the session."""
    model, started, ended = Reranker.load(threads=1), threading.Event(), []
    thread = threading.Thread(
        target=lambda: ended.append(model.rerank("rain", DOCS * 30, progress=lambda *_: started.set()))
    )
    thread.start()
    assert started.wait(WITHIN_S)
    model.close()
    join(thread)
    assert len(ended[0]) == 90


AGAIN = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("again", AGAIN.values(), ids=AGAIN)
def test_copies_in_one_process_share_the_loaded_model(again):
    original = Reranker.load(threads=1)
    first, second = again(original), again(original)
    assert len({id(original), id(first), id(second)}) == 3
    assert original._backend is first._backend is second._backend
    expected = scores(original.rerank("rain", DOCS))
    original.close()
    first.close()
    assert scores(second.rerank("rain", DOCS)) == expected
    assert again(second)._backend is second._backend
    session = weakref.ref(second._onnx._session)
    second.close()
    assert session() is None, "the last of them released it"
    anew = again(original)  # a closed one has its recipe still
    assert scores(anew.rerank("rain", DOCS)) == expected
    assert anew._backend is not second._backend


def test_copies_of_a_dropped_original_share_its_model():
    recipe = pickle.dumps(Reranker.load(threads=1))
    first = pickle.loads(recipe)
    assert pickle.loads(recipe)._backend is first._backend
    backend = weakref.ref(first._backend)
    del first
    assert backend() is None, "nothing keeps a model that is not used"


def test_threads_that_unpickle_at_once_load_one_model():
    recipe, models = pickle.dumps(Reranker.load(threads=1)), []
    threads = [threading.Thread(target=lambda: models.append(pickle.loads(recipe))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        join(thread)
    assert len({id(model._backend) for model in models}) == 1


def test_other_options_and_a_changed_file_are_another_model(embedded_path, tmp_path):
    path = tmp_path / "own.dear"
    shutil.copyfile(embedded_path, path)
    one, two = Reranker.load(path, threads=1), Reranker.load(path, threads=2)
    assert copy.copy(one)._backend is one._backend is not copy.copy(two)._backend
    recipe = pickle.dumps(one)
    os.utime(path, (1, 1))
    assert pickle.loads(recipe)._backend is not one._backend


_parent = None


def shares_the_parents(model):
    return model._backend is _parent._backend


def test_a_forked_process_loads_its_own(monkeypatch):
    need_posix()
    model = Reranker.load(threads=1)
    monkeypatch.setattr(sys.modules[__name__], "_parent", model)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        assert pool.submit(shares_the_parents, model).result(WITHIN_S) is False
    assert shares_the_parents(copy.copy(model))


def test_a_process_of_a_pool_loads_a_model_once_for_all_its_tasks():
    model = Reranker.load(threads=1)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert [pool.submit(uses, model).result(WITHIN_S) for _ in range(3)] == [1, 2, 3]


def test_joblib_takes_a_model():
    joblib = pytest.importorskip("joblib", reason="joblib is not installed")
    model = Reranker.load(threads=1)
    work = (joblib.delayed(scored)(model, query, DOCS) for query in ("rain", "tea"))
    assert joblib.Parallel(n_jobs=2)(work) == [scores(model.rerank(query, DOCS)) for query in ("rain", "tea")]


def test_dask_takes_a_model():
    distributed = pytest.importorskip("distributed", reason="dask is not installed (dask[distributed])")
    model = Reranker.load(threads=1)
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        results = client.gather([client.submit(scored, model, query, DOCS) for query in ("rain", "tea")])
    assert results == [scores(model.rerank(query, DOCS)) for query in ("rain", "tea")]


def test_warnings_have_a_category_of_their_own():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DearliteWarning)
        warn("a note")
    with pytest.warns(DearliteWarning, match="a note") as notes:
        warn("a note")
    assert notes[0].filename == __file__
    assert issubclass(DearliteWarning, UserWarning)


def test_a_host_keeps_its_signals_its_logging_and_its_event_loop():
    code = """
import logging, signal, sys, threading
before = [signal.getsignal(number) for number in signal.valid_signals()]
import dearlite
assert not {"asyncio", "concurrent.futures", "logging.handlers"} & set(sys.modules), "imported for nothing"
with dearlite.Reranker.load() as model:
    model.rerank("rain", ["Tea", "Rain falls."])
assert [signal.getsignal(number) for number in signal.valid_signals()] == before
loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
mine = [logger for logger in loggers if logger.name == "root" or logger.name.startswith("dearlite")]
assert not [handler for logger in mine for handler in logger.handlers]
assert logging.getLogger("dearlite").getEffectiveLevel() == logging.WARNING
assert threading.active_count() == 1
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", ["pointwise", "listwise"])
def test_a_model_of_a_relative_path_outlives_a_change_of_folder(kind, gguf, embedded_path, tmp_path, monkeypatch):
    path = gguf if kind == "listwise" else embedded_path
    monkeypatch.chdir(path.parent)
    with Reranker.load(path.name, threads=1) as model:
        monkeypatch.chdir(tmp_path)
        assert model.identity() == Reranker.load(path, threads=1).identity()
