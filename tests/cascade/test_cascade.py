"""Cascades, budgets and what is told before a model is loaded."""

import json
import re
import shutil
import struct
import threading

import pytest
from click.testing import CliRunner
from waiting import Clock

from dearlite import Reranker, rerank
from dearlite.anytime import PointwiseStage, score_within
from dearlite.cascade import CascadeReranker
from dearlite.cascade_stage import CascadeStage
from dearlite.cli.main import main
from dearlite.cli.options.types import Duration
from dearlite.deadline import Deadline
from dearlite.documents import as_documents, check_query
from dearlite.errors import Cancelled, DearliteError, ScoringError, UsageError
from dearlite.hits import make_hits
from dearlite.installing import pip_install
from dearlite.models import registry
from dearlite.models.bundle import Bundle
from dearlite.models.chain import resolve
from dearlite.models.chain_names import Stage, parse_chain, parse_stage
from dearlite.models.registry import find_model
from dearlite.ranking import Ranking

QUERY = "Who invented the light bulb?"
DOCS = [{"id": f"d{n}", "text": text} for n, text in enumerate(
    ["Coffee is good for diet", "Thomas Edison invented the light bulb in 1879", "KEPCO fixes light problems",
     "Tulip bulbs are planted in autumn", "The bulb was patented by Edison", "Light travels fast", "Tea", "Water"]
)]  # fmt: skip


class Counts(Reranker):
    """Scores a document by `value` of its text, at `pause_s` a document by the test's `clock`; keeps its texts."""

    threads = 1
    device = "cpu"
    quantisation = "none"
    clock = Clock()

    def __init__(self, name, value=float, pause_s=0.0, fails=None):
        self.model, self.value, self.pause_s, self.fails, self.seen = name, value, pause_s, fails, []

    def identity(self, listwise=None):
        return {"model": self.model}

    def rank(self, jobs, call):
        return [self.ranked(query, docs, call.top_k) for query, docs in jobs]

    def ranked(self, query, docs, top_k):
        documents = as_documents(docs)
        self.seen += [document.text for document in documents]
        if self.fails:
            raise self.fails
        self.clock.sleep(self.pause_s * len(documents))
        hits = make_hits(documents, [self.value(d.text) for d in documents], [(1, 1)] * len(documents), top_k)
        return Ranking(hits, check_query(query), self.model, self.device, 0.0, len(documents))


@pytest.fixture
def clock(monkeypatch):
    """The time of a call, which only a model of type Counts takes."""
    clock = Clock()
    monkeypatch.setattr(Counts, "clock", clock)
    for module in ("anytime", "deadline"):
        monkeypatch.setattr(f"dearlite.{module}.time", clock)
    return clock


def cascade(*stages, **options):
    chain = [CascadeStage(model.model, depth, "pointwise", lambda model=model: model) for model, depth in stages]
    return CascadeReranker(chain, **options)


NUMBERS = ["3", "9", "1", "7", "5"]


@pytest.mark.parametrize(
    ("given", "stage"),
    [("minilm-l12", ("minilm-l12", None)), ("minilm-l12:100", ("minilm-l12", 100)), (("a.gguf", 20), ("a.gguf", 20)),
     ("C:\\models\\a.dear", ("C:\\models\\a.dear", None)), ("C:\\models\\a.dear:5", ("C:\\models\\a.dear", 5))],
)  # fmt: skip
def test_stage_is_a_model_and_perhaps_a_depth(given, stage):
    assert parse_stage(given) == Stage(*stage)


@pytest.mark.parametrize(
    ("chain", "says"),
    [(["a:0"], "the depth of stage a is 0"), (["a:-3"], "the depth of stage a is -3"),
     ([("a", True)], "the depth of stage a is True"),
     ([("a", 1, 2)], "(model, depth)"),
     (["a:10", "b:20"], "stage b has depth 20 and the one before it only 10"), ([], "needs a model")],
)  # fmt: skip
def test_chain_that_cannot_be_is_refused(chain, says):
    with pytest.raises(UsageError) as caught:
        parse_chain(chain)
    assert says in str(caught.value)


def test_later_stage_without_a_depth_gets_the_head():
    assert [stage.depth for stage in parse_chain(["a", "b", "c:5"])] == [None, 30, 5]
    assert [stage.depth for stage in parse_chain(["a:12", "b"])] == [12, 12]


def test_each_stage_reranks_the_head_and_keeps_the_rest():
    first, second = Counts("up"), Counts("down", lambda text: -float(text))
    ranking = cascade((first, 4), (second, 2)).rerank("q", NUMBERS)
    assert [hit.text for hit in ranking] == ["7", "9", "3", "1", "5"]  # 5 was never read, 3 and 1 once
    assert [hit.rank for hit in ranking] == [1, 2, 3, 4, 5]
    assert [hit.score for hit in ranking] == [-7, -9, 3, 1, None]
    assert (ranking.unscored, ranking.top(2).unscored) == (1, 1)
    assert [[(s.model, s.rank, s.score) for s in hit.stages] for hit in ranking] == [
        [("up", 2, 7), ("down", 1, -7)],
        [("up", 1, 9), ("down", 2, -9)],
        [("up", 3, 3)],
        [("up", 4, 1)],
        [],
    ]
    assert [(stage.model, stage.depth, stage.scored) for stage in ranking.stages] == [("up", 4, 4), ("down", 2, 2)]
    assert ranking.complete
    assert (ranking.model, ranking.total) == ("up>down", 5)
    assert second.seen == ["9", "7"]


def test_many_queries_go_stage_by_stage_to_the_same_rankings():
    chain = [(Counts("up"), 4), (Counts("down", lambda text: -float(text)), 2)]
    jobs = [("q", NUMBERS), ("r", ["1", "2"]), ("s", [])]
    many = cascade(*chain).rerank_many(jobs, batch_size=2)
    assert [[hit.index for hit in one] for one in many] == [
        [hit.index for hit in cascade(*chain).rerank(*job)] for job in jobs
    ]


def test_progress_counts_over_all_stages():
    told = []
    cascade((Counts("a"), None), (Counts("b"), 2)).rerank("q", NUMBERS, progress=lambda *pair: told.append(pair))
    assert told[-1] == (7, 7)
    assert told == sorted(told)


def test_stage_is_loaded_when_it_is_needed_and_dropped_for_low_memory():
    loads = []

    def stage(name):
        return CascadeStage(name, None, "pointwise", lambda: loads.append(name) or Counts(name))

    lazy = CascadeReranker([stage("a"), stage("b")])
    assert loads == []
    lazy.rerank("q", NUMBERS)
    lazy.rerank("q", NUMBERS)
    assert loads == ["a", "b"]
    small = CascadeReranker([stage("c"), stage("d")], low_memory=True)
    small.rerank("q", NUMBERS)
    assert [one.loaded is None for one in small._stages] == [True, False]


@pytest.mark.parametrize("fails", [ScoringError("no score"), UsageError("no model file b.gguf")])
def test_stage_that_fails_is_passed_over_only_with_best_effort(fails):
    chain = [(Counts("a"), None), (Counts("b", fails=fails), 3), (Counts("c", lambda text: -float(text)), 2)]
    with pytest.raises(DearliteError, match=str(fails)):
        cascade(*chain).rerank("q", NUMBERS)
    ranking = cascade(*chain, best_effort=True).rerank("q", NUMBERS)
    assert [hit.text for hit in ranking] == ["7", "9", "5", "3", "1"]
    assert [(stage.model, stage.scored, stage.error) for stage in ranking.stages] == [
        ("a", 5, ""), ("b", 0, str(fails)), ("c", 2, "")
    ]  # fmt: skip
    with pytest.raises(DearliteError):  # there is nothing before the first to fall back to
        cascade((Counts("a", fails=fails), None), (Counts("b"), 2), best_effort=True).rerank("q", NUMBERS)


def test_adaptive_stage_sees_what_lies_within_the_margin_of_the_cut():
    first, second = Counts("a"), Counts("b", lambda text: -float(text))
    first.margin = 2.0
    ranking = cascade((first, None), (second, 4), adaptive=True).rerank("q", NUMBERS, top_k=2)
    assert second.seen == ["9", "7", "5"]  # the cut is 7: 5 is within the margin, 3 is not
    assert [(stage.depth, stage.scored) for stage in ranking.stages] == [(5, 5), (3, 3)]
    assert [hit.text for hit in ranking] == ["5", "7"]
    unknown = Counts("c", lambda text: -float(text))
    cascade((Counts("a"), None), (unknown, 4), adaptive=True).rerank("q", NUMBERS, top_k=2)
    assert unknown.seen == ["9", "7", "5", "3"]  # without a margin the depth alone counts


def test_half_the_time_gives_the_best_order_so_far(clock):
    slow = Counts("slow", pause_s=0.01)
    texts = [str(n) for n in range(60)]
    ranking = cascade((slow, None)).rerank("q", texts, budget_s=0.3)  # all of them take 0.6 s and more
    read = {hit.index for hit in ranking if hit.stages}
    assert not ranking.complete
    assert sorted(hit.index for hit in ranking) == list(range(60))
    assert read == set(range(len(read)))
    assert 25 <= len(read) <= 30
    assert [hit.index for hit in ranking] == [*sorted(read, reverse=True), *range(len(read), 60)]
    assert [hit.score for hit in ranking] == [*map(float, sorted(read, reverse=True)), *[None] * (60 - len(read))]
    assert ranking.unscored == 60 - len(read)
    assert ranking.stages[0].scored == len(read)


def test_what_time_is_left_after_a_stage_is_the_next_ones(clock):
    chain = [(Counts("fast", pause_s=0.001), None), (Counts("slow", lambda text: -float(text), 0.02), 20)]
    ranking = cascade(*chain).rerank("q", [str(n) for n in range(40)], budget_s=0.25)
    first, second = ranking.stages
    assert first.scored == 40
    assert 0 < second.scored < 20
    assert sorted(hit.index for hit in ranking) == list(range(40))
    assert {hit.index for hit in ranking if len(hit.stages) == 2} == set(range(40 - second.scored, 40))


def test_budget_that_suffices_gives_the_same_order():
    model = Reranker.load()
    whole, timed = model.rerank(QUERY, DOCS), model.rerank(QUERY, DOCS, budget_s=600)
    assert [hit.index for hit in timed] == [hit.index for hit in whole]
    assert [hit.score for hit in timed] == [hit.score for hit in whole]
    assert (timed.complete, timed.unscored) == (True, 0)
    assert timed.model == whole.model


def test_event_ends_an_anytime_call_at_once_and_cancels_another(clock):
    stop = threading.Event()

    def after_three(done, total):
        if done >= 3:
            stop.set()

    ranking = cascade((Counts("a", pause_s=0.01), None)).rerank(
        "q", NUMBERS * 20, progress=after_three, cancel=stop, budget_s=float("inf")
    )
    assert not ranking.complete
    assert len(ranking) == 100
    assert 3 <= ranking.stages[0].scored < 40
    with pytest.raises(Cancelled):
        cascade((Counts("a"), None), (Counts("b"), 2)).rerank("q", NUMBERS, cancel=stop)
    nothing = cascade((Counts("a"), None)).rerank("q", NUMBERS, cancel=stop, budget_s=1)
    assert [hit.index for hit in nothing] == [0, 1, 2, 3, 4]
    assert not nothing.complete


@pytest.mark.parametrize(("count", "read"), [(3, [3, 0]), (10, [8, 2])])
def test_a_cancelled_cascade_has_the_order_so_far(count, read):
    """Progress counts 8 documents of the first stage and 4 of the second."""
    chain = Reranker.load(["minilm-l12", "minilm-l12:4"], threads=1)
    whole = chain.rerank(QUERY, DOCS)
    stop = threading.Event()
    with pytest.raises(Cancelled) as ended:
        chain.rerank(QUERY, DOCS, cancel=stop, progress=lambda done, total: done >= count and stop.set())
    partial = ended.value.partial
    assert not partial.complete
    assert [stage.scored for stage in partial.stages] == read[: len(partial.stages)]
    assert [len(hit.stages) for hit in partial] == [2] * read[1] + [1] * (read[0] - read[1]) + [0] * (8 - read[0])
    assert partial.unscored == 8 - read[0]
    if read[0] == 8:
        assert {hit.index for hit in partial[:4]} == {hit.index for hit in whole[:4]}
        assert [hit.index for hit in partial[4:]] == [hit.index for hit in whole[4:]]


@pytest.mark.parametrize("budget", [0, -1, float("nan"), "5", True])
def test_budget_that_is_none_is_refused(budget):
    with pytest.raises(UsageError, match="the budget is"):
        cascade((Counts("a"), None)).rerank("q", NUMBERS, budget_s=budget)


def test_budget_below_the_first_batch_is_refused(clock):
    stage = PointwiseStage(Counts("a", pause_s=0.03), "q", as_documents(NUMBERS), [()] * 5, None)
    with pytest.raises(UsageError, match=r"a budget of 0\.01 s is below the first batch, which takes 0\.03 s"):
        score_within(stage, Deadline(0.01), lambda *_: None, first=True)


def test_later_stage_that_is_too_slow_leaves_what_there_is(clock):
    slow = Counts("slow", lambda text: -float(text), pause_s=0.2)
    ranking = cascade((Counts("a"), None), (slow, 4)).rerank("q", NUMBERS, budget_s=0.1)
    assert [hit.text for hit in ranking] == ["9", "7", "5", "3", "1"]  # one that was read late is still the first
    assert [stage.scored for stage in ranking.stages] == [5, 1]
    assert not ranking.complete


@pytest.mark.parametrize(("text", "seconds"), [("5s", 5), ("500ms", 0.5), ("2m", 120), ("1.5", 1.5), (" 3s ", 3)])
def test_budget_is_a_time(text, seconds):
    assert Duration()(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-1s", "5h", "s", "ms5", "nan", "1 2"])
def test_budget_that_is_no_time_is_refused(text):
    refused = run("-q", "q", "none.jsonl", "--budget", text)
    assert refused.exit_code == 2
    assert f"Invalid value for '--budget': {text!r} is not a time above 0, such as 5s" in refused.stderr


def test_real_chain_of_files_and_names(tmp_path):
    copy = tmp_path / "second.dear"
    shutil.copyfile(find_model("minilm-l12"), copy)
    ranking = rerank(QUERY, DOCS, model=["minilm-l12", (copy, 3)])
    alone = rerank(QUERY, DOCS)
    assert [hit.index for hit in ranking] == [hit.index for hit in alone]
    assert [len(hit.stages) for hit in ranking] == [2, 2, 2, 1, 1, 1, 1, 1]
    assert ranking[0].stages[0].score == alone[0].score


def test_cascade_has_a_name_in_the_registry(tmp_path, monkeypatch):
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path))
    (tmp_path / "models.toml").write_text('[mine]\nkind = "cascade"\nstages = ["minilm-l12", "minilm-l12:2"]\n')
    ranking = rerank(QUERY, DOCS, model="mine")
    assert [(stage.depth, stage.scored) for stage in ranking.stages] == [(8, 8), (2, 2)]
    for chain, says in ((["minilm-l12", "mine"], "is a cascade itself"), (["mine:5"], "depths of its own")):
        with pytest.raises(UsageError, match=says):
            Reranker.load(chain)
    with pytest.raises(UsageError, match=r"mine is a cascade \(minilm-l12, minilm-l12:2\)"):
        find_model("mine")


@pytest.mark.parametrize(
    ("stages", "says"),
    [("5", "stages 5, which is not a list"), ("[]", "not a list"), ('["a"]\nsize_mb = 3', "unknown key 'size_mb'")],
)
def test_cascade_of_the_registry_that_cannot_be_is_refused(tmp_path, monkeypatch, stages, says):
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path))
    (tmp_path / "models.toml").write_text(f'[mine]\nkind = "cascade"\nstages = {stages}\n')
    with pytest.raises(UsageError, match=says):
        Reranker.load("mine")


def test_files_are_looked_for_before_a_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("dearlite.loading._load", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(UsageError, match=r"no model file .*gone\.gguf"):
        Reranker.load(["minilm-l12", str(tmp_path / "gone.gguf")])
    (tmp_path / "list.gguf").write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 0))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name.startswith("llama_cpp") else object())
    with pytest.raises(DearliteError, match=re.escape(f"list.gguf needs llama_cpp: {pip_install('listwise')}")):
        Reranker.load(["minilm-l12", str(tmp_path / "list.gguf")])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(UsageError, match="is pointwise and follows a listwise one"):
        Reranker.load([str(tmp_path / "list.gguf"), "minilm-l12"])
    with pytest.raises(UsageError, match="gpu_layers goes with a model in a GGUF, and no stage is one"):
        Reranker.load(["minilm-l12", "minilm-l12:3"], gpu_layers=3)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "query.txt").write_text(QUERY)
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    return [str(tmp_path / "query.txt"), str(tmp_path / "docs.jsonl")]


def run(*arguments):
    return CliRunner().invoke(main, ["rerank", *map(str, arguments)])


def test_command_takes_a_chain(files):
    found = run(*files, "-m", "minilm-l12", "-m", "minilm-l12:3", "--format", "json")
    report = json.loads(found.stdout)
    assert [(stage["depth"], stage["scored"]) for stage in report["stages"]] == [(8, 8), (3, 3)]
    assert [stage["looked_at"] for stage in report["stages"]] == [8, 3]  # the former name
    assert report["complete"] is True
    assert [len(hit["stages"]) for hit in report["hits"]] == [2, 2, 2, 1, 1, 1, 1, 1]
    table = run(*files, "-m", "minilm-l12", "-m", "minilm-l12:3", "--format", "table").stdout
    assert "by stage" in table
    assert "1 → 1" in table


def test_command_passes_over_a_stage_with_best_effort_and_says_so(files):
    chain = ["-m", "minilm-l12", "-m", "gone.gguf:3"]
    refused = run(*files, *chain)
    assert isinstance(refused.exception, UsageError)
    found = run(*files, *chain, "--best-effort", "--format", "json")
    assert found.exit_code == 0
    assert (
        "dearlite: stage gone did not run, the order is that of the other stages: no model file gone.gguf"
        in found.stderr
    )
    assert json.loads(found.stdout)["stages"][1]["error"].startswith("no model file gone.gguf")


def test_command_says_what_there_was_no_time_for(files, monkeypatch):
    monkeypatch.setattr("dearlite.anytime._BATCH_DOCUMENTS", 1)
    monkeypatch.setattr("dearlite.deadline.Deadline.over", property(lambda self: True))
    found = run(*files, "--budget", "60s", "--format", "json")
    assert (
        "the budget is exhausted: minilm-l12 scored 0 of 8 documents; the others are left in their earlier order"
        in found.stderr
    )
    report = json.loads(found.stdout)
    assert report["complete"] is False
    assert [hit["id"] for hit in report["hits"]] == [doc["id"] for doc in DOCS]


def test_models_toml_is_parsed_once_and_read_again_when_it_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path))
    own = tmp_path / "models.toml"
    own.write_text('[pair]\nkind = "cascade"\nstages = ["minilm-l12:9", "minilm-l12:3"]\n')
    registry._parse.cache_clear()
    for _ in range(3):
        assert [stage.depth for stage in resolve("pair").stages] == [9, 3]
    assert registry._parse.cache_info().misses == 2  # the shipped file and this one
    own.write_text('[pair]\nkind = "cascade"\nstages = ["minilm-l12:80", "minilm-l12:40"]\n')
    assert [stage.depth for stage in resolve("pair").stages] == [80, 40]


def test_a_file_in_two_stages_is_loaded_once():
    reranker = Reranker.load(["minilm-l12", "minilm-l12:2"])
    reranker.rerank("tea", ["coffee", "tea"])
    first, second = (stage.loaded for stage in reranker._stages)
    assert first is second is not None


def test_a_bundle_that_a_check_has_opened_is_not_opened_again(monkeypatch):
    opened = []
    init = Bundle.__init__
    monkeypatch.setattr(Bundle, "__init__", lambda self, path: (opened.append(path), init(self, path))[1])
    chain = resolve("minilm-l12")
    chain.check(calibrated=True)
    reranker = Reranker.load(chain)
    assert len(opened) == 1
    assert reranker.rerank("tea", ["tea"]).model == "minilm-l12"


@pytest.mark.parametrize("option", ["low_memory", "best_effort", "adaptive"])
def test_options_of_cascades_are_refused_for_one_model(option):
    with pytest.raises(UsageError, match=f"{option}: an option of cascades, and minilm-l12 is one model: name two"):
        Reranker.load("minilm-l12", **{option: True})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--adaptive"], "--adaptive is for a cascade, and one model was named: -m NAME -m NAME:30"),
        (["--low-memory"], "--low-memory is for a cascade, and one model was named"),
        (["--best-effort"], "--best-effort is for a cascade, and one model was named"),
        (["--low-memory", "--best-effort"], "--low-memory and --best-effort are for a cascade, and one model"),
        (["-m", "minilm-l12", "-m", "minilm-l12:3", "--low-memory", "--budget", "5s"], "cannot keep to --budget"),
        (["-m", "minilm-l12", "-m", "minilm-l12:3", "--window", "4"], "minilm-l12>minilm-l12 has no listwise stage"),
        (
            ["--mode", "first"],
            "minilm-l12 is a pointwise model: modes, windows and reasons (--mode first) need a listwise model",
        ),
        (["--gpu-layers", "3"], "--gpu-layers goes with a model in a GGUF, and minilm-l12 is pointwise"),
        (["--passes", "0"], "passes is 0: it must be a whole number from 1"),
        (["--window", "4", "--stride", "5"], "--stride is 5, more than the window of 4"),
        (["--threads", "0"], "threads is 0: it must be a whole number from 1"),
    ],
)
def test_wrong_options_are_refused_before_the_documents_are_read(options, message):
    refused = run("-q", "q", "none.jsonl", *options)
    assert isinstance(refused.exception, UsageError)
    assert message in str(refused.exception)
