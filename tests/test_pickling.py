"""A Reranker is pickled and copied as its model's file or name and its options; copies: test_lifetime.py."""

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import pytest

from dearlite import Reranker, UsageError
from dearlite.cascade import CascadeReranker

DOCS = ["Rain falls.", "Ships carry grain.", "Tea"]


def scores(ranking):
    return [(hit.index, hit.score) for hit in ranking]


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    tiny_gguf = pytest.importorskip("tiny_gguf")
    folder = tmp_path_factory.mktemp("tiny")
    return tiny_gguf.write_tiny(folder / "tiny.gguf"), tiny_gguf.write_adapter(folder / "lora.gguf", size=5.0)


MAKERS = {
    "pointwise": lambda _: Reranker.load(threads=1),
    "listwise": lambda paths: Reranker.load(paths[0], threads=1, adapter=paths[1]),
    "cascade": lambda paths: Reranker.load(["minilm-l12", (paths[0], 2)], threads=1, adaptive=True, adapter=paths[1]),
    "path": lambda _: Reranker.load(Reranker.load().bundle.path, threads=1),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("again", [lambda model: pickle.loads(pickle.dumps(model)), copy.deepcopy, copy.copy])
def test_a_copy_ranks_as_its_original(gguf, monkeypatch, tmp_path, make, again):
    monkeypatch.chdir(gguf[0].parent)
    original = make([path.name for path in gguf])
    recipe = pickle.dumps(original)
    assert len(recipe) < 1000
    expected, identity = scores(original.rerank("rain", DOCS)), original.identity()
    monkeypatch.chdir(tmp_path)  # the copy is made elsewhere
    repeated = again(original)
    assert type(repeated) is type(original)
    assert repeated is not original
    assert scores(repeated.rerank("rain", DOCS)) == expected
    assert (repeated.model, repeated.threads, repeated.pointwise) == (original.model, 1, original.pointwise)
    assert repeated.identity() == identity
    assert repeated.recipe == pickle.loads(pickle.dumps(original.recipe))


def test_a_pool_of_spawned_processes_takes_a_model():
    """The reported case: ProcessPoolExecutor with spawn."""
    model = Reranker.load(threads=1)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        ranking = pool.submit(model.rerank, "rain", DOCS).result()
    assert scores(ranking) == scores(model.rerank("rain", DOCS))


def test_a_cascade_of_functions_says_why_it_is_not_pickled():
    cascade = CascadeReranker.of([("a", None, "pointwise", Reranker.load), ("b", 2, "pointwise", Reranker.load)])
    with pytest.raises(UsageError, match="a>b was made of functions, which are not pickled: make it in each process"):
        pickle.dumps(cascade)


def test_a_subclass_of_ones_own_is_pickled_as_any_object():
    repeated = pickle.loads(pickle.dumps(Own(7)))
    assert (type(repeated), repeated.seed) == (Own, 7)


class Own(Reranker):
    model, device, quantisation, threads = "own", "cpu", "none", 1

    def __init__(self, seed):
        self.seed = seed

    def identity(self, listwise=None):
        return {"model": self.model}

    def rank(self, jobs, call):
        raise NotImplementedError
