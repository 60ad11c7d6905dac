"""Existing runs measured by their judgements alone: `eval --qrels FILE RUN...` and `dearlite.compare`."""

import csv
import io
import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import noveleval
import pytest

from dearlite import compare, evaluate
from dearlite.errors import UsageError

pytest.importorskip("ir_measures", reason="the extra dearlite[eval] is not installed")

QRELS = {"q1": {"a": 2, "b": 0, "c": 1}, "q2": {"a": 1, "d": 0}, "q3": {"e": 1}}
WORSE = {"q1": {"b": 3.0, "c": 2.0, "a": 1.0}, "q2": {"d": 2.0, "a": 1.0}, "q3": {"x": 2.0, "e": 1.0}}
BETTER = {"q1": {"a": 3.0, "c": 2.0, "b": 1.0}, "q2": {"a": 2.0, "d": 1.0}, "q3": {"x": 2.0, "e": 1.0}}
JUDGEMENTS, BM25 = noveleval.DATA / "qrels.tsv", noveleval.DATA / noveleval.RUN
MEASURES = ["nDCG@10", "AP", "RR@10", "R@10", "P(rel=2)@5"]


@pytest.fixture
def reversed_run(tmp_path):
    """NovelEval's run from the last document to the first."""
    path = tmp_path / "reversed.trec"
    lines = [line.split() for line in BM25.read_text().splitlines()]
    path.write_text("".join(f"{q} Q0 {d} {21 - int(rank)} {rank} reversed\n" for q, _, d, rank, *_ in lines))
    return path


def test_the_figures_of_two_runs_are_those_of_ir_measures_own_command(cli, reversed_run, tmp_path):
    code, out, err = cli("eval", "--qrels", JUDGEMENTS, BM25, reversed_run, "--measures", *MEASURES[:1], "--json", "-")
    assert code == 0, err
    code, out, _ = cli(
        *("eval", "--qrels", JUDGEMENTS, BM25, reversed_run, "--json", "-"),
        *(part for name in MEASURES for part in ("--measures", name)),
    )
    written = json.loads(out)
    assert written["measures"] == MEASURES and written["subject"] == "reversed.trec" and written["queries"] == 21
    for system, path in zip(written["systems"], (BM25, reversed_run), strict=True):
        command = [sys.executable, "-m", "ir_measures", str(JUDGEMENTS), str(path), " ".join(MEASURES), "-p", "6"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        theirs = {name: float(value) for name, value in map(str.split, printed.splitlines())}
        assert system["values"] == pytest.approx(theirs, abs=1e-6)


def test_neither_a_model_nor_a_text_is_read(reversed_run):
    """The command runs where ONNX Runtime and tokenizers cannot be imported, in a folder without a collection."""
    program = (
        "import sys; sys.modules['onnxruntime'] = sys.modules['tokenizers'] = None\n"
        f"from dearlite.cli.main import run; run(['eval', '--qrels', {str(JUDGEMENTS)!r}, {str(reversed_run)!r}])"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=reversed_run.parent)
    assert done.returncode == 0 and "reversed.trec" in done.stdout and "nDCG@10" in done.stdout, done.stderr


def test_a_folder_gives_the_judgements_and_the_queries(cli, reversed_run, tmp_path):
    report = tmp_path / "report.html"
    code, out, err = cli("eval", noveleval.DATA, f"bm25={BM25}", f"mine={reversed_run}@0.5", "--report", report)
    assert code == 0, err
    assert "bm25" in out and "0.500" in out and "against bm25" in out and "first stage" not in out
    assert "Documents have their ids alone" in report.read_text()
    assert "What medical conditions" in report.read_text() or noveleval.pairs()[0][2][:20] in report.read_text()


def test_baselines_of_another_type_are_refused_in_words():
    with pytest.raises(UsageError, match=r"^baselines is a list: give a mapping of names to runs$"):
        evaluate(qrels={"q": {"a": 1}}, baselines=[{"q": {"a": 1.0}}], scored={"q": {"a": 1.0}})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN", "OTHER"], "2 runs are given without judgements: name them with --qrels"),
        (["RUN"], "is a run, given without judgements: name them with --qrels"),
        (["--qrels", "QRELS"], "nothing to measure: give the files of runs beside --qrels"),
        (["--qrels", "QRELS", "RUN", "-m", "minilm-l12"], "--model is for a reranking, and runs are only measured"),
        (["--qrels", "QRELS", "RUN", "--depth", "5"], "--depth is for a reranking"),
        (["--qrels", "QRELS", "RUN", "-o", "x.trec"], "--output is for a reranking"),
        (["--qrels", "QRELS", "a=RUN", "a=OTHER"], "two runs are called"),
        (["--qrels", "QRELS", "RUN", "nowhere.trec"], "nowhere.trec: no such file"),
        (["--qrels", "QRELS", "RUN", "--confidence", "95"], "confidence is 95.0: it is a share between 0 and 1"),
        (["--qrels", "QRELS", "RUN", "--seed", "-1"], "seed is -1: it must be a whole number from 0"),
        (["--qrels", "QRELS", "RUN", "--plot", "x.pdf"], "no format of this output has the ending .pdf"),
        (["--qrels", "QRELS", "RUN", "--plot", "x.svg"], "a plot shows a run against others, and one run is measured"),
        (["--qrels", "QRELS", "RUN", "--report", "RUN"], "--report"),
    ],
)
def test_wrong_options_are_one_line(cli, reversed_run, monkeypatch, arguments, message):
    monkeypatch.chdir(reversed_run.parent)
    (reversed_run.parent / "other.html").write_bytes(reversed_run.read_bytes())
    names = {"RUN": "other.html" if "--report" in arguments else reversed_run.name, "OTHER": BM25, "QRELS": JUDGEMENTS}
    for name, value in names.items():
        arguments = [text.replace(name, str(value)) for text in arguments]
    code, _, err = cli("eval", *arguments)
    assert code in (1, 2) and message in err and len(err.strip().splitlines()) == 1, err


def test_a_run_in_json_is_a_run_and_candidates_are_reranked(cli, tmp_path):
    run, qrels = tmp_path / "run.json", tmp_path / "qrels.json"
    run.write_text(json.dumps(BETTER))
    qrels.write_text(json.dumps(QRELS))
    code, out, err = cli("eval", "--qrels", qrels, run, "--measures", "RR")
    assert code == 0 and "0.8333" in out, err
    candidates = tmp_path / "candidates.json"
    hits = [{"docid": "a", "content": "a bulb", "score": 2}, {"docid": "b", "content": "a cat", "score": 1}]
    candidates.write_text(json.dumps([{"query": {"qid": "q1", "text": "light bulb"}, "candidates": hits}]))
    code, out, err = cli("eval", "--qrels", qrels, candidates, "--measures", "RR", "--no-journal", "--quiet")
    assert code == 0 and "minilm-l12" in out and "first stage" in out, err


def test_all_pairs_with_a_t_test_and_intervals(cli, reversed_run):
    runs = [f"a={BM25}", f"b={reversed_run}", f"c={BM25}"]
    options = ["--all-pairs", "--test", "t", "--confidence", "0.9", "--seed", "7", "--measures", "nDCG@10"]
    code, out, _ = cli("eval", "--qrels", JUDGEMENTS, *runs, *options, "--json", "-")
    written = json.loads(out)
    assert code == 0 and (written["test"], written["confidence"], written["seed"]) == ("t", 0.9, 7)
    pairs = [(entry["subject"], entry["baseline"]) for entry in written["comparisons"]]
    assert pairs == [("c", "a"), ("c", "b"), ("b", "a")]
    same, lost = written["comparisons"][0], written["comparisons"][2]
    assert (same["p"], same["interval"]) == (1.0, [0.0, 0.0])
    assert lost["interval"][0] < lost["delta"] < lost["interval"][1] < 0
    low, high = written["systems"][0]["intervals"]["nDCG@10"]
    assert low < written["systems"][0]["values"]["nDCG@10"] < high
    code, out, _ = cli("eval", "--qrels", JUDGEMENTS, *runs, *options)
    assert "nDCG@10 of b against a: -" in out and "paired t-test" in out and "90% intervals" in out
    again = json.loads(cli("eval", "--qrels", JUDGEMENTS, *runs, *options, "--json", "-")[1])
    assert again["comparisons"] == written["comparisons"]


def test_long_form_and_intervals_in_csv(cli, reversed_run, tmp_path):
    files = [tmp_path / "long.csv", tmp_path / "table.csv"]
    cli(
        *("eval", "--qrels", JUDGEMENTS, f"a={BM25}", f"b={reversed_run}", "--measures", "RR AP"),
        *("--confidence", "0.95", "--per-query-long", files[0], "--csv", files[1]),
    )
    rows = list(csv.DictReader(io.StringIO(files[0].read_text())))
    assert list(rows[0]) == ["qid", "measure", "value", "run"] and len(rows) == 21 * 2 * 2
    table = {row["system"]: row for row in csv.DictReader(io.StringIO(files[1].read_text()))}
    of_a = [float(row["value"]) for row in rows if (row["run"], row["measure"]) == ("a", "AP")]
    assert sum(of_a) / 21 == pytest.approx(float(table["a"]["AP"]), abs=1e-5)
    assert float(table["b"]["RR low"]) < float(table["b"]["RR"]) < float(table["b"]["RR high"])


def test_the_plot_has_a_point_and_a_bar_for_each_query(cli, reversed_run, tmp_path):
    path = tmp_path / "plot.svg"
    code, _, err = cli("eval", "--qrels", JUDGEMENTS, f"<a & b>={BM25}", f"b={reversed_run}", "--plot", path)
    assert code == 0, err
    root = ET.fromstring(path.read_text())
    names = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert names.count("circle") == 21 and names.count("rect") == 21 + 1 and names.count("svg") == 3
    assert any("b against <a & b>" in (element.text or "") for element in root.iter())


def test_a_png_is_the_picture_of_the_svg(cli, reversed_run, tmp_path):
    pytest.importorskip("resvg_py", reason="the extra dearlite[plot] is not installed")
    path = tmp_path / "plot.png"
    code, _, err = cli("eval", "--qrels", JUDGEMENTS, BM25, reversed_run, "--plot", path)
    if code and "has none: install some" in err:
        pytest.skip("no fonts on this system")
    content = path.read_bytes()
    assert code == 0 and content.startswith(b"\x89PNG") and content[16:24] == (2240).to_bytes(4) + (912).to_bytes(4)


def test_a_png_without_its_extra_is_refused_before_the_work(cli, reversed_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    code, _, err = cli("eval", "--qrels", "nowhere.tsv", BM25, reversed_run, "--plot", "x.png")
    assert code == 1 and "resvg_py is needed here" in err and '[plot]"' in err


def test_dicts_frames_and_lists_from_python():
    evaluation = compare(QRELS, {"bm25": WORSE, "ours": BETTER}, measures="ndcg_cut_10 recip_rank")
    assert evaluation.subject == "ours" and evaluation.measures == ("nDCG@10", "RR")
    assert evaluation.values["bm25"]["RR"] == pytest.approx(0.5)
    pandas = pytest.importorskip("pandas")
    rows = [(q, d, s) for q, scores in BETTER.items() for d, s in scores.items()]
    grades = [(q, d, g) for q, of_query in QRELS.items() for d, g in of_query.items()]
    frame = compare(
        pandas.DataFrame(grades, columns=["query_id", "doc_id", "relevance"]),
        {"ours": pandas.DataFrame(rows, columns=["qid", "docno", "score"])},
        measures="RR",
    )
    assert frame.values["ours"]["RR"] == pytest.approx(evaluation.values["ours"]["RR"])


def test_files_of_one_name_are_told_apart_by_their_paths(reversed_run, tmp_path):
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / reversed_run.name
    twin.write_bytes(BM25.read_bytes())
    evaluation = compare(JUDGEMENTS, [reversed_run, twin], measures="AP")
    assert list(evaluation.values) == [str(reversed_run), str(twin)]
    with pytest.raises(UsageError, match="is given twice"):
        compare(JUDGEMENTS, [twin, twin])
    with pytest.raises(UsageError, match=r"runs is a str: give \{name: run\}, or a list of files"):
        compare(JUDGEMENTS, str(twin))
    with pytest.raises(UsageError, match="the subject 'x' is none of the runs: a"):
        compare(QRELS, {"a": BETTER}, subject="x")


def test_evaluate_needs_no_source_for_a_scored_run():
    evaluation = evaluate(qrels=QRELS, scored=BETTER, baselines={"bm25": WORSE}, seconds={"bm25": 0.5})
    assert evaluation.subject == "scored" and list(evaluation.values) == ["bm25", "scored"]
    with pytest.raises(UsageError, match="no judgements: name them"):
        evaluate(scored=BETTER)


def test_printing_gives_a_table_of_80_columns_with_whole_names():
    name = "a-rather-long-name-of-a-run-that-a-sweep-has-made.trec"
    evaluation = compare(QRELS, {"bm25": WORSE, name: BETTER}, confidence=0.95)
    text = str(evaluation)
    assert max(map(len, text.splitlines())) <= 80 and "†" in text
    cells = "".join(line[1:27].strip() for line in text.splitlines() if not line.startswith("nDCG@10 of"))
    assert name in cells
    assert all(measure in text for measure in evaluation.measures)
    assert text.count("bm25  ") == 2  # two parts, each with the names
    assert repr(evaluation) == f"<Evaluation of {name} over 3 queries: nDCG@10 0.8770; beside bm25>"
