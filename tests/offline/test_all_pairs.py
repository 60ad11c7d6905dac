"""`batch --queries FILE DOCS`: without a run every document is ranked for every query."""

import json

import pytest

from dearlite import rerank_run
from dearlite.offline.collection.source import Source

DOCS = ["Edison's light bulb of 1879 gave light.", "Cats sleep all day.", "A lamp needs a bulb."]


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path / "home"))
    (tmp_path / "q.tsv").write_text("1\twho made the light bulb?\n2\twhat do cats do?\n")
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps({"id": f"d{n}", "text": DOCS[n]}) + "\n" for n in range(3)))
    (tmp_path / "lines.txt").write_text("\n".join(DOCS) + "\n")
    (tmp_path / "qrels.txt").write_text("1 0 d0 1\n2 0 d1 1\n")


def test_every_document_is_ranked_for_every_query(cli, tmp_path):
    code, _, err = cli("batch", "--queries", "q.tsv", "docs.jsonl", "-o", "out.trec", "--jsonl", "rows.jsonl")
    assert code == 0 and "2 queries, 6 pairs" in err, err
    lines = [line.split() for line in (tmp_path / "out.trec").read_text().splitlines()]
    assert [(line[0], line[2]) for line in lines if line[3] == "1"] == [("1", "d0"), ("2", "d1")]
    assert sorted(line[2] for line in lines if line[0] == "2") == ["d0", "d1", "d2"]
    row = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])
    assert [stage["name"] for stage in row["stages"]] == ["minilm-l12"]  # there is no first stage to be shown
    code, _, err = cli("batch", "--queries", "q.tsv", "docs.jsonl", "-o", "out.trec")
    assert code == 0 and "resuming: 6 of 6 pairs are already scored" in err


def test_more_than_the_default_depth(tmp_path):
    (tmp_path / "many.txt").write_text("".join(f"line {n}\n" for n in range(150)))
    collection = Source(queries="q.tsv", corpus=["many.txt"]).open()
    assert [len(scores) for scores in collection.run.values()] == [150, 150] and not collection.first_stage


def test_files_of_lines_are_named_by_their_positions(cli, tmp_path):
    (tmp_path / "more.txt").write_text("Another lamp.\n")
    code, out, err = cli("batch", "--queries", "q.tsv", "lines.txt", "more.txt", "--no-journal", "--quiet")
    assert code == 0 and sorted(line.split()[2] for line in out.splitlines()[:4]) == ["0", "1", "2", "3"], err


def test_eval_measures_it_without_a_first_stage(cli):
    code, out, err = cli(
        *("eval", "--queries", "q.tsv", "--qrels", "qrels.txt", "docs.jsonl", "--measures", "RR", "--json", "-"),
    )
    written = json.loads(out)
    assert code == 0 and [system["name"] for system in written["systems"]] == ["minilm-l12"], err
    assert written["systems"][0]["values"] == {"RR": 1.0} and written["comparisons"] == []


def test_the_same_from_python():
    reranked = rerank_run(queries="q.tsv", corpus="docs.jsonl", journal=False)
    assert [next(iter(scores)) for scores in reranked.run.values()] == ["d0", "d1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--queries", "q.tsv", "nowhere.txt"], "no such file: nowhere.txt (documents)"),
        (["--queries", "nowhere.tsv", "docs.jsonl"], "no such file: nowhere.tsv (queries)"),
        (["--queries", "q.tsv", "docs.jsonl", "docs.jsonl"], "docs.jsonl:1: id 'd0' is already at docs.jsonl:1"),
        (["--queries", "q.tsv", "docs.jsonl", "--depth", "2"], "--depth 2 takes the best documents of a run"),
        (["docs.jsonl", "lines.txt"], "2 sources are given, and one collection is reranked"),
        (["--queries", "q.tsv", "docs.jsonl", "--jsonl", "docs.jsonl"], "would overwrite the input"),
    ],
)
def test_wrong_calls_are_one_line(cli, arguments, message):
    code, _, err = cli("batch", *arguments)
    assert code in (1, 2) and message in err and len(err.strip().splitlines()) == 1, err
