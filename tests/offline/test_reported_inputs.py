"""Inputs of public bug reports (tests/data/cases), and every entry point on bad ones: right, or refused on one line."""

import json
from pathlib import Path

import numpy as np
import pytest

from dearlite import Reranker, evaluate, make_collection, rerank_run
from dearlite.errors import DearliteError, InvalidInput, UsageError
from dearlite.files.trec import read_qrels, read_run
from dearlite.offline.collection.collection import Collection, open_collection
from dearlite.ranking import PairScore

pytest.importorskip("ir_measures", reason="the extra dearlite[eval] is not installed")
CASES = Path(__file__).parents[1] / "data" / "cases"
TINY = CASES / "e01-tiny"


class ByLength(Reranker):
    """A model that scores a document by its length."""

    model = "by-length"
    device, quantisation, threads = "cpu", "none", 1

    def identity(self, listwise=None):
        return {"model": self.model, "sha256": "1", "device": "cpu"}

    def rank(self, jobs, call):
        raise NotImplementedError

    def stream(self, pairs):
        for _, document in pairs:
            yield PairScore(float(len(document.text)), 1, 1)


@pytest.mark.parametrize(
    ("name", "run", "notes"),
    [
        ("bom.trec", {"q1": {"d4": 3.5, "d1": 2.5}}, 0),
        ("header.trec", {"q1": {"d4": 3.5, "d1": 2.5}}, 0),
        ("sci.trec", {"q1": {"d4": 3.5, "d1": 0.0025}}, 0),
        ("msmarco-run.tsv", {"q1": {"d4": -1.0, "d1": -2.0}, "q2": {"d2": -1.0}}, 1),
    ],
)
def test_runs_as_they_are_found(name, run, notes):
    assert read_run(CASES / "e03-run-forms" / name)[0] == run
    assert len(read_run(CASES / "e03-run-forms" / name)[1]) == notes


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "comment.trec",
            "comment.trec:1 has 3 columns instead of the 6 of a run (qid Q0 docid rank score tag): it looks",
        ),
        ("decimal-comma.trec", "the score '3,5' is not a number: write it with a point instead of the comma"),
        ("inf.trec", "inf.trec:2: the score '-inf' is not finite"),
        ("tag-with-space.trec", "tag-with-space.trec:1 has 7 columns instead of the 6"),
    ],
)
def test_runs_that_are_refused(name, words):
    with pytest.raises(InvalidInput) as caught:
        read_run(CASES / "e03-run-forms" / name)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_judgements_as_they_are_found():
    folder = CASES / "e04-qrels-forms"
    both = {"q1": {"d1": 1}, "q2": {"d2": 1}}
    assert read_qrels(folder / "beir.csv") == read_qrels(folder / "three-no-header.tsv") == both
    assert read_qrels(folder / "no-header.csv") == read_qrels(folder / "underscore.tsv") == {"q1": {"d1": 1}}
    for name, words in {
        "dup.txt": "dup.txt:4: document 'd2' of query 'q2' has two grades: keep one",
        "five.txt": "five.txt:1 has 5 columns instead of the 4 of qrels (qid 0 docid grade)",
        "half.tsv": "half.tsv:3: the grade '0.5' is not a whole number",
        "two-cols.tsv": "two-cols.tsv:1 has 2 columns instead of the 4 of qrels (qid 0 docid grade): it has no number",
    }.items():
        with pytest.raises(InvalidInput) as caught:
            read_qrels(folder / name)
        assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("name", "run", "words"),
    [
        ("dpr.json", {"1": {"wiki:1": 12.5, "wiki:2": 9.1}}, []),
        ("string-score.json", {"q1": {"a": 12.5, "b": 9.0}}, []),
        ("single-object.json", {"1": {"a": 2.0}}, []),
        ("empty-hits.json", {"1": {}, "2": {"a": 1.0}}, []),
        ("empty-contents.json", {"q1": {"a": 1.0, "b": 0.5}}, []),
        ("null-score.json", {"q1": {"a": -1.0, "b": -2.0}}, ["1 query has documents without a score ('q1' first)"]),
        ("nan-score.json", {"q1": {"a": -1.0, "b": -2.0}}, ["1 query has documents without a score ('q1' first)"]),
        (
            "string-candidates.json",
            {"1": {"1-1": -1.0, "1-2": -2.0}},
            ["without a score", "2 documents are strings without an id: called QUERY-POSITION, such as 1-1"],
        ),
    ],
)
def test_candidates_as_they_are_found(name, run, words):
    collection = open_collection(CASES / "e05-candidates" / name)
    assert {query_id: dict(scores) for query_id, scores in collection.run.items()} == run
    assert [list(scores) for scores in collection.run.values()] == [list(scores) for scores in run.values()]
    assert len(collection.notes) == len(words)
    for note, part in zip(collection.notes, words, strict=True):
        assert part in note
    if name == "dpr.json":
        assert collection.queries == {"1": "where does rain fall?"}
        assert collection.documents["wiki:1"].title == "Rain"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nan-middle.json", "document 'nan' has no score, and the scores of the others do not fall in the order"),
        (
            "mteb-rerank.json",
            "is not a query with its documents: it needs 'query', and 'hits' or 'candidates': its texts",
        ),
        ("dup-doc.json", "id 'a' comes twice in this query"),
        ("two-texts.json", "document 'a' has two texts"),
    ],
)
def test_candidates_that_are_refused(name, words):
    with pytest.raises(InvalidInput) as caught:
        open_collection(CASES / "e05-candidates" / name)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_document_without_a_score_never_takes_the_place_of_the_best():
    collection = open_collection(CASES / "e05-candidates" / "nan-middle.json", depth=1, skip_bad=True)
    assert collection.run == {"q1": {"high": 5.0}}
    assert collection.notes[0].startswith("skipped: nan-middle.json item 1: document 'nan' has no score")


def test_ranks_order_documents_without_scores(tmp_path):
    hits = [{"docid": name, "content": name, "rank": rank} for name, rank in (("c", 3), ("a", 1), ("b", 2))]
    (tmp_path / "c.json").write_text(json.dumps([{"query": "q", "hits": hits}]))
    assert open_collection(tmp_path / "c.json").run == {"1": {"a": -1.0, "b": -2.0, "c": -3.0}}
    assert list(open_collection(tmp_path / "c.json", depth=2).run["1"]) == ["a", "b"]


def test_no_topic_in_common_and_queries_without_results_are_counted_and_said():
    collection = open_collection(TINY)
    scored = {"q1": {"d1": 1.0}, "zz": {"d1": 1.0}}
    notes = evaluate(collection, scored=scored, measures="AP").notes
    assert "scored: 3 of 4 judged queries have no documents ('q2', 'q3', 'q4'): they count as zero" in notes
    assert "scored: 1 query has no judgements ('zz'): left out" in notes
    strangers = evaluate(collection, scored={"q1": {"1.0": 1.0}}, measures="AP").notes
    assert any(
        note.startswith("scored: none of its documents is judged (it has '1.0', the judgements") for note in strangers
    )


def test_a_collection_of_ms_marco_without_a_header(tmp_path):
    (tmp_path / "run.tsv").write_text("1\t102\t1\n1\t101\t2\n")
    (tmp_path / "queries.tsv").write_text("1\thow hard is granite?\n")
    corpus = CASES / "c08-csv-blank-line" / "msmarco.tsv"
    collection = open_collection(queries=tmp_path / "queries.tsv", corpus=[corpus], run=tmp_path / "run.tsv")
    assert collection.run == {"1": {"102": -1.0, "101": -2.0}}
    assert collection.documents["101"].text == "Rain falls in spring."
    assert collection.notes == ("run.tsv has three columns: read as qid docid rank (MS MARCO)",)


def test_queries_and_corpora_in_other_forms(tmp_path):
    (tmp_path / "run.trec").write_text("101 Q0 7 1 2 t\n102 Q0 8 1 2 t\n")
    queries = {
        "q.tsv": "101\train in spring\n102\tgranite\n",
        "h.tsv": "Query-ID\tQuery\n101\train in spring\n102\tgranite\n",
        "q.json": '{"101": "rain in spring", "102": "granite"}',
        "q.jsonl": '{"qid": 101, "question": "rain in spring"}\n{"QID": 102.0, "Question": "granite"}\n',
        "q.csv": "qid,query\n101,rain in spring\n102,granite\n",
    }
    corpora = {
        "c.tsv": "7\tRain falls.\n8\tGranite is hard.\n",
        "h.tsv": "DocNo\tText\n7\tRain falls.\n8\tGranite is hard.\n",
        "c.json": '{"7": {"title": "", "text": "Rain falls."}, "8": {"text": "Granite is hard."}}',
        "c.jsonl": '{"pid": 7, "passage": "Rain falls."}\n{"PID": 8, "Passage": "Granite is hard."}\n',
        "c.csv": "doc_id,contents\n7,Rain falls.\n8,Granite is hard.\n",
    }
    for number, (name, text) in enumerate(queries.items()):
        (tmp_path / f"q{number}{Path(name).suffix}").write_text(text)
        for other, body in corpora.items():
            (tmp_path / f"c-{other}").write_text(body)
            collection = open_collection(
                queries=tmp_path / f"q{number}{Path(name).suffix}",
                corpus=[tmp_path / f"c-{other}"],
                run=tmp_path / "run.trec",
            )
            assert collection.queries == {"101": "rain in spring", "102": "granite"}
            assert {key: doc.text for key, doc in collection.documents.items()} == {
                "7": "Rain falls.",
                "8": "Granite is hard.",
            }


@pytest.fixture
def one():
    return make_collection({"q": "rain?"}, {"d": "Rain falls."}, {"q": ["d"]})


def test_ids_and_grades_of_numpy_and_whole_numbers(one):
    numbers = make_collection({np.int64(1): "rain?"}, {np.int64(2): "Rain."}, {np.int64(1): [np.int64(2)]})
    assert numbers.run == {"1": {"2": -1.0}}
    assert rerank_run(numbers, model=ByLength(), journal=False).run == {"1": {"2": 5.0}}
    for qrels in ({"q": {"d": np.int64(1)}}, {"q": {"d": 1.0}}, {"q": {"d": np.float32(1)}}, {"q": {"d": True}}):
        assert evaluate(one, scored={"q": {"d": np.float32(1)}}, qrels=qrels, measures="AP").values["scored"] == {
            "AP": 1.0
        }
    whole = evaluate(one, scored={1: {2: 1}}, qrels={1: {2.0: 1}}, measures="AP")
    assert whole.per_query["scored"] == {"AP": {"1": 1.0}}
    assert json.loads(json.dumps(whole.to_dict()))
    assert evaluate(one, scored={"q": ["d"]}, qrels={"q": {"d": 1}}, measures="AP").values["scored"] == {"AP": 1.0}
    direct = Collection("c", {1: "rain?"}, {2: "Rain."}, {1: [2]})
    assert rerank_run(direct, model=ByLength(), journal=False).run == {"1": {"2": 5.0}}


def test_frames_named_tuples_and_records(one):
    pd, ir_measures = pytest.importorskip("pandas"), pytest.importorskip("ir_measures")
    run = pd.DataFrame({"query_id": ["q", "q"], "doc_id": ["x", "d"], "score": [1, 2]})
    qrels = pd.DataFrame({"query_id": ["q"], "doc_id": ["d"], "relevance": [1.0]})
    tuples = [ir_measures.ScoredDoc("q", "x", 1), ir_measures.ScoredDoc("q", "d", 2)]
    terrier = pd.DataFrame(
        {"qid": ["q", "q"], "docid": [7, 9], "docno": ["d", "x"], "rank": [0, 1], "score": [9.0, 8.0]}
    )
    ranks = [{"qid": "q", "docno": "x", "rank": 2}, {"qid": "q", "docno": "d", "rank": 1}]
    for scored in (run, tuples, terrier, ranks, {"q": [("d", 3), ("x", 1)]}):
        for judged in (qrels, [ir_measures.Qrel("q", "d", 1)], {"q": {"d": 1}}):
            evaluation = evaluate(one, scored=scored, baselines={"b": scored}, qrels=judged, measures="RR")
            assert evaluation.values["scored"] == evaluation.values["b"] == {"RR": 1.0}
    frames = make_collection(
        pd.DataFrame({"qid": [1], "query": ["rain"]}), pd.DataFrame({"docno": [7], "text": ["t"]}), {1: [7]}
    )
    assert (frames.queries, frames.run) == ({"1": "rain"}, {"1": {"7": -1.0}})


def test_judgements_that_are_passed_come_first(one, tmp_path):
    (tmp_path / "own.txt").write_text("q 0 d 1\n")
    (tmp_path / "other.txt").write_text("q 0 d 0\n")
    own = Collection("c", one.queries, one.documents, one.run, tmp_path / "own.txt")
    assert evaluate(own, scored=one.run, measures="AP").values["scored"] == {"AP": 1.0}
    assert evaluate(own, scored=one.run, qrels=tmp_path / "other.txt", measures="AP").values["scored"] == {"AP": 0.0}


def test_a_depth_cuts_a_collection_too():
    collection = make_collection({"q": "?"}, {"a": "aaa", "b": "bb", "c": "c"}, {"q": ["c", "b", "a"]})
    reranked = rerank_run(collection, model=ByLength(), depth=2, journal=False)
    assert list(reranked.run["q"]) == ["b", "c"]
    with pytest.raises(UsageError, match="a Collection holds its run itself"):
        rerank_run(collection, model=ByLength(), run="run.trec")


# the sweep: entry points x bad inputs; each ends in one line, before a model is loaded

BAD_FILES = {
    "run": {
        "nan.trec": "q1 Q0 d1 1 nan t\n",
        "inf.trec": "q1 Q0 d1 1 inf t\n",
        "twice.trec": "q1 Q0 d1 1 2 t\nq1 Q0 d1 2 1 t\n",
        "five.trec": "q1 Q0 d1 1 2\n",
        "qrels.trec": "q1 0 d1 1\n",
        "pairs.tsv": "q1\td1\n",
        "ambiguous.tsv": "q1\td1\t3\nq1\td2\t5\nq1\td3\t4\n",
        "no-number.csv": "qid,docid\nq1,d1\n",
        "null.json": '{"q1": {"d1": null}}',
        "nan.json": '{"q1": {"d1": NaN}}',
        "list.json": "[1, 2]",
        "words.json": '"run"',
        "cut.json": '{"q1": {"d1": ',
        "records.jsonl": '{"qid": "q1", "docid": "d1"}\n',
        "strange.trec": "q1 Q0 d99 1 2 t\n",
        "no-query.trec": "q99 Q0 d1 1 2 t\n",
        "empty.trec": "",
        "json.trec": '{"q1": {"d1": 1}}\n',
    },
    "qrels": {
        "half.txt": "q1 0 d1 0.5\n",
        "nan.txt": "q1 0 d1 nan\n",
        "word.txt": "q1 0 d1 high\n",
        "two.txt": "q1 0 d1 1\nq1 0 d1 2\n",
        "five.txt": "q1 0 d1 1 x\n",
        "pairs.txt": "q1 d1\n",
        "run.txt": "q1 Q0 d1 1 2 t\n",
        "huge.txt": "q1 0 d1 99999999999999999999\n",
        "large.txt": "q1 0 d1 2000000\n",
        "empty.txt": "",
        "null.json": '{"q1": {"d1": null}}',
        "list.json": '{"q1": ["d1"]}',
        "columns.csv": "query-id,corpus-id\nq1,d1\n",
        "twins.csv": "qid,QID,docid,score\nq1,q1,d1,1\n",
    },
}
MEASURES = ["nDCG@0", "ERR", "foo", "RBP", "alpha_nDCG@10", "RR(rel=0)", "IPrec@2"]


def one_line(error):
    text = str(error)
    assert text and "\n" not in text and "Traceback" not in text
    return text


@pytest.mark.parametrize("entry", ["batch", "eval", "scored", "baseline", "rerank_run", "evaluate"])
@pytest.mark.parametrize("name", BAD_FILES["run"])
def test_a_bad_run_is_one_line_at_every_entry_point(cli, tmp_path, name, entry):
    path = tmp_path / name
    path.write_text(BAD_FILES["run"][name])
    if entry in ("scored", "baseline") and name in ("strange.trec", "no-query.trec"):
        return  # a run of other documents can be measured, and is counted
    if entry in ("rerank_run", "evaluate"):
        call = rerank_run if entry == "rerank_run" else evaluate
        with pytest.raises(DearliteError) as caught:
            call(TINY, run=path, model=ByLength(), journal=False)
        assert name in one_line(caught.value)
        return
    options = {
        "batch": ["batch", TINY, "--run", path, "-o", tmp_path / "out.trec"],
        "eval": ["eval", TINY, "--run", path, "--no-journal"],
        "scored": ["eval", TINY, "--scored", path],
        "baseline": ["eval", TINY, "--baseline", path, "--no-journal"],
    }[entry]
    code, out, err = cli(*options)
    assert code in (1, 2) and name in one_line(err.strip()) and not out
    assert not (tmp_path / "out.trec").exists()


@pytest.mark.parametrize("entry", ["eval", "eval --scored", "evaluate"])
@pytest.mark.parametrize("name", BAD_FILES["qrels"])
def test_bad_judgements_are_one_line_before_anything_is_scored(cli, tmp_path, monkeypatch, name, entry):
    monkeypatch.setattr(Reranker, "load", lambda *_, **__: pytest.fail("the model was loaded first"))
    path = tmp_path / name
    path.write_text(BAD_FILES["qrels"][name])
    if entry == "evaluate":
        with pytest.raises(InvalidInput) as caught:
            evaluate(TINY, qrels=path)
        assert "d1" in one_line(caught.value) or name in one_line(caught.value)
        return
    scored = ["--scored", TINY / "run.trec"] if entry == "eval --scored" else []
    code, out, err = cli("eval", TINY, "--qrels", path, *scored, "--json", tmp_path / "out.json")
    assert code == 1 and not out and not (tmp_path / "out.json").exists()
    assert "d1" in one_line(err.strip()) or name in one_line(err.strip())


@pytest.mark.parametrize("entry", ["eval", "eval --suite", "evaluate"])
@pytest.mark.parametrize("name", MEASURES)
def test_a_bad_measure_is_one_line_before_anything_is_read(cli, tmp_path, monkeypatch, name, entry):
    monkeypatch.setattr(Reranker, "load", lambda *_, **__: pytest.fail("the model was loaded first"))
    stem = name.partition("@")[0].partition("(")[0]
    if entry == "evaluate":
        with pytest.raises(DearliteError) as caught:
            evaluate(tmp_path / "nowhere", measures=["AP", name])
        assert stem in one_line(caught.value)
        return
    source = ["--suite", "dear", tmp_path] if entry == "eval --suite" else [tmp_path / "nowhere"]
    code, out, err = cli("eval", *source, "--measures", "AP", "--measures", name)
    assert code in (1, 2) and stem in one_line(err.strip()) and not out


def test_measures_add_up(cli):
    code, out, _ = cli(
        "eval", TINY, "--scored", TINY / "run.trec", "--measures", "map", "--measures", "P_1 AP", "--json", "-"
    )
    assert code == 0 and json.loads(out)["measures"] == ["AP", "P@1"]


def test_notes_are_on_stderr_where_a_file_is_on_stdout(cli):
    run = CASES / "e03-run-forms" / "msmarco-run.tsv"
    code, out, err = cli("eval", TINY, "--scored", run, "--measures", "AP", "--csv", "-")
    assert code == 0 and out.startswith("system,")
    assert "dearlite: msmarco-run.tsv has three columns: read as qid docid rank (MS MARCO)\n" in err
    assert cli("eval", TINY, "--scored", run, "--measures", "AP", "--csv", "-", "--quiet")[2] == ""
    code, out, err = cli("eval", TINY, "--scored", run, "--measures", "AP")
    assert code == 0 and "read as qid docid rank" in " ".join(out.split()) and not err


def test_the_reported_negative_grades_on_the_command_line(cli):
    folder = CASES / "e02-negative-grades"
    arguments = ["--measures", "infAP Bpref P(judged_only=True)@1", "--json", "-"]
    code, out, _ = cli("eval", folder, "--scored", folder / "run.trec", *arguments)
    values = json.loads(out)["systems"][0]["values"]
    assert code == 0 and [round(value, 4) for value in values.values()] == [0.6875, 0.5, 1.0]


BAD_VALUES = {
    "a score of NaN": lambda: make_collection({"q": "?"}, {"d": "t"}, {"q": {"d": float("nan")}}),
    "a score of infinity": lambda: make_collection({"q": "?"}, {"d": "t"}, {"q": {"d": float("inf")}}),
    "a score that is a word": lambda: make_collection({"q": "?"}, {"d": "t"}, {"q": {"d": "high"}}),
    "no score": lambda: make_collection({"q": "?"}, {"d": "t"}, {"q": {"d": None}}),
    "a document twice": lambda: make_collection({"q": "?"}, {"d": "t"}, {"q": ["d", "d"]}),
    "a document as number and as text": lambda: make_collection({"q": "?"}, {"1": "t"}, {"q": ["1", 1]}),
    "a run that is a string": lambda: make_collection({"q": "?"}, {"d": "t"}, {"q": "d"}),
    "no run": lambda: make_collection({"q": "?"}, {"d": "t"}, None),
    "a run of numbers": lambda: make_collection({"q": "?"}, {"d": "t"}, [1, 2]),
    "a run of records without ids": lambda: make_collection({"q": "?"}, {"d": "t"}, [{"score": 1}]),
    "an id that is true": lambda: make_collection({True: "?"}, {"d": "t"}, {True: ["d"]}),
    "an id of NaN": lambda: make_collection({"q": "?"}, {"d": "t"}, {"q": [float("nan")]}),
    "an id of 1.5": lambda: make_collection({"q": "?"}, {"d": "t"}, {"q": [1.5]}),
    "no query": lambda: make_collection({"q": None}, {"d": "t"}, {"q": ["d"]}),
    "an unknown document": lambda: make_collection({"q": "?"}, {"d": "t"}, {"q": ["x"]}),
    "an unknown query": lambda: make_collection({"q": "?"}, {"d": "t"}, {"x": ["d"]}),
    "documents without ids": lambda: make_collection({"q": "?"}, ["t"], {"q": ["d"]}),
    "a Collection with NaN": lambda: Collection("c", {"q": "?"}, {"d": "t"}, {"q": {"d": float("nan")}}),
    "a Collection without its document": lambda: Collection("c", {"q": "?"}, {}, {"q": {"d": 1.0}}),
    "a Collection without its query": lambda: Collection("c", {}, {"d": "t"}, {"q": {"d": 1.0}}),
    "a dict as source": lambda: rerank_run({"q": "?"}),
    "dicts as files": lambda: rerank_run(queries={"q": "?"}, corpus={"d": "t"}, run={"q": ["d"]}),
    "a grade of 0.5": lambda: judged({"q": {"d": 0.5}}),
    "a grade of NaN": lambda: judged({"q": {"d": float("nan")}}),
    "a grade that is a word": lambda: judged({"q": {"d": "high"}}),
    "a grade beyond C": lambda: judged({"q": {"d": 2**70}}),
    "judgements as a list": lambda: judged({"q": ["d"]}),
    "judgements that are a number": lambda: judged(7),
    "no judgements": lambda: judged({}),
    "a scored run with NaN": lambda: judged({"q": {"d": 1}}, scored={"q": {"d": float("nan")}}),
    "a baseline with NaN": lambda: judged({"q": {"d": 1}}, baselines={"b": {"q": {"d": float("nan")}}}),
    "a tie rule": lambda: judged({"q": {"d": 1}}, ties="id"),
}


def judged(qrels, *, scored=None, **options):
    collection = make_collection({"q": "?"}, {"d": "t"}, {"q": ["d"]})
    return evaluate(collection, qrels=qrels, scored=scored or {"q": {"d": 1.0}}, **options)


@pytest.mark.parametrize("name", BAD_VALUES)
def test_bad_values_from_python_are_one_line(name):
    with pytest.raises((InvalidInput, UsageError)) as caught:
        BAD_VALUES[name]()
    text = one_line(caught.value)
    if name.startswith(("a score", "a grade", "no score", "a scored", "a baseline", "a document")):
        assert "'q'" in text and ("'d'" in text or "'1'" in text)


def test_the_remedy_of_a_bad_line_works_for_every_run(tmp_path, cli):
    """`--skip-bad` is named for a run that was scored before, and for a baseline, and does what it says."""
    for name, text in {
        "queries.jsonl": '{"_id": "1", "text": "rain"}\n',
        "corpus.jsonl": '{"_id": "a", "text": "Rain"}\n{"_id": "b", "text": "Snow"}\n',
        "run.trec": "1 Q0 a 1 2 t\n1 Q0 b 2 1 t\n",
        "bad.trec": "1 Q0 a 1 nan t\n1 Q0 b 2 1 t\n",
        "qrels.tsv": "1 0 a 1\n",
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    run, bad = tmp_path / "run.trec", tmp_path / "bad.trec"
    for named in (["--scored", bad], ["--scored", run, "--baseline", f"x={bad}"]):
        code, _, err = cli("eval", tmp_path, *named)
        assert code == 1 and "--skip-bad" in err
        assert not cli("eval", tmp_path, *named, "--skip-bad")[0]


def test_documents_in_two_lists_are_refused_by_name(tmp_path, cli):
    path = tmp_path / "c.json"
    text = (
        '[{"query": "rain", "hits": [{"docid": "a", "text": "Rain"}], "candidates": [{"docid": "b", "text": "Snow"}]}]'
    )
    path.write_text(text, encoding="utf-8")
    code, _, err = cli("batch", path, "--no-journal")
    assert code == 1 and "has documents in 'hits' and in 'candidates'" in err


def test_a_set_of_ids_is_no_order():
    with pytest.raises(InvalidInput, match="is a set, which has no order"):
        make_collection({"1": "rain"}, {"a": "Rain", "b": "Snow"}, {"1": {"a", "b"}})


def test_two_columns_of_one_name_in_a_frame_are_refused():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([["1", "a", 2.0, 1.0]], columns=["query_id", "doc_id", "score", "score"])
    with pytest.raises(InvalidInput, match="two columns of the name 'score'"):
        make_collection({"1": "rain"}, {"a": "Rain"}, frame)
