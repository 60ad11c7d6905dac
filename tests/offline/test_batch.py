"""Reranking a run: the order, resumption after a kill, separate results per model and text, errors on one line."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import noveleval
import pytest
from older_files import WIDE_GRAPH
from posix_only import need_posix
from waiting import eventually

from dearlite import Reranker, rerank_run
from dearlite.errors import Cancelled, InvalidInput, UsageError
from dearlite.offline.collection.collection import Collection, make_collection, open_collection
from dearlite.offline.run.journal import Journal
from dearlite.pointwise.onnxruntime import CAPABILITIES
from dearlite.ranking import PairScore

FOLDER = noveleval.DATA
COMMAND = [sys.executable, "-m", "dearlite.cli.main", "batch"]


@pytest.fixture(scope="module")
def reranker(tiny_bundle):
    return Reranker.load(tiny_bundle)


@pytest.fixture
def small(tmp_path):
    """A folder with the first four queries of NovelEval, six documents each."""
    folder = tmp_path / "small"
    folder.mkdir()
    for name in ("queries.jsonl", "corpus.jsonl.gz", "qrels.tsv"):
        (folder / name).write_bytes((FOLDER / name).read_bytes())
    lines = (FOLDER / "run_bm25.trec").read_text().splitlines(keepends=True)
    lines_kept = [line for line in lines if line.split()[0] in ("0", "1", "2", "3") and int(line.split()[3]) <= 6]
    (folder / "run.trec").write_text("".join(lines_kept))
    return folder


class Counting(Reranker):
    """A model that scores a document by its length, and records the pairs that it scores."""

    model = "counting"
    device, quantisation, threads = "cpu", "none", 1

    def __init__(self, version="1"):
        self.scored_pairs, self.version = [], version

    def identity(self, listwise=None):
        return {"model": self.model, "sha256": self.version, "device": "cpu"}

    def rank(self, jobs, call):
        raise NotImplementedError

    def stream(self, pairs):
        for query, document in pairs:
            self.scored_pairs.append((query, document.text))
            yield PairScore(float(len(document.text)), 1, 1)


def test_the_order_is_that_of_rerank(small, reranker, tmp_path):
    reranked = rerank_run(small, model=reranker, output=tmp_path / "out.trec")
    texts = {row["_id"]: row for row in map(json.loads, gzip.open(small / "corpus.jsonl.gz", "rt", encoding="utf-8"))}
    queries = {row["_id"]: row["text"] for row in map(json.loads, (small / "queries.jsonl").open(encoding="utf-8"))}
    first = [line.split() for line in (small / "run.trec").read_text().splitlines()]
    written = [line.split() for line in (tmp_path / "out.trec").read_text().splitlines()]
    for query_id in "0123":
        ranking = reranker.rerank(queries[query_id], [texts[d] for q, _, d, *_ in first if q == query_id])
        assert [(hit.id, hit.rank) for hit in ranking] == [(d, int(r)) for q, _, d, r, *_ in written if q == query_id]
        assert list(reranked.run[query_id].values()) == [hit.score for hit in ranking]
    assert reranked.truncated == 0 and reranked.scored == 24


def test_rows_hold_texts_and_both_stages(small, reranker, tmp_path):
    rerank_run(small, model=reranker, jsonl=tmp_path / "rows.jsonl", journal=False)
    rows = list(map(json.loads, (tmp_path / "rows.jsonl").open(encoding="utf-8")))
    assert len(rows) == 24
    first = {
        (q, d): (int(rank), float(score)) for q, _, d, rank, score, _ in map(str.split, (small / "run.trec").open())
    }
    for row in rows:
        before, after = row["stages"]
        assert (before["rank"], before["score"]) == first[row["query_id"], row["id"]]
        assert after == {"name": "tiny", "rank": row["rank"], "score": row["score"]}
        assert row["query"] and row["text"] and row["tokens_used"] == row["tokens_total"]


def test_ten_kills_end_in_the_file_of_an_undisturbed_run(tmp_path, tiny_bundle):
    """A pair takes 10 ms more than it does, and the 41st of a process all time: none is done before its kill."""
    need_posix()
    code = (
        "import sys, time; from dearlite.cli.main import run; from dearlite.pointwise import reranker\n"
        "stream = reranker.PointwiseReranker.stream\n"
        "left = 40\n"
        "def slow(self, pairs):\n"
        "    global left\n"
        "    for score in stream(self, pairs):\n"
        "        time.sleep(0.01 if left > 0 else 3600)\n"
        "        left -= 1\n"
        "        yield score\n"
        "reranker.PointwiseReranker.stream = slow; run(sys.argv[1:])"
    )
    arguments = ["batch", str(FOLDER), "--run", "run_bm25.trec", "--depth", "20", "-m", str(tiny_bundle), "-o"]
    command = [sys.executable, "-c", code, *arguments]
    undisturbed, out = tmp_path / "undisturbed.trec", tmp_path / "out.trec"
    subprocess.run([*COMMAND, *arguments[1:], str(undisturbed)], check=True, capture_output=True)
    chance, journal = random.Random(11), Path(f"{out}.journal")
    for _ in range(10):
        before = journal.stat().st_size if journal.exists() else 0
        grown = chance.choice([0, 0, 1])  # killed while it starts or scores, or just when an entry was written
        process = subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if grown:
            eventually(lambda: journal.exists() and journal.stat().st_size > before, every_s=0.0005)  # noqa: B023
        else:
            time.sleep(chance.uniform(0.0, 1.5))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL  # it was at work still
        assert not out.exists()
    done = subprocess.run([*COMMAND, *arguments[1:], str(out)], check=True, capture_output=True, text=True)
    assert "dearlite: resuming: " in done.stderr and " of 420 pairs are already scored" in done.stderr
    assert out.read_bytes() == undisturbed.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.trec",
        "out.trec.journal",
        "undisturbed.trec",
        "undisturbed.trec.journal",
    ]


def test_nothing_is_scored_twice_and_nothing_is_mixed(small, tmp_path):
    out = tmp_path / "out.trec"
    first, again, other = Counting(), Counting(), Counting(version="2")
    assert rerank_run(small, model=first, output=out).scored == 24
    resumed = rerank_run(small, model=again, output=out)
    assert resumed.resumed == 24
    assert (resumed.seconds_now, resumed.seconds > 0) == (0, True)
    assert again.scored_pairs == []
    reranked = rerank_run(small, model=other, output=out)
    assert len(other.scored_pairs) == 24 and reranked.resumed == 0
    assert reranked.notes == (
        "out.trec.journal also holds 4 results of another sha256 (1, here 2): not used, and their queries were scored "
        "again; to resume them, run with what they were made with",
    )
    shallow = rerank_run(small, model=again, output=out, depth=3)
    assert shallow.scored == 12  # other documents of a query are other work


def test_a_journal_without_identities_is_foreign_in_one_line(small, tmp_path):
    """Journals of earlier versions name no settings; their results are not used either."""
    out = tmp_path / "out.trec"
    with Journal(tmp_path / "out.trec.journal") as journal:
        journal.add({"key": "00" * 16, "seconds": 1.0, "scores": [1], "tokens_used": [1], "tokens_total": [1]})
    reranked = rerank_run(small, model=Counting(), output=out)
    assert reranked.notes == ("out.trec.journal also holds 1 results of another model, option or text: not used",)
    deeper = rerank_run(small, model=Counting(), output=out, depth=3)
    assert deeper.notes == ("out.trec.journal also holds 5 results of another query, text or depth: not used",)


@pytest.mark.parametrize(
    ("fault", "change"),
    [
        (("dearlite.pointwise.engine.processor_class", lambda: "arm64 SVE"), "processor ("),
        (("dearlite.pointwise.engine.onnxruntime", lambda: SimpleNamespace(__version__="0.0")), "onnxruntime ("),
    ],
)
def test_results_of_another_machine_or_onnxruntime_are_not_mixed(
    small, tiny_bundle, tmp_path, monkeypatch, fault, change
):
    out, cache = tmp_path / "out.trec", tmp_path / "scores.sqlite"
    here = Reranker.load(tiny_bundle)
    assert rerank_run(small, model=here, output=out, cache=cache).scored == 24
    monkeypatch.setattr(*fault)
    elsewhere = rerank_run(small, model=here, output=out, cache=cache)
    assert (elsewhere.scored, elsewhere.resumed, elsewhere.cached) == (24, 0, 0)
    assert f"also holds 4 results of another {change}" in elsewhere.notes[0] and elsewhere.notes[0].count("(") == 1


def test_the_graph_is_in_the_identity(monkeypatch):
    """On a CPU whose u8 x s8 products saturate, an older file's first graph has other scores."""
    graphs = []
    for exact in (True, False):
        monkeypatch.setitem(CAPABILITIES, "u8s8-exact", lambda exact=exact: exact)
        graphs.append(Reranker.load(WIDE_GRAPH).identity()["graph"])
    assert graphs == ["cpu.onnx", "cpu-wide.onnx"]


def test_a_changed_text_is_scored_again(small, tmp_path):
    rerank_run(small, model=Counting(), output=tmp_path / "out.trec")
    rows = [json.loads(line) for line in gzip.open(small / "corpus.jsonl.gz", "rt", encoding="utf-8")]
    document_id = (small / "run.trec").read_text().split()[2]
    for row in rows:
        row["text"] += " more" if row["_id"] == document_id else ""
    with gzip.open(small / "corpus.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    assert rerank_run(small, model=Counting(), output=tmp_path / "out.trec").scored == 6  # its query, the others stay


def test_a_part_of_a_query_is_kept(small, tmp_path, monkeypatch):
    monkeypatch.setattr("dearlite.offline.run.scoring._SAVE_EVERY_S", 0.0)
    stop, half = Event(), Counting()

    def progress(done, total):
        if done == 9:
            stop.set()

    with pytest.raises(Cancelled, match="cancelled after 9 of 24"):
        rerank_run(small, model=half, output=tmp_path / "out.trec", progress=progress, cancel=stop)
    assert not (tmp_path / "out.trec").exists()
    rest = Counting()
    reranked = rerank_run(small, model=rest, output=tmp_path / "out.trec")
    assert (reranked.resumed, len(rest.scored_pairs)) == (9, 15)
    assert half.scored_pairs[:9] + rest.scored_pairs == all_pairs(small)


def all_pairs(folder):
    counting = Counting()
    rerank_run(folder, model=counting, journal=False)
    return counting.scored_pairs


def test_the_cache_serves_another_run_of_the_same_pairs(small, tmp_path):
    cache = tmp_path / "scores.sqlite"
    straight = rerank_run(small, model=Counting(), journal=False, cache=cache)
    again, other = Counting(), Counting(version="2")
    reranked = rerank_run(small, model=again, journal=False, cache=cache, depth=4)
    assert (reranked.cached, again.scored_pairs) == (16, [])
    assert all(straight.run[q][d] == score for q, scores in reranked.run.items() for d, score in scores.items())
    assert rerank_run(small, model=other, journal=False, cache=cache).cached == 0


def test_every_published_json_form_gives_the_same(small, tmp_path, reranker):
    collection = open_collection(small)
    expected = rerank_run(collection, model=reranker, journal=False).run
    rows = []
    for query_id, scores in collection.run.items():
        texts = [(d, score, collection.documents[d].text) for d, score in scores.items()]
        rows.append((query_id, collection.queries[query_id], texts))
    gpt = [
        {
            "query": q,
            "hits": [
                {"content": t, "qid": int(i), "docid": d, "rank": r, "score": s} for r, (d, s, t) in enumerate(h, 1)
            ],
        }
        for i, q, h in rows
    ]
    llm = [
        {
            "query": {"text": q, "qid": i},
            "candidates": [{"docid": d, "score": s, "doc": {"contents": t}} for d, s, t in h],
        }
        for i, q, h in rows
    ]
    (tmp_path / "gpt.json").write_text(json.dumps(gpt))
    (tmp_path / "llm.jsonl").write_text("".join(json.dumps(row) + "\n" for row in llm))
    for name in ("gpt.json", "llm.jsonl"):
        assert rerank_run(tmp_path / name, model=reranker, journal=False).run == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[{"hits": []}]', "item 1 is not a query with its documents"),
        ('[{"query": "q", "hits": [{"content": "t"}]}]', "item 1, document 1 has no docid"),
        ('[{"query": "q", "hits": [{"docid": 1}]}]', "item 1, document 1 has no text"),
        ('[{"query": "q", "hits": [{"docid": 1, "content": "t"}, {"docid": "1", "content": "t"}]}]', "comes twice"),
        ('[{"query": {"text": " ", "qid": 1}, "candidates": []}]', "the query is empty"),
        ("[]", "holds no queries"),
        ('{"query": "q"}', "c.json is not a query with its documents"),
        ('"q"', "it must be a list"),
    ],
)
def test_candidates_that_are_none(tmp_path, text, reason):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=reason):
        open_collection(path)


def test_ms_marco_tsv_and_shards_and_parquet(small, tmp_path):
    import pandas as pd

    expected = all_pairs(small)
    rows = [json.loads(line) for line in gzip.open(small / "corpus.jsonl.gz", "rt", encoding="utf-8")]
    queries = [json.loads(line) for line in (small / "queries.jsonl").open(encoding="utf-8")]
    (tmp_path / "queries.tsv").write_text("".join(f"{row['_id']}\t{row['text']}\r\n" for row in queries))
    flat = [(row["_id"], row["text"].replace("\n", " ").replace("\t", " ")) for row in rows]
    (tmp_path / "collection.tsv").write_text("".join(f"{name}\t{text}\n" for name, text in flat))
    (tmp_path / "shards").mkdir()
    for number in range(3):
        pd.DataFrame(rows[number::3]).to_parquet(tmp_path / "shards" / f"part-{number}.parquet")
    for corpus in ("collection.tsv", "shards"):
        counting = Counting()
        run = small / "run.trec"
        rerank_run(queries=tmp_path / "queries.tsv", corpus=tmp_path / corpus, run=run, model=counting, journal=False)
        assert [(q, len(t)) for q, t in counting.scored_pairs] == [(q, len(t)) for q, t in expected]


def test_numbers_as_ids_stay_apart(tmp_path):
    reranked = rerank_run(
        make_collection({"1": "q"}, {"7": "aa", "07": "a", "7.0": "aaa"}, {"1": ["07", "7", "7.0"]}),
        model=Counting(),
        journal=False,
    )
    assert list(reranked.run["1"]) == ["7.0", "7", "07"]
    (tmp_path / "q.jsonl").write_text('{"_id": 1, "text": "q"}\n')
    (tmp_path / "c.jsonl").write_text('{"_id": 7, "text": "aa"}\n{"_id": "07", "text": "a"}\n')
    (tmp_path / "r.trec").write_text("1 Q0 07 1 2 t\n1 Q0 7 2 1 t\n")
    files = {"queries": tmp_path / "q.jsonl", "corpus": tmp_path / "c.jsonl", "run": tmp_path / "r.trec"}
    assert list(rerank_run(**files, model=Counting(), journal=False).run["1"]) == ["7", "07"]


def edit(path, old, new):
    data = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    assert old in data
    data = data.replace(old, new)
    path.write_bytes(gzip.compress(data.encode()) if path.suffix == ".gz" else data.encode())


@pytest.mark.parametrize(
    ("break_it", "code", "message"),
    [
        (
            lambda f: edit(f / "run.trec", " 0-3 ", " 0-333 "),
            1,
            "run.trec names 1 documents ('0-333' of query '0' first)",
        ),
        (
            lambda f: edit(f / "run.trec", "1 Q0", "one Q0"),
            1,
            "run.trec has 1 query that queries.jsonl lacks ('one' ",
        ),
        (lambda f: edit(f / "run.trec", "bm25", ""), 1, "run.trec:1 has 5 columns instead of the 6"),
        (lambda f: edit(f / "corpus.jsonl.gz", '"_id": "0-16"', '"_id": "0-3"'), 1, "document '0-3' has two texts"),
        (lambda f: (f / "corpus.jsonl.gz").write_bytes((f / "corpus.jsonl.gz").read_bytes()[:9000]), 1, "damaged gzip"),
        (
            lambda f: (f / "run.trec").unlink(),
            2,
            "holds no run (run.trec or run.trec.gz): add it, name it with --run, or make it with --first bm25:100",
        ),
        (lambda f: (f / "run.trec").write_text(""), 1, "holds no run lines"),
    ],
)
def test_bad_files_are_one_line(small, cli, tmp_path, break_it, code, message):
    text = (small / "run.trec").read_text()
    tag = text.split()[5]
    (small / "run.trec").write_text(text.replace(tag, "bm25"))
    break_it(small)
    out = tmp_path / "out.trec"
    exit_code, _, stderr = cli("batch", small, "-o", out)
    assert exit_code == code
    assert message in stderr and stderr.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to rerank: give a collection's folder, or --queries, --corpus and --run"),
        (["nowhere"], "nowhere: no such folder or file"),
        (["{small}", "--run", "none.trec"], "--run none.trec: no such file, nor in "),
        (["{small}", "-m", "minilm"], "no model 'minilm' (nearest: minilm-l6, minilm-l4, minilm-l2, minilm-l12)"),
        (["{small}", "--depth", "0"], "depth is 0: it must be a whole number from 1"),
        (["{small}", "-o", "none/out.trec"], "the folder none does not exist; make it first"),
        (["{small}", "--journal", "j", "--no-journal"], "exclude each other"),
        (["{small}", "--mode", "first"], "is a pointwise model"),
        (["nowhere", "--batch-size", "0"], "--batch-size is 0: it must be a whole number from 1"),
        (["nowhere", "--long", "chunk", "--cache", "c"], "a cache holds scores of whole pairs"),
        (
            ["nowhere", "-m", "minilm-l12:5", "--cache", "c"],
            "is a cascade: a cache of scores goes with a pointwise model",
        ),
    ],
)
def test_wrong_calls_are_usage_errors(small, cli, arguments, message):
    code, _, stderr = cli("batch", *[argument.replace("{small}", str(small)) for argument in arguments])
    assert code == 2
    assert message in stderr and stderr.count("\n") == 1


def test_missing_documents_are_left_out_when_asked(small, cli, tmp_path, tiny_bundle):
    edit(small / "run.trec", " 0-3 ", " 0-333 ")
    code, _, stderr = cli("batch", small, "-o", tmp_path / "out.trec", "--skip-bad", "-m", tiny_bundle)
    assert code == 0
    assert "dearlite: left out 1 pairs of 1 documents ('0-333' of query '0' first) that have no text" in stderr
    assert len((tmp_path / "out.trec").read_text().splitlines()) == 23


def test_a_second_process_on_one_journal_refuses(small, cli, tmp_path, tiny_bundle):
    from dearlite.offline.run.journal import Journal

    out = tmp_path / "out.trec"
    with Journal(Path(f"{out}.journal")):
        code, _, stderr = cli("batch", small, "-o", out, "-m", tiny_bundle)
    assert code == 2
    assert "is being written by another dearlite: wait until that ends, or write to another -o" in stderr
    assert cli("batch", small, "-o", out, "-m", tiny_bundle)[0] == 0


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no limit of a file's size on this system")
def test_a_full_disk_keeps_what_was_scored(small, tmp_path, tiny_bundle):
    out, limit = tmp_path / "out.trec", 700
    code = (
        "import resource, signal, sys; from dearlite.cli.main import run\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); run(sys.argv[1:])"
    )
    arguments = ["batch", str(small), "-m", str(tiny_bundle), "-o", str(out)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pairs are kept: run the same command again" in done.stderr
    assert done.stderr.rstrip().endswith("its entries are complete; free space and run the same command again")
    assert "Traceback" not in done.stderr and not out.exists()
    again = subprocess.run([*COMMAND, *arguments[1:]], capture_output=True, text=True, check=True)
    assert "dearlite: resuming: " in again.stderr
    fresh = rerank_run(small, model=tiny_bundle, output=tmp_path / "fresh.trec")
    assert fresh.scored == 24
    assert out.read_bytes() == (tmp_path / "fresh.trec").read_bytes()


def test_a_cascade_keeps_its_models_scores_and_its_run_falls(small, cli, tmp_path):
    chain = ["batch", small, "-m", "minilm-l12:4", "-m", "minilm-l12:2", "-o", tmp_path / "a.trec"]
    assert cli(*chain, "--jsonl", tmp_path / "a.jsonl")[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    of_query = [row for row in rows if row["query_id"] == rows[0]["query_id"]]
    scores = [row["score"] for row in of_query]
    assert scores[:4] == sorted(scores[:4], reverse=True)
    assert scores[4:] == [None, None]
    assert [row["stages"][-1]["score"] for row in of_query] == scores
    written = [line.split() for line in (tmp_path / "a.trec").read_text().splitlines()]
    assert [float(score) for *_, score, _ in written] == [5, 4, 3, 2, 1, 0] * 4
    assert "resuming: 24 of 24 pairs" in cli(*chain, "--jsonl", tmp_path / "b.jsonl")[2]
    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()


def test_a_journal_of_a_cascade_made_with_numbers_of_documents_below_goes_on(small, cli, tmp_path):
    chain = ["batch", small, "-m", "minilm-l12:4", "-m", "minilm-l12:2", "-o", tmp_path / "a.trec"]
    assert cli(*chain)[0] == 0
    with Journal(tmp_path / "a.trec.journal") as journal:
        entries = list(journal.entries())
    (tmp_path / "a.trec.journal").unlink()
    with Journal(tmp_path / "a.trec.journal") as journal:  # as it was: every document has a number, also unread ones
        for entry in entries:
            if "order" in entry:
                below = [float(5 - entry["order"].index(position)) for position in range(6)]
                tokens = {name: [9] * 6 for name in ("tokens_used", "tokens_total")}
                entry |= {"places": [*range(6)], "scores": below, **tokens}
            journal.add(entry)
    run = (tmp_path / "a.trec").read_bytes()
    assert "resuming: 24 of 24 pairs" in cli(*chain)[2]
    assert (tmp_path / "a.trec").read_bytes() == run


def test_a_cascade_with_its_options_is_one_identity(small, cli, tmp_path, tiny_bundle):
    chain = ("batch", small, "-o", tmp_path / "out.trec", "-m", tiny_bundle, "-m", f"{tiny_bundle}:3")
    assert cli(*chain, "--adaptive", "--long", "cascade")[0] == 0
    assert "resuming: 24 of 24 pairs" in cli(*chain, "--adaptive", "--long", "cascade")[2]
    for other in ([], ["--adaptive"], ["--long", "cascade"], ["--adaptive", "--long", "chunk"]):
        code, _, stderr = cli(*chain, *other)
        assert code == 0 and "resuming" not in stderr
    for wrong, says in (
        (["-m", "minilm-l12", "--adaptive"], "--adaptive is for a cascade"),
        (["--long", "cascade"], "--long cascade needs a stage that picks"),
        (["--chunk-tokens", "50"], "--chunk-tokens goes with --long"),
    ):
        code, _, stderr = cli("batch", small, "-o", tmp_path / "out.trec", *wrong)
        assert code == 2 and says in stderr


def test_without_an_output_the_run_goes_to_stdout_and_the_journal_home(small, cli, tmp_path, monkeypatch, tiny_bundle):
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path / "home"))
    command = ("batch", small, "-m", tiny_bundle)
    code, stdout, _ = cli(*command)
    assert code == 0 and len(stdout.splitlines()) == 24
    assert [path.suffix for path in (tmp_path / "home" / "journals").iterdir()] == [".journal"]
    assert cli(*command)[1] == stdout
    assert "resuming: 24 of 24 pairs" in cli(*command)[2]


def test_memory_collections_are_checked():
    with pytest.raises(InvalidInput, match="names 1 document that the corpus lacks"):
        make_collection({"1": "q"}, {"a": "text"}, {"1": ["a", "b"]})
    with pytest.raises(InvalidInput, match="has 1 query without a text"):
        make_collection({}, {"a": "text"}, {"1": ["a"]})
    assert isinstance(make_collection({"1": "q"}, {"a": {"text": "t", "title": "T"}}, {"1": {"a": 1.0}}), Collection)


def test_a_listwise_model_has_no_cache(small, tmp_path):
    listwise = Counting()
    listwise.pointwise = False
    with pytest.raises(UsageError, match="a cache of scores goes with a pointwise one"):
        rerank_run(small, model=listwise, journal=False, cache=tmp_path / "c.sqlite")


def test_only_documents_of_the_run_are_held(tmp_path):
    """A large corpus is streamed: peak memory is that of the few documents that the run names."""
    corpus = tmp_path / "corpus.jsonl"
    with corpus.open("w") as file:
        for number in range(60_000):
            file.write(json.dumps({"_id": str(number), "text": f"passage {number} " + "word " * 400}) + "\n")
    (tmp_path / "q.jsonl").write_text('{"_id": "1", "text": "q"}\n')
    (tmp_path / "r.trec").write_text("1 Q0 59999 1 2 t\n1 Q0 3 2 1 t\n")
    code = f"""
from dearlite.machine import peak_memory_mb
from dearlite.offline.collection.collection import open_collection
from pathlib import Path
before = peak_memory_mb()
folder = Path({str(tmp_path)!r})
collection = open_collection(queries=folder / "q.jsonl", corpus=[folder / "corpus.jsonl"], run=folder / "r.trec")
print(list(collection.documents), peak_memory_mb() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    names, grown_mb = done.stdout.rsplit(" ", 1)
    assert names == "['3', '59999']"
    assert corpus.stat().st_size > 120e6
    assert float(grown_mb) < 20


def test_progress_as_a_line_that_a_notebook_shows(small, reranker, tmp_path, capsys):
    rerank_run(small, model=reranker, journal=False, progress=True)
    lines = capsys.readouterr().err.split("\r\x1b[K")
    assert lines[-1].startswith("24 of 24 pairs, ") and lines[-1].endswith("/s\n")
