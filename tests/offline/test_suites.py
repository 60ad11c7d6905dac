"""Published evaluations: figures of the paper, folders found or reported as missing, strict keys of suites.toml."""

import json
import re
import shutil
from importlib import resources
from pathlib import Path

import noveleval
import pytest

from dearlite import Reranker
from dearlite.errors import UsageError
from dearlite.offline.evaluation.suites import find_suite, load_suites

TEXT = resources.files("dearlite.offline.evaluation").joinpath("suites.toml").read_text(encoding="utf-8")
REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "dear.md"
# arXiv 2508.16998: the tables of TREC DL, of BEIR, and of NovelEval, in percent.
BM25 = {"TREC DL 2019": 50.58, "TREC DL 2020": 47.96, "BEIR TREC-COVID": 59.47, "BEIR NFCorpus": 30.75} | {
    "BEIR Touché-2020": 44.22, "BEIR DBPedia": 31.80, "BEIR SciFact": 67.89, "BEIR TREC-NEWS": 39.52,
    "BEIR Robust04": 40.70, "BEIR Signal-1M": 33.05, "NovelEval": 55.77,
}  # fmt: skip
DEAR = {"TREC DL 2019": 77.91, "TREC DL 2020": 75.63, "BEIR TREC-COVID": 88.36, "BEIR NFCorpus": 40.56} | {
    "BEIR Touché-2020": 37.23, "BEIR DBPedia": 47.12, "BEIR SciFact": 74.95, "BEIR TREC-NEWS": 52.89,
    "BEIR Robust04": 62.18, "BEIR Signal-1M": 34.40, "NovelEval": 92.01,
}  # fmt: skip


@pytest.fixture
def root(tmp_path):
    shutil.copytree(noveleval.DATA, tmp_path / "noveleval")
    return tmp_path


def test_the_figures_are_the_papers():
    suite = {collection.title: collection for collection in find_suite("dear").collections}
    assert len(suite) == 12 and set(suite) == {*BM25, "Natural Questions, top-1"}
    for title, value in BM25.items():
        assert suite[title].published["BM25"]["nDCG@10"] == value
        assert suite[title].published["DeAR-L-8B"]["nDCG@10"] == DEAR[title]
    assert suite["NovelEval"].published["DeAR-L-8B"] == {"nDCG@1": 92.86, "nDCG@5": 88.04, "nDCG@10": 92.01}
    assert suite["Natural Questions, top-1"].published["DeAR-L-8B"] == {"Success@1": 54.29}


@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference tables are not on this machine")
def test_every_figure_stands_in_the_reference():
    reference = REFERENCE.read_text(encoding="utf-8")
    known = {float(text) for text in re.findall(r"\d+\.\d+", reference)}
    for collection in find_suite("dear").collections:
        for values in (*collection.published.values(), *collection.timed.values()):
            assert set(values.values()) <= known, collection.title


def test_a_folder_is_found_and_missing_parts_are_reported(root):
    novel_eval = next(entry for entry in find_suite("dear").collections if entry.title == "NovelEval")
    assert novel_eval.folder(root) == root / "noveleval"
    (root / "noveleval" / "run_bm25.trec").unlink()
    assert novel_eval.folder(root) is None
    assert novel_eval.how_to_get(root) == f"{root / 'noveleval'} lacks run (run_bm25.trec)"
    shutil.rmtree(root / "noveleval")
    assert "RankGPT" in novel_eval.how_to_get(root)
    served = next(entry for entry in find_suite("dear").collections if entry.ir_datasets)
    assert served.how_to_get(root).startswith(f"python examples/from_ir_datasets.py {served.ir_datasets} ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('title = "NovelEval"', 'titel = "NovelEval"'), "unknown or missing: titel, title"),
        (lambda text: text.replace('ir_datasets = "beir/trec-covid"', 'ir_datasets = ""'), "both empty"),
        (lambda text: text.replace("[dear]\n", "[dear]\nextra = 1\n"), "suite dear: its keys are"),
    ],
)
def test_a_wrong_file_is_refused(change, message):
    assert change(TEXT) != TEXT
    with pytest.raises(ValueError, match=message):
        load_suites(change(TEXT))


def test_a_name_that_is_none():
    with pytest.raises(UsageError, match=r"no suite 'deer' \(nearest: dear\)"):
        find_suite("deer")


def test_the_command_prints_ours_beside_the_published(root, cli, monkeypatch, tmp_path, tiny_bundle):
    pytest.importorskip("ir_measures")
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path / "home"))
    code, out, err = cli("eval", "--suite", "dear", root, "-m", tiny_bundle)
    assert code == 0, err
    summary = next(line for line in out.splitlines() if line.strip().startswith("NovelEval ") and "nDCG@10" in line)
    assert "55.77" in summary and "90.45" in summary and "92.01" in summary  # first stage, RankGPT-4, DeAR-L-8B
    scores = Reranker.load(tiny_bundle).score([(query, text) for _, _, query, text in noveleval.pairs()])
    ours = float(re.findall(r"\d+\.\d+", summary)[1])
    assert ours == pytest.approx(100 * noveleval.ndcg10(scores), abs=0.01)
    for line in ("TREC DL 2019 is not here: python examples/from_ir_datasets.py", "BEIR Signal-1M is not here"):
        assert line in err
    code, out, _ = cli("eval", "--suite", "dear", root, "-m", tiny_bundle, "--json", "-")
    written = json.loads(out)
    assert code == 0 and len(written["missing"]) == 11 and written["collections"][0]["subject"] == "tiny"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "dear"], "--suite dear needs the folder that holds its collections' folders (dl19, dl20"),
        (["--suite", "dear", "EMPTY"], "holds none of the 12 collections of dear"),
        (["--suite", "dear", "EMPTY", "--report", "x.html"], "--report is for one collection"),
        (["--suite", "dear", "EMPTY", "--run", "x.trec"], "--run is for one collection"),
    ],
)
def test_wrong_use_is_told(arguments, message, cli, tmp_path):
    pytest.importorskip("ir_measures")
    (tmp_path / "empty").mkdir()
    code, _, err = cli(
        "eval", *(str(tmp_path / "empty") if argument == "EMPTY" else argument for argument in arguments)
    )
    assert code == 2 and message in err
