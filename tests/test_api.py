"""`rerank` and `Reranker` as a program meets them."""

import copy
import pickle
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from posix_only import need_posix

import dearlite
from dearlite import DearliteError, Fields, Long, Reranker, rerank
from dearlite.errors import Cancelled, DeviceUnavailable, InvalidInput, UnknownModel, UsageError
from dearlite.pointwise.reranker import PointwiseReranker

QUERY = "Who invented the light bulb?"
DOCS = [
    "Coffee is good for diet",
    {"id": "edison", "title": "Light bulb", "text": "Thomas Edison invented it in 1879", "extra": [1, 2]},
    {"docid": 7, "contents": "KEPCO fixes light problems"},
]


@pytest.fixture(scope="module")
def reranker():
    return Reranker.load()


def test_best_document_comes_first_with_its_place_and_record():
    ranking = rerank(QUERY, DOCS)
    best = ranking[0]
    assert (best.rank, best.index, best.id, best.title) == (1, 1, "edison", "Light bulb")
    assert best.document is DOCS[1]
    assert best.relevance > 0.5 > ranking[1].relevance  # by the file's calibration
    assert [hit.rank for hit in ranking] == [1, 2, 3]
    assert sorted(hit.index for hit in ranking) == [0, 1, 2]
    assert (ranking.model, ranking.device, ranking.total) == ("minilm-l12", "cpu", 3)
    assert ranking.elapsed_s > 0


def test_callers_documents_are_not_changed(reranker):
    before = copy.deepcopy(DOCS)
    reranker.rerank(QUERY, DOCS).to_dicts()
    assert before == DOCS


def test_objects_with_attributes_and_generators_are_documents(reranker):
    @dataclass
    class Note:
        text: str
        id: int

    ranking = reranker.rerank(
        QUERY, (Note(text, n) for n, text in enumerate(["tea", "Edison invented the light bulb"]))
    )
    assert [hit.id for hit in ranking] == ["1", "0"]


def test_same_texts_keep_the_callers_order(reranker):
    ranking = reranker.rerank(QUERY, ["Edison", "tea", "Edison"])
    assert [hit.index for hit in ranking if hit.text == "Edison"] == [0, 2]


def test_top_k_keeps_the_best(reranker):
    whole, two = reranker.rerank(QUERY, DOCS), reranker.rerank(QUERY, DOCS, top_k=2)
    assert [hit.index for hit in two] == [hit.index for hit in whole][:2]
    assert len(two) == 2
    assert two.total == 3


def test_title_is_read_by_the_model(reranker):
    bare, titled = reranker.score(
        [(QUERY, "in 1879"), (QUERY, {"title": "Edison invented the light bulb", "text": "in 1879"})]
    )
    assert titled > bare + 1
    joined = reranker.score([(QUERY, "Edison invented the light bulb in 1879")])[0]
    assert titled == pytest.approx(joined, abs=1e-5)


def test_cut_documents_are_reported(reranker):
    long = "light " * 2000
    hits = {hit.index: hit for hit in reranker.rerank("bulb", [long, "short"])}
    # [CLS] bulb [SEP] light*509 [SEP] fits 512; uncut it would be 2004 tokens
    assert (hits[0].tokens_used, hits[0].tokens_total, hits[0].truncated) == (512, 2004, True)
    assert (hits[1].tokens_used, hits[1].tokens_total, hits[1].truncated) == (5, 5, False)


def test_query_that_is_cut_is_reported(reranker):
    assert reranker.rerank("light " * 600, ["bulb " * 600]).query_truncated
    assert not reranker.rerank("light", ["bulb " * 600]).query_truncated


def test_no_documents_give_an_empty_ranking(reranker):
    assert list(reranker.rerank(QUERY, [])) == []


@pytest.mark.parametrize("query", ["", "  \n", None, 3])
def test_bad_query_is_refused(reranker, query):
    with pytest.raises(InvalidInput, match="query"):
        reranker.rerank(query, ["a"])


@pytest.mark.parametrize("doc", [None, 3, "  ", {"id": 1}, {"text": None}, {"text": 5}])
def test_bad_document_is_named(reranker, doc):
    with pytest.raises(InvalidInput, match="document 1 "):
        reranker.rerank(QUERY, ["fine", doc])


def test_bad_options_are_usage_errors(reranker):
    for call in (
        lambda: reranker.rerank(QUERY, ["a"], top_k=0),
        lambda: reranker.rerank_many([(QUERY, ["a"])], batch_size=0),
        lambda: Reranker.load(gpu_layers=-1),
        lambda: Reranker.load(threads=0),
        lambda: Reranker.load(device="tpu"),
        lambda: Reranker.load("missing.dear"),
    ):
        with pytest.raises(UsageError) as caught:
            call()
        assert caught.value.exit_code == 2
        assert "\n" not in str(caught.value)


def test_unknown_model_names_the_nearest():
    with pytest.raises(UnknownModel, match="minilm-l12"):
        Reranker.load("minilm-l21")


def test_cuda_that_cannot_be_had_is_an_error():
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(DeviceUnavailable, match=r"\[cuda\]"):
        Reranker.load(device="cuda")


def test_auto_says_in_one_line_that_it_fell_back(monkeypatch):
    """A provider that is offered and cannot start: onnxruntime itself would go on with the CPU in silence."""
    import onnxruntime

    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    with pytest.warns(UserWarning, match="running on cpu, since cuda: ") as caught:
        reranker = Reranker.load(device="auto")
    assert reranker.device == "cpu"
    (own,) = [warning for warning in caught if "running on cpu" in str(warning.message)]  # ONNX Runtime warns too
    assert "\n" not in str(own.message)
    assert own.filename == __file__


@pytest.mark.parametrize("load", [
    lambda: Reranker.load(threads=1),
    lambda: rerank("rain", ["Rain falls."], threads=1),
    lambda: Reranker.load(["minilm-l12", ("minilm-l12", 1)], threads=1).rerank("rain", ["Rain falls."]),
    lambda: PointwiseReranker(Reranker.load().bundle.path, threads=1),
    lambda: pickle.loads(pickle.dumps(Reranker.load(threads=1))),
], ids=["load", "rerank", "cascade", "class", "pickle"])  # fmt: skip
def test_a_remark_on_loading_points_at_the_callers_line(monkeypatch, load):
    from dearlite.pointwise import engine

    monkeypatch.setattr(engine, "nvidia_gpu_present", lambda: True)
    with pytest.warns(UserWarning, match="running on cpu: there is an NVIDIA GPU") as caught:
        load()
    assert {warning.filename for warning in caught} == {__file__}


def test_progress_counts_to_the_end(reranker):
    seen = []
    reranker.rerank(QUERY, ["a"] * 5, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 5) for n in range(1, 6)]


def test_cancel_ends_soon_and_says_how_far(reranker):
    event = threading.Event()

    def stop(done, total):
        if done == 3:
            event.set()

    with pytest.raises(Cancelled, match=r"after 3 of 5000 documents"):
        reranker.rerank(QUERY, ["some words"] * 5000, progress=stop, cancel=event)


def cancelled_after(reranker, count, docs, **options):
    """The ranking so far of a call that is cancelled after `count` documents, or passages."""
    event = threading.Event()
    with pytest.raises(Cancelled) as ended:
        reranker.rerank(
            QUERY, docs, cancel=event, progress=lambda done, total: done >= count and event.set(), **options
        )
    return ended.value.partial


def test_a_cancelled_call_has_the_ranking_so_far(reranker):
    docs = ["Tea.", "Edison invented the light bulb.", "Rain falls.", "A lamp.", "The bulb of Edison"]
    whole = {hit.index: hit for hit in reranker.rerank(QUERY, docs)}
    partial = cancelled_after(reranker, 3, docs)
    assert [hit.index for hit in partial[:3]] == sorted([0, 1, 2], key=lambda index: -whole[index].score)
    assert [(hit.score, hit.relevance) for hit in partial[:3]] == [
        (whole[hit.index].score, whole[hit.index].relevance) for hit in partial[:3]
    ]
    assert [(hit.index, hit.score, hit.rank, hit.document) for hit in partial[3:]] == [
        (3, None, 4, docs[3]),
        (4, None, 5, docs[4]),
    ]
    assert (partial.complete, partial.unscored, partial.total, partial.query) == (False, 2, 5, QUERY)
    assert partial.top(2).hits == partial.hits[:2]


def test_a_call_that_is_cancelled_within_passages_has_documents(reranker):
    docs = ["light bulb " * 60, "Edison", "tea " * 60]
    partial = cancelled_after(reranker, 3, docs, long=Long("chunk", 64))
    assert [hit.text for hit in partial] == [docs[0], docs[1], docs[2]]
    assert [hit.score is None for hit in partial] == [False, True, True]
    assert len(partial[0].passages) == 1
    assert partial.unscored == 2


def test_a_call_that_is_cancelled_before_the_first_document_has_no_ranking(reranker):
    event = threading.Event()
    event.set()
    with pytest.raises(Cancelled) as ended:
        Reranker.load(["minilm-l12", "minilm-l12:2"], threads=1).rerank(QUERY, DOCS, cancel=event)
    assert ended.value.partial is None


def test_error_in_progress_comes_through_and_ends_the_work(reranker):
    calls = []

    def fail(done, total):
        calls.append(done)
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        reranker.rerank(QUERY, ["some words " * 50] * 2000, progress=fail)
    assert len(calls) == 1


def test_several_threads_may_share_a_reranker(reranker):
    alone = [hit.score for hit in reranker.rerank(QUERY, DOCS)]
    with ThreadPoolExecutor(8) as pool:
        for ranking in pool.map(lambda _: reranker.rerank(QUERY, DOCS), range(40)):
            assert [hit.score for hit in ranking] == pytest.approx(alone, abs=1e-5)


def test_score_takes_mixed_queries_in_order(reranker):
    mixed = reranker.score([(QUERY, DOCS[1]), ("coffee", DOCS[0]), (QUERY, DOCS[0])])
    assert mixed == pytest.approx(
        [reranker.score([pair])[0] for pair in ((QUERY, DOCS[1]), ("coffee", DOCS[0]), (QUERY, DOCS[0]))], abs=1e-5
    )
    with pytest.raises(InvalidInput, match="pair 0"):
        reranker.score(["not a pair"])


def test_rankings_show_themselves(reranker):
    need_posix()
    ranking = reranker.rerank(QUERY, ["<script>alert(1)</script> light", "[bold]x[/bold] \x1b[31m red"])
    assert "2 documents by minilm-l12 on cpu" in repr(ranking)
    page = ranking._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page

    from rich.console import Console

    console = Console(width=100, record=True, file=open("/dev/null", "w"))
    console.print(ranking)
    text = console.export_text()
    assert "[bold]x[/bold]" in text  # markup of a document is text
    assert "\x1b" not in text


@pytest.mark.parametrize("function", [rerank, Reranker.rerank_many])
def test_example_in_the_docstring_prints_what_it_says(function, capsys):
    code = textwrap.dedent(function.__doc__.partition("```python\n")[2].partition("```")[0])
    exec(code, {})
    comments = [line.partition("# ")[2] for line in code.splitlines() if "# " in line]
    assert capsys.readouterr().out.splitlines() == comments


def test_errors_form_one_tree():
    from dearlite import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    warnings = {kind for kind in kinds if issubclass(kind, Warning)}
    assert warnings == {errors.DearliteWarning}
    assert all(issubclass(kind, DearliteError) for kind in kinds if kind not in warnings)
    assert {kind.__name__ for kind in kinds} <= set(dearlite.__all__)


@pytest.mark.parametrize("name", dearlite.__all__)
def test_public_name_can_be_imported_and_is_listed(name):
    assert getattr(dearlite, name) is not None
    assert name in dir(dearlite)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'dearlite' has no attribute 'rernak'"):
        dearlite.rernak  # noqa: B018


def test_import_loads_the_modules_of_offline_evaluation_at_their_first_use():
    code = """
import sys
import dearlite
loaded = {name for name in sys.modules if name.startswith("dearlite.offline")}
assert not loaded, loaded
assert "numpy" not in sys.modules
from dearlite import Collection, Evaluation
from dearlite.offline.collection.collection import Collection as same
assert Collection is same
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.rerank_many({"rain": ["snow"]}), r"jobs is a dict: give its items\(\)"),
        (lambda model: model.rerank_many("rain"), r"jobs is a str: give a list"),
        (lambda model: model.rerank_many([("rain", ["snow"], 3)]), r"job 0 is a tuple: it must be a pair"),
        (lambda model: model.rerank_many(["rain"]), r"job 0 is a str: it must be a pair"),
        (lambda model: model.rerank("rain", ["snow"], long="chunk"), r"long is a str: give Long"),
        (lambda model: model.rerank("rain", ["snow"], listwise="first"), r"listwise is a str: give Listwise"),
        (lambda model: model.rerank("rain", ["snow"], fields="body"), r"fields is a str: give Fields"),
        (lambda model: model.rerank("rain", ["snow"], fields=Fields(text=5)), r"fields has the text 5"),
        (lambda model: model.rerank("rain", None), r"docs is one NoneType, not a list: give a list"),
        (lambda model: list(model.stream([("rain", "snow")])), r"a document of stream is a str: give a Document"),
    ],
)
def test_arguments_of_another_type_are_refused_in_words(call, message):
    with pytest.raises(DearliteError, match=message):
        call(Reranker.load())


def test_a_reranker_that_is_constructed_names_load():
    with pytest.raises(UsageError, match=r"Reranker\.load\('minilm-l12', device='cpu'\)$"):
        Reranker("minilm-l12", device="cpu")
    with pytest.raises(UsageError, match=r"^a Reranker is loaded, not constructed: Reranker.load\('minilm-l12'\)$"):
        Reranker("minilm-l12")


def test_a_reranker_says_in_one_line_what_it_is():
    with Reranker.load(threads=1) as model:
        assert repr(model) == "<PointwiseReranker minilm-l12, int8-per-row on cpu, 1 thread>"
    assert repr(model) == "<PointwiseReranker minilm-l12, closed>"
    chain = Reranker.load(["minilm-l12", "minilm-l12:3"])
    assert repr(chain) == "<CascadeReranker minilm-l12>minilm-l12, 0 of 2 models loaded>"
    chain.rerank(QUERY, DOCS)
    assert "2 of 2 models loaded" in repr(chain)
