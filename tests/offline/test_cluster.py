"""Reranking as blocks on a Ray cluster: the lines of one process, resumption by block, failures on one line."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import noveleval
import pytest
from click.testing import CliRunner

from dearlite import rerank_run
from dearlite.cli.main import main
from dearlite.documents import Document
from dearlite.errors import DearliteError, UsageError
from dearlite.offline.cluster.blocks import list_blocks, read_block, write_blocks
from dearlite.offline.cluster.ray import BlockScorer, Scoring, agree, rerank_on_ray
from dearlite.offline.collection.collection import make_collection, open_collection

pytest.importorskip("ray", reason="the extra dearlite[ray] is not installed")
from ray.cluster_utils import Cluster


@pytest.fixture(scope="module")
def scoring(tiny_bundle):
    return Scoring(
        model=str(tiny_bundle),
        device="cpu",
        threads=1,
        depth=6,
        skip_bad=False,
        listwise=None,
        batch_size=8,
        loading={},
    )


def start_cluster(attempts=5):
    """A cluster of one node. Ray waits for its processes for 30 s, which a busy machine may exceed."""
    try:
        return Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    except Exception as err:
        if attempts == 1 or "timed out during startup" not in str(err):
            raise
    return start_cluster(attempts - 1)


@pytest.fixture(scope="module")
def address():
    """The address of a cluster for the tests of this file: a Ray of its own for each would start and stop for long."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    cluster = start_cluster()
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="module")
def collection():
    """The first four queries of NovelEval, six documents each."""
    whole = open_collection(noveleval.DATA, run=noveleval.DATA / "run_bm25.trec", depth=6)
    run = {query_id: dict(scores) for query_id, scores in list(whole.run.items())[:4]}
    return make_collection(whole.queries, whole.documents, run)


@pytest.fixture(scope="module")
def expected(collection, tiny_bundle):
    """The lines of one process, sorted."""
    return sorted(rerank_run(collection, model=tiny_bundle, journal=False, threads=1).lines())


@pytest.fixture(scope="module")
def reranked(collection, scoring, address, tmp_path_factory):
    """An output folder of two actors, the result of rerank_on_ray, and the calls of its progress callback."""
    folder, counts = tmp_path_factory.mktemp("cluster") / "out", []
    options = {"scoring": scoring, "address": address, "actors": (2, 2), "block_queries": 1}
    result = rerank_on_ray(collection, folder, **options, progress=lambda *now: counts.append(now))
    return folder, result, counts


def command(*arguments):
    """The end of a dearlite command that starts a local Ray."""
    whole = [sys.executable, "-m", "dearlite.cli.main", *map(str, arguments)]
    return subprocess.run(whole, capture_output=True, text=True, timeout=600, check=False)


def records(collection):
    for query_id, scores in collection.run.items():
        candidates = []
        for document_id, score in scores.items():
            document = collection.documents[document_id]
            doc = {"title": document.title, "text": document.text}
            candidates.append({"docid": document_id, "score": score, "doc": doc})
        yield {"query": {"text": collection.queries[query_id], "qid": query_id}, "candidates": candidates}


def test_two_actors_write_the_lines_of_one_process(reranked, expected):
    folder, (reports, done_before), counts = reranked
    assert sorted((folder / "run.trec").open()) == expected
    assert len(reports) == 4 and done_before == 0 and sum(report.pairs for report in reports) == 24
    assert counts == [(count, 4) for count in range(5)]
    assert len(list(folder.glob("part-*.trec"))) == 4 and not list(folder.glob("*.attempts"))


def test_only_a_missing_block_is_scored_again(reranked, collection, expected, scoring, address):
    folder, options = reranked[0], {"scoring": scoring, "address": address, "block_queries": 1}
    lost = sorted(folder.glob("part-*.trec"))[2]
    lost.unlink()
    reports, done_before = rerank_on_ray(collection, folder, **options)
    assert [report.number for report in reports] == [2] and done_before == 3
    assert sorted((folder / "run.trec").open()) == expected
    assert rerank_on_ray(collection, folder, **options) == ([], 4)  # and Ray is not started


def test_parquet_shards_through_the_command(collection, expected, tmp_path, tiny_bundle):
    """With a Ray of the command's own, in a process of its own: Ray serves one cluster in each."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    shards = tmp_path / "shards"
    shards.mkdir()
    rows = list(records(collection))
    pq.write_table(pa.Table.from_pylist(rows[:3]), shards / "a.parquet", row_group_size=2)
    (shards / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[3:]), encoding="utf-8")
    arguments = ["batch", str(shards), "--ray", "--threads", "1", "-o", str(tmp_path / "out"), "--depth", "6"]
    arguments += ["-m", str(tiny_bundle)]
    result = command(*arguments)
    assert result.returncode == 0, result.stderr
    assert sorted((tmp_path / "out" / "run.trec").open()) == expected
    assert "3 blocks, 24 pairs" in result.stderr  # two row groups and a shard
    again = CliRunner().invoke(main, arguments)  # and Ray is not started
    assert again.exit_code == 0 and "3 of 3 blocks are already scored" in again.output


def test_the_block_of_a_killed_actor_is_scored_by_another(collection, expected, tmp_path, scoring, address):
    psutil = pytest.importorskip("psutil")
    killed = []

    def actors():
        """The scoring processes below this one: those of its own cluster, of no other run on this machine."""
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile, or is a zombie
                if "BlockScorer" in " ".join(process.cmdline()):
                    yield process

    before = set(actors())  # of a test before, about to end

    def kill(done, total):
        if done == 1 and not killed:
            for actor in set(actors()) - before:
                actor.kill()
                killed.append(actor.pid)

    options = {"scoring": scoring, "address": address, "block_queries": 1}
    reports, _ = rerank_on_ray(collection, tmp_path / "out", **options, progress=kill)
    assert killed and len(reports) == 4
    assert sorted((tmp_path / "out" / "run.trec").open()) == expected


def test_a_bad_shard_is_one_line_and_keeps_the_good_ones(collection, tmp_path, scoring, address):
    shards = tmp_path / "shards"
    shards.mkdir()
    rows = [json.dumps(row) + "\n" for row in records(collection)]
    (shards / "a.jsonl").write_text(rows[0], encoding="utf-8")
    (shards / "b.jsonl").write_text(rows[1][:-20] + "\n", encoding="utf-8")
    with pytest.raises(DearliteError, match=r"block b\.jsonl: b\.jsonl:1 is not JSON") as caught:
        rerank_on_ray(shards, tmp_path / "out", scoring=scoring, address=address)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "run.trec").exists()
    (shards / "b.jsonl").write_text(rows[1], encoding="utf-8")
    reports, done_before = rerank_on_ray(shards, tmp_path / "out", scoring=scoring, address=address)
    assert len(reports) + done_before == 2 and len((tmp_path / "out" / "run.trec").read_text().splitlines()) == 12


def test_an_address_where_no_cluster_answers(collection, tmp_path):
    arguments = ["batch", str(noveleval.DATA), "--run", str(noveleval.DATA / "run_bm25.trec"), "-o", str(tmp_path)]
    result = CliRunner().invoke(main, [*arguments, "--ray", "127.0.0.1:9"])
    assert isinstance(result.exception, UsageError)
    assert "no Ray cluster at 127.0.0.1:9" in str(result.exception)
    assert "\n" not in str(result.exception)


def test_a_ray_that_does_not_start_is_one_line(collection, scoring, tmp_path, monkeypatch):
    def init(**options):
        raise Exception("The current node timed out during startup.\nSee the log.")

    monkeypatch.setattr("ray.init", init)
    with pytest.raises(
        DearliteError, match=r"does not start here \(The current node timed out .*\): run the same"
    ) as e:
        rerank_on_ray(collection, tmp_path / "out", scoring=scoring)
    assert "\n" not in str(e.value)


def test_gpus_that_the_machine_lacks(tmp_path):
    arguments = ["batch", noveleval.DATA, "--run", noveleval.DATA / "run_bm25.trec", "-o", tmp_path]
    result = command(*arguments, "--ray", "--actor-gpus", "64")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("dearlite: --actor-gpus 64: Ray finds no such GPU")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--ray needs -o FOLDER"),
        (["-o", "OUT", "--cache", "c.db"], "--cache is of one process"),
        (["-o", "OUT", "--jsonl", "rows.jsonl"], "--jsonl is of one process"),
        (["-o", "OUT", "--journal", "j"], "--journal is of one process"),
        (["-o", "OUT", "--no-journal"], "--no-journal is of one process"),
        (["-o", "OUT", "-m", "minilm-l12:5"], "--ray runs one model, not a cascade"),
        (["-o", "OUT", "--actors", "2-1"], "'--actors': '2-1' is neither a whole number from 1, nor a range"),
        (["-o", "OUT", "--actors", "0"], "'--actors': '0' is neither"),
        (["-o", "OUT", "--block-queries", "0"], "--block-queries is 0"),
    ],
)
def test_options_that_do_not_go_with_a_cluster(options, message, cli, tmp_path):
    options = [str(tmp_path / "out") if option == "OUT" else option for option in options]
    code, _, stderr = cli("batch", noveleval.DATA, "--ray", *options)
    assert code == 2
    assert message in stderr and stderr.count("\n") == 1


def test_a_part_is_named_by_what_its_lines_depend_on(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}\n")
    first, again, other = (list_blocks(tmp_path, settings)[0].part for settings in (b"x", b"x", b"y"))
    assert first == again != other
    (tmp_path / "a.jsonl").write_text("{} \n")
    assert list_blocks(tmp_path, b"x")[0].part != first


def test_blocks_of_a_collection_hold_its_texts(collection, tmp_path):
    folder = write_blocks(collection, tmp_path, 3)
    blocks = [read_block(block, depth=None, skip_bad=False) for block in list_blocks(folder, b"")]
    assert [list(block.queries) for block in blocks] == [["0", "1", "2"], ["3"]]
    for block in blocks:
        assert {document_id for scores in block.run.values() for document_id in scores} == set(block.documents)
        assert all(scores == collection.run[query_id] for query_id, scores in block.run.items())
        assert all(document == collection.documents[document_id] for document_id, document in block.documents.items())
    document_id = next(iter(collection.run["0"]))
    changed = replace(collection, documents=collection.documents | {document_id: Document("changed", id=document_id)})
    assert write_blocks(changed, tmp_path, 3) != folder


def test_a_block_that_kills_its_actors_is_given_up(collection, tmp_path, scoring):
    block = list_blocks(write_blocks(collection, tmp_path / "blocks", 4), b"")[0]
    (tmp_path / f"{block.part}.attempts").write_bytes(b"....")
    actor = BlockScorer(scoring, str(tmp_path), _settings(scoring))
    assert "its actor died 4 times" in actor._score(block).error
    assert not Path(tmp_path / block.part).exists()


def test_a_node_with_another_model_scores_nothing(collection, tmp_path, scoring):
    block = list_blocks(write_blocks(collection, tmp_path / "blocks", 4), b"")[0]
    actor = BlockScorer(scoring, str(tmp_path), b"another")
    assert f"has another dearlite or another file for {scoring.model}" in actor._score(block).error


def test_a_node_that_scores_otherwise_scores_nothing(tmp_path):
    """Another ONNX Runtime or processor moves int8 scores: the run would depend on the node."""
    here = {"model": "m", "onnxruntime": "1.31.1", "processor": "x86_64 AVX2"}
    agree(tmp_path, b"x" * 16, here)
    agree(tmp_path, b"x" * 16, here)
    with pytest.raises(DearliteError, match=r"another processor \(x86_64 AVX2, here arm64\); use nodes that are alike"):
        agree(tmp_path, b"x" * 16, here | {"processor": "arm64"})
    agree(tmp_path, b"x" * 16, here)  # the node that was refused left nothing
    agree(tmp_path, b"y" * 16, here | {"processor": "arm64"})  # parts of other settings


def test_an_actor_checks_the_nodes_before_it(collection, tmp_path, scoring):
    block = list_blocks(write_blocks(collection, tmp_path / "blocks", 4), b"")[0]
    agree(tmp_path, _settings(scoring), {"onnxruntime": "1.0"})
    report = BlockScorer(scoring, str(tmp_path), _settings(scoring))._score(block)
    assert "scores otherwise than the nodes before" in report.error and "onnxruntime (1.0, here" in report.error


def _settings(scoring):
    from dearlite.offline.cluster import ray as cluster

    return cluster._settings(scoring)
