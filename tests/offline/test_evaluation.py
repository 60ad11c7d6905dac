"""Runs beside each other: the table and its files, differences by query, and what the command refuses."""

import csv
import io
import json

import noveleval
import pytest

from dearlite import evaluate
from dearlite.errors import InvalidInput, UsageError
from dearlite.offline.collection.collection import make_collection
from dearlite.offline.evaluation.evaluation import System, compare
from dearlite.render.evaluation import evaluation_csv, evaluation_html, evaluation_latex, per_query_csv

pytest.importorskip("ir_measures", reason="the extra dearlite[eval] is not installed")

QRELS = {"q1": {"a": 2, "b": 0, "c": 1}, "q2": {"a": 1, "d": 0}, "q3": {"e": 1}}
WORSE = {"q1": {"b": 3.0, "c": 2.0, "a": 1.0}, "q2": {"d": 2.0, "a": 1.0}, "q3": {"x": 2.0, "e": 1.0}}
BETTER = {"q1": {"a": 3.0, "c": 2.0, "b": 1.0}, "q2": {"a": 2.0, "d": 1.0}, "q3": {"x": 2.0, "e": 1.0}}


@pytest.fixture
def made():
    systems = [
        System("first stage", "first stage", WORSE),
        System("ours", "reranked", BETTER, seconds_per_query=0.5, tokens_per_second=1000.0),
        System("theirs 50% & more", "published", None, seconds_per_query=2.0, published={"nDCG@10": 0.5}),
    ]
    return compare(systems, QRELS, name="three", measures=["nDCG@10", "RR"], notes=["a note"])


@pytest.fixture
def scored(tmp_path):
    """NovelEval's second run, as if it were a reranked one, without a model."""
    path = tmp_path / "scored.trec"
    lines = [line.split() for line in (noveleval.DATA / "run_bm25.trec").read_text().splitlines()]
    path.write_text("".join(f"{q} Q0 {d} {21 - int(rank)} {rank} reversed\n" for q, _, d, rank, *_ in lines))
    return path


def test_means_and_differences_by_hand(made):
    assert made.subject == "ours" and made.main_measure == "nDCG@10"
    assert made.values["ours"]["RR"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert made.values["first stage"]["RR"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 2) / 3)
    assert made.deltas("first stage", "RR") == {"q1": 0.5, "q2": 0.5, "q3": 0.0}
    comparison = made.comparison("first stage", "RR")
    assert (comparison.wins, comparison.ties, comparison.losses) == (2, 1, 0) and comparison.delta == pytest.approx(
        1 / 3
    )
    assert (
        comparison.p == comparison.p_holm == pytest.approx(0.5)
    )  # two of the four sign patterns of (0.5, 0.5) are as far from zero
    assert made.comparison("theirs 50% & more", "RR") is None
    assert made.values["theirs 50% & more"] == {"nDCG@10": 0.5}


def test_a_query_that_the_run_lacks_counts_as_zero_and_is_said():
    run = {"q1": BETTER["q1"], "zz": {"a": 1.0}}
    evaluation = compare([System("ours", "reranked", run)], QRELS, name="x", measures=["RR"])
    assert evaluation.values["ours"]["RR"] == pytest.approx(1 / 3)
    assert "all runs: 2 of 3 judged queries have no documents ('q2', 'q3'): they count as zero" in evaluation.notes
    assert "all runs: 1 query has no judgements ('zz'): left out" in evaluation.notes


def test_grades_below_zero_are_not_relevant_and_are_said():
    evaluation = compare([System("ours", "reranked", {"q": {"a": 2.0, "b": 1.0}})], {"q": {"a": -2, "b": 1}}, name="x")
    assert evaluation.values["ours"]["RR@10"] == pytest.approx(0.5)
    assert "1 grade is negative: not relevant, and not judged (trec_eval)" in evaluation.notes


def test_a_repr_shows_no_escape_codes_of_names():
    names = ["\x1b[1mbm25", "\u202eours"]
    evaluation = compare([System(name, "baseline", {"q": {"a": 1.0}}) for name in names], {"q": {"a": 1}}, name="x")
    assert repr(evaluation).isprintable()
    assert "\\x1b[1mbm25" in repr(evaluation) and "\\u202eours" in repr(evaluation)


def test_equal_scores_stand_by_rank_or_by_id():
    run, qrels = {"q": {"a": 1.0, "b": 1.0}}, {"q": {"a": 1, "b": 0}}
    by_rank = compare([System("ours", "reranked", run)], qrels, name="x", measures=["RR"])
    by_id = compare([System("ours", "reranked", run)], qrels, name="x", measures=["RR"], ties="trec_eval")
    assert (by_rank.values["ours"]["RR"], by_id.values["ours"]["RR"]) == (1.0, 0.5)
    assert any("document shares a score" in note for note in by_rank.notes) and not by_id.notes


def test_two_systems_of_one_name_and_no_judgements():
    with pytest.raises(UsageError, match="two systems are called 'x'"):
        compare([System("x", "baseline", BETTER), System("x", "baseline", WORSE)], QRELS, name="n")
    with pytest.raises(InvalidInput, match="no judgements"):
        compare([System("x", "baseline", BETTER)], {}, name="n")


def test_the_files(made):
    rows = list(csv.DictReader(io.StringIO(evaluation_csv(made))))
    assert [row["system"] for row in rows] == ["first stage", "ours", "theirs 50% & more"]
    assert float(rows[1]["RR"]) == pytest.approx(made.values["ours"]["RR"], abs=1e-6) and rows[2]["RR"] == ""
    per_query = list(csv.DictReader(io.StringIO(per_query_csv(made))))
    assert [row["query_id"] for row in per_query] == ["q1", "q2", "q3"] and per_query[2]["ours RR"] == "0.500000"
    latex = evaluation_latex(made)
    assert r"theirs 50\% \& more & 50.00 & -- \\" in latex and r"\textbf{83.33}" in latex
    assert json.loads(json.dumps(made.to_dict()))["deltas"]["first stage"]["RR"]["q1"] == 0.5
    assert "<script" not in evaluation_html(made) and "theirs 50% &amp; more" in evaluation_html(made)


def test_counts_are_no_percentages_in_latex():
    evaluation = compare([System("ours", "reranked", BETTER)], QRELS, name="x", measures=["NumRet", "RR"])
    assert r"\textbf{7} & \textbf{83.33}" in evaluation_latex(evaluation)


def test_a_frame_for_a_notebook(made):
    pytest.importorskip("pandas")
    frame = made.to_pandas()
    assert frame.groupby(["system", "measure"])["value"].mean()["ours", "RR"] == pytest.approx(2.5 / 3)


def test_evaluate_takes_what_is_in_memory():
    collection = make_collection(dict.fromkeys(QRELS, "text"), {letter: letter for letter in "abcdex"}, WORSE)
    evaluation = evaluate(collection, qrels=QRELS, scored=BETTER, baselines={"other": WORSE}, seconds={"other": 1.5})
    assert evaluation.subject == "scored" and evaluation.system("other").seconds_per_query == 1.5
    with pytest.raises(UsageError, match="seconds for 'nobody', which is not a baseline"):
        evaluate(collection, qrels=QRELS, scored=BETTER, seconds={"nobody": 1.0})
    with pytest.raises(UsageError, match="no judgements for collection"):
        evaluate(collection, scored=BETTER)


def test_the_command_measures_a_model(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path))
    code, out, err = cli("eval", noveleval.DATA, "--run", "run_bm25.trec", "--depth", 3, "--json", "-")
    assert code == 0, err
    written = json.loads(out)
    first, ours = written["systems"]
    assert written["subject"] == "minilm-l12" and ours["seconds_per_query"] > 0 and ours["tokens_per_second"] > 0
    assert len(ours["facts"]["sha256"]) == 64 and written["facts"]["sha256"] == ours["facts"]["sha256"]
    assert set(first["values"]) == {"nDCG@1", "nDCG@5", "nDCG@10", "RR@10", "AP", "R@10", "R@100"}
    assert 0 < first["values"]["nDCG@10"] < ours["values"]["nDCG@10"] < 1
    assert len(written["deltas"]["first stage"]["nDCG@10"]) == 21
    assert written["command"].startswith("dearlite eval ")
    assert list((tmp_path / "journals").iterdir())  # and so the second time needs no model's time
    code, out, err = cli("eval", noveleval.DATA, "--run", "run_bm25.trec", "--depth", 3)
    assert code == 0 and "resuming: 63 of 63 pairs are already scored" in err
    assert "minilm-l12" in out and "nDCG@10 of minilm-l12 against first stage: +" in out


def test_the_command_measures_runs_alone(cli, scored, tmp_path):
    endings = {"json": "json", "csv": "csv", "latex": "tex", "per-query": "per-query.csv", "report": "html"}
    files = {name: tmp_path / f"out.{ending}" for name, ending in endings.items()}
    options = [part for name, path in files.items() for part in (f"--{name}", path)]
    base = noveleval.DATA / "run_bm25.trec"
    arguments = ["eval", noveleval.DATA, "--run", base, "--scored", scored, "--baseline", f"again={base}@2.5"]
    code, out, _ = cli(*arguments, *options, "--measures", "nDCG@10", "--measures", "RR(rel=2)@10")
    assert code == 0 and "again" in out
    assert all(path.stat().st_size > 100 for path in files.values())
    written = json.loads(files["json"].read_text())
    assert [system["name"] for system in written["systems"]] == ["first stage", "scored.trec", "again"]
    assert written["systems"][2]["seconds_per_query"] == 2.5
    assert written["measures"] == ["nDCG@10", "RR(rel=2)@10"]
    assert written["systems"][0]["values"] == written["systems"][2]["values"]
    assert {entry["p_holm"] >= entry["p"] for entry in written["comparisons"]} == {True}


def test_the_command_with_seconds_in_a_file_name(cli, scored, tmp_path):
    odd = tmp_path / "a=b@3.trec"
    odd.write_bytes(scored.read_bytes())
    base = noveleval.DATA / "run_bm25.trec"
    code, out, _ = cli("eval", noveleval.DATA, "--run", base, "--scored", scored, "--baseline", odd, "--json", "-")
    system = json.loads(out)["systems"][2]
    assert code == 0 and system["name"] == "a=b@3.trec" and system["seconds_per_query"] is None


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--measures", "nDCGG@10"], 2, "nDCGG@10"),
        (["--baseline", "nowhere.trec"], 2, "--baseline nowhere.trec: no such file nowhere.trec"),
        (["--baseline", "nowhere.trec@fast"], 2, "'fast' is no number of seconds"),
        (["--baseline", "A=RUN", "--baseline", "A=RUN"], 2, "two baselines have one name"),
        (["--qrels", "nowhere.tsv"], 2, "nowhere.tsv"),
        (["--report", "nowhere/out.html"], 2, "the folder nowhere does not exist"),
        (["--scored", "nowhere.trec"], 2, "nowhere.trec"),
        (["--suite", "deer"], 2, "no suite 'deer' (nearest: dear)"),
    ],
)
def test_wrong_options_are_one_line(cli, scored, options, code, message):
    base = noveleval.DATA / "run_bm25.trec"
    options = [option.replace("RUN", str(base)) for option in options]
    extra = [] if {"--scored", "--suite"} & set(options) else ["--scored", scored]
    exit_code, _, err = cli("eval", noveleval.DATA, "--run", base, *extra, *options)
    assert exit_code == code and message in err and len(err.strip().splitlines()) == 1, err


def test_a_collection_without_judgements(cli, scored, tmp_path):
    for name in ("queries.jsonl", "corpus.jsonl.gz"):
        (tmp_path / name).write_bytes((noveleval.DATA / name).read_bytes())
    code, _, err = cli("eval", tmp_path, "--run", noveleval.DATA / "run_bm25.trec", "--scored", scored)
    assert code == 2 and "no judgements" in err and "--qrels" in err
