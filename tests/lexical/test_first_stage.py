"""BM25 as the first stage: of a cascade, of `rerank`, and of `batch` and `eval` without a run."""

import json
import pickle
import shutil
from pathlib import Path

import pytest

pytest.importorskip("bm25s", reason="bm25s is not installed (extra first-stage)")

from dearlite import Corpus, Listwise, Long, Reranker, UsageError, compare, rerank_run
from dearlite import documents as documents_module
from dearlite.cli import estimate
from dearlite.lexical.bm25 import Bm25Index
from dearlite.models.chain_names import parse_chain
from dearlite.offline.collection.first_stage import split_chain
from dearlite.offline.collection.source import Source

SHARED = Path(__file__).parents[3] / "shared" / "data"
DOCS = ["Coffee is good", "Edison's bulbs, 1879", "Rain on bulbs and lights", "x y", "Tea is good"]


def scores(ranking):
    return [(hit.index, hit.score) for hit in ranking]


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collection")
    rows = [{"_id": f"d{number}", "title": "", "text": text} for number, text in enumerate(DOCS)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    queries = {"q1": "who made bulbs?", "q2": "is tea good?", "q3": "zebras"}
    (folder / "queries.jsonl").write_text("".join(f'{{"_id": "{q}", "text": "{t}"}}\n' for q, t in queries.items()))
    (folder / "qrels.tsv").write_text("q1 0 d1 1\nq2 0 d4 1\nq3 0 d0 1\n")
    return folder


def test_the_best_documents_by_words_go_to_the_next_stage(tiny_bundle):
    cascade = Reranker.load([("bm25", 2), tiny_bundle], threads=1)
    ranking = cascade.rerank("bulbs and rain", DOCS)
    model = Reranker.load(tiny_bundle, threads=1).score([("bulbs and rain", DOCS[index]) for index in (1, 2)])
    assert {hit.index: hit.score for hit in ranking[:2]} == dict(zip((1, 2), model, strict=True))
    assert [hit.index for hit in ranking[2:]] == [0, 3, 4]
    assert [[stage.model for stage in hit.stages] for hit in ranking] == [["bm25", "tiny"]] * 2 + [["bm25"]] * 3
    assert {hit.index: hit.stages[0].rank for hit in ranking} == {2: 1, 1: 2, 0: 3, 3: 4, 4: 5}
    assert [(report.model, report.depth) for report in ranking.stages] == [("bm25", 5), ("tiny", 2)]
    assert (ranking.complete, ranking.unscored, ranking.total) == (True, 0, 5)
    assert scores(pickle.loads(pickle.dumps(cascade)).rerank("bulbs and rain", Corpus(DOCS))) == scores(ranking)
    assert cascade.identity()["bm25"] == "lucene k1 0.9 b 0.4 english > -"
    assert scores(cascade.rerank("bulbs and rain", DOCS, budget_s=60)) == scores(ranking)
    assert scores(cascade.rerank("bulbs and rain", DOCS, long=Long("chunk"))[:2]) == scores(ranking[:2])


@pytest.mark.parametrize(
    ("names", "stages"),
    [
        (["bm25"], [("bm25", None)]),
        (["bm25", "minilm-l12"], [("bm25", None), ("minilm-l12", 100)]),
        (["bm25:200", "minilm-l12"], [("bm25", None), ("minilm-l12", 200)]),
        (["bm25:200", "minilm-l12:50"], [("bm25", None), ("minilm-l12", 50)]),
        ([("bm25", None), ("minilm-l12", 300)], [("bm25", None), ("minilm-l12", 300)]),
        (["bm25:20", "minilm-l12", "minilm-l6"], [("bm25", None), ("minilm-l12", 20), ("minilm-l6", 20)]),
        (["bm25:99", "dear"], [("bm25", None), ("dear-3b-ce", 99), ("dear-8b-listwise", 30)]),
    ],
)
def test_the_depth_of_a_lexical_stage_is_what_it_passes_on(names, stages):
    assert [(stage.model, stage.depth) for stage in parse_chain(names)] == stages


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (["minilm-l12", "bm25:3"], {}, "stage bm25 ranks by words, without the order before it: put it first"),
        ("bm25:3", {}, "bm25:3 passes 3 documents on, and no stage follows"),
        (["bm25:10", "minilm-l12:20"], {}, "stage minilm-l12 has depth 20 and the one before it only 10"),
        ("minilm-l12", {"language": "german"}, "language goes with a ranking by words"),
        ("bm25", {"instruction": "x"}, "bm25 takes no instruction"),
        ("bm25", {"gpu_layers": 1}, "gpu_layers goes with a model in a GGUF"),
    ],
)
def test_wrong_chains_and_options(model, options, message):
    with pytest.raises(UsageError, match=message):
        Reranker.load(model, **options)


def test_calls_that_do_not_fit_words(tiny_bundle):
    with pytest.raises(UsageError, match="takes no options of listwise models"):
        Reranker.load("bm25").rerank("tea", DOCS, listwise=Listwise())
    with pytest.raises(UsageError, match="has no score of a single document"):
        Reranker.load("bm25").score([("tea", "Tea")])
    with pytest.raises(UsageError, match="has no listwise stage"):
        Reranker.load(["bm25:2", tiny_bundle]).rerank("tea", DOCS, listwise=Listwise())


def test_models_lists_and_shows_it(cli):
    assert "bm25" in cli("models")[1]
    code, out, _ = cli("models", "show", "bm25")
    assert (code, "lexical" in out, "english" in out) == (0, True, True)
    for command in (("models", "path"), ("models", "get"), ("models", "verify"), ("bench", "-m"), ("models", "remove")):
        code, _, err = cli(*command, "bm25")
        assert code == 2, command
        assert err == "dearlite: bm25 compares words and has no file: it is the first stage of a chain, bm25:100\n"
    assert "nearest: bm25" in cli("rerank", "-q", "x", "-", "-m", "bm24")[2]
    code, _, err = cli("rerank", "-q", "x", "-", "-m", "bm25", "--explain")
    assert (code, err) == (
        2,
        "dearlite: bm25 is a lexical model: modes, windows and reasons (--mode reason) need a listwise model\n",
    )


def test_without_the_package_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "Stemmer", None)
    with pytest.raises(ImportError, match="first-stage"):
        Reranker.load("bm25")


def test_rerank_takes_a_first_stage(cli, tmp_path, tiny_bundle):
    docs = tmp_path / "docs.jsonl"
    docs.write_text("".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(DOCS)))
    base = ("rerank", "-q", "bulbs and rain", docs, "-m", tiny_bundle, "--threads", "1")
    code, out, err = cli(*base, "--first", "bm25:2", "--language", "en")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, len(rows), [stage["model"] for stage in rows[0]["stages"]]) == (0, 5, ["bm25", "tiny"])
    assert [row["id"] for row in rows[2:]] == ["0", "3", "4"]
    for options, message in [
        (("--first", "minilm-l12"), "dearlite: --first minilm-l12: it ranks by no words"),
        (("--language", "de"), "dearlite: --language goes with a ranking by words, as bm25, and tiny is pointwise"),
        (("--first", "bm25:2", "--language", "klingon"), "dearlite: no stemmer for the language 'klingon'"),
    ]:
        code, out, err = cli(*base, *options)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(message)


def test_a_query_without_a_word_of_a_document_is_one_line(cli, tmp_path):
    (tmp_path / "docs.jsonl").write_text('{"text": "tea"}\n{"text": "rain"}\n')
    (tmp_path / "queries.txt").write_text("the of\nrain\npears\n")
    remark = "dearlite: no document has a word of the query: bm25 leaves them in their order\n"
    docs = str(tmp_path / "docs.jsonl")
    assert cli("rerank", "-q", "the of", "-m", "bm25", docs)[2] == remark
    assert cli("rerank", "-q", "rain", "-m", "bm25", docs)[2] == ""
    _, _, errors = cli("rerank", "--queries", str(tmp_path / "queries.txt"), "-m", "bm25", docs)
    assert errors == "dearlite: 2 queries have no word of any document (1 first)\n"


def test_documents_are_checked_and_indexed_once_for_all_queries(cli, tmp_path, monkeypatch):
    checks, builds, build = [], [], Bm25Index.__init__
    as_document = documents_module.as_document
    monkeypatch.setattr(Bm25Index, "__init__", lambda *args, **options: (builds.append(1), build(*args, **options))[1])
    monkeypatch.setattr(documents_module, "as_document", lambda *args: (checks.append(1), as_document(*args))[1])
    (tmp_path / "docs.jsonl").write_text('{"text": "tea"}\n{"text": "rain"}\n')
    (tmp_path / "queries.txt").write_text("rain\ntea\nrain and tea\n")
    code, out, _ = cli("rerank", "--queries", tmp_path / "queries.txt", "-m", "bm25", tmp_path / "docs.jsonl")
    assert (code, len(out.splitlines())) == (0, 6)
    assert (len(checks), len(builds)) == (2, 1)


def test_a_call_that_takes_long_is_told_the_time_and_the_command(cli, tmp_path, tiny_bundle, monkeypatch):
    monkeypatch.setattr(estimate, "_MEASURED_S", 0.0)
    monkeypatch.setattr(estimate, "_LONG_S", 0.0)
    docs = tmp_path / "docs.txt"
    docs.write_text("".join(f"Bulb number {number}\n" for number in range(500)))
    base = ("rerank", "-q", "my bulb", docs, "-m", tiny_bundle, "--threads", "1")
    code, _, err = cli(*base)
    assert code == 0
    (line,) = [line for line in err.splitlines() if "documents take about" in line]
    assert line.startswith("dearlite: 500 documents take about ")
    assert line.endswith(f"dearlite rerank -q 'my bulb' {docs} -m {tiny_bundle} --threads 1 --first bm25:200")
    for options in (("--first", "bm25:200"), ("--quiet",), ("--budget", "60s")):
        assert "documents take about" not in cli(*base, *options)[2]


@pytest.mark.parametrize(("seconds", "text"), [(9.96, "10 s"), (89, "89 s"), (95, "2 min"), (5400, "1.5 h")])
def test_times_read_well(seconds, text):
    assert estimate._time(seconds) == text


def test_a_collection_without_a_run_gets_one(collection, tiny_bundle):
    first, chain = split_chain(["bm25:2", str(tiny_bundle)], None)
    assert [(stage.name, stage.depth) for stage in chain.stages] == [("tiny", None)] and not chain.cascade
    made = Source(source=collection, first=first).open()
    expected = Reranker.load("bm25").rerank("who made bulbs?", DOCS)
    assert made.run["q1"] == {f"d{hit.index}": hit.score for hit in expected if hit.score}
    assert made.run["q3"] == {} and made.first_stage
    assert made.notes == ("queries without a word of any document: 1 ('q3' first)",)
    assert made.qrels == collection / "qrels.tsv"
    reranked = rerank_run(
        queries=collection / "queries.jsonl", corpus=collection / "corpus.jsonl", model=["bm25:2", tiny_bundle],
        threads=1, journal=False,
    )  # fmt: skip
    assert {query: set(scores) for query, scores in reranked.run.items()} == {
        query: set(scores) for query, scores in made.run.items()
    }


def test_eval_measures_the_first_stage_and_the_model(cli, collection, tiny_bundle, tmp_path):
    pytest.importorskip("ir_measures", reason="ir-measures is not installed (extra eval)")
    table = tmp_path / "out.json"
    options = ("-m", tiny_bundle, "--threads", "1", "--no-journal", "--measures", "RR@10", "--json", table)
    code, out, err = cli("eval", collection, "--first", "bm25:2", *options)
    assert (code, "queries without a word of any document" in err) == (0, True)
    assert "first stage" in out
    values = json.loads(table.read_text())
    assert "bm25:2 (k1 0.9, b 0.4, english)" in table.read_text()
    assert json.dumps(values).count("0.6666") >= 1  # the first stage: both answers first, of three queries
    run = tmp_path / "run.trec"
    run.write_text("q1 Q0 d1 1 1.0 x\n")
    for more, message in [
        (("--run", run), "--run names a first stage, and bm25:2"),
        (("--depth", "5"), "--depth 5: the first stage bm25:2"),
    ]:
        code, _, err = cli("eval", collection, "--first", "bm25:2", *more, *options)
        assert (code, err.startswith(f"dearlite: {message}")) == (2, True)
    empty = tmp_path / "empty"
    shutil.copytree(collection, empty)
    (empty / "corpus.jsonl").unlink()
    code, _, err = cli("eval", empty, "--first", "bm25:2", *options)
    assert (code, "holds no corpus" in err) == (2, True)


@pytest.mark.parametrize(("name", "figure"), [("beir_scifact", 0.6762), ("beir_nfcorpus", 0.3181)])
def test_figures_of_published_collections(name, figure):
    pytest.importorskip("ir_measures", reason="ir-measures is not installed (extra eval)")
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"the collection {name} is not on this machine")
    first, _ = split_chain(["bm25:100", "minilm-l12"], None)
    made = Source(source=folder, first=first).open()
    values = compare(folder / "qrels.tsv", {"bm25": made.run}, measures="nDCG@10").values
    assert values["bm25"]["nDCG@10"] == pytest.approx(figure, abs=5e-5)
