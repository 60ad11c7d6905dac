"""examples/from_ir_datasets.py: what ir_datasets serves becomes a folder that the commands read."""

import gzip
import importlib.util
import json
from collections import namedtuple
from pathlib import Path

import pytest

from dearlite.offline.collection.collection import open_collection

PATH = Path(__file__).parents[2] / "examples" / "from_ir_datasets.py"
Query = namedtuple("Query", "query_id title description")
Doc = namedtuple("Doc", "doc_id headline body")
Qrel = namedtuple("Qrel", "query_id doc_id relevance iteration")
Scored = namedtuple("Scored", "query_id doc_id score")


class Dataset:
    """ir_datasets' interface over three documents; `scored` says whether it brings a first stage."""

    def __init__(self, scored=True):
        self.scored = scored
        self.docs = {name: Doc(name, f"title {name}", f"body of {name}\r\n<b>") for name in ("d1", "d2", "7")}

    def has_queries(self):
        return True

    has_docs = has_qrels = has_queries

    def has_scoreddocs(self):
        return self.scored

    def queries_iter(self):
        return iter([Query("1", "first query", "long"), Query("2", "second query", "long")])

    def qrels_iter(self):
        return iter([Qrel("1", "d1", 1, "0"), Qrel("2", "7", -1, "0")])

    def scoreddocs_iter(self):
        return iter([Scored("1", "d1", 1.0), Scored("1", "7", 2.5), Scored("2", "7", 1.0)])

    def docs_iter(self):
        return iter(self.docs.values())

    def docs_store(self):
        return self

    def get_many_iter(self, names):
        return (self.docs[name] for name in names)


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("from_ir_datasets", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_dataset_becomes_a_collection(example, tmp_path):
    counts = example.write_collection(Dataset(), tmp_path / "out")
    assert counts == {"lines of the run": 3, "judgements": 2, "queries": 2, "documents": 2}
    collection = open_collection(tmp_path / "out")
    assert collection.queries == {"1": "first query", "2": "second query"}
    assert {q: dict(scores) for q, scores in collection.run.items()} == {"1": {"7": 2.5, "d1": 1.0}, "2": {"7": 1.0}}
    assert (collection.documents["7"].title, collection.documents["7"].text) == ("title 7", "body of 7\r\n<b>")
    with gzip.open(tmp_path / "out" / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        assert [json.loads(line)["_id"] for line in lines] == ["7", "d1"]  # d2 is not in the run


def test_a_run_of_ones_own_and_its_depth(example, tmp_path):
    (tmp_path / "bm25.trec").write_text("1 Q0 d2 1 9.5 t\n1 Q0 d1 2 9.0 t\n")
    example.write_collection(Dataset(), tmp_path / "out", run=tmp_path / "bm25.trec", depth=1)
    collection = open_collection(tmp_path / "out")
    assert {q: list(scores) for q, scores in collection.run.items()} == {"1": ["d2"]} and set(collection.documents) == {
        "d2"
    }


def test_without_a_first_stage_the_whole_corpus_is_written(example, tmp_path):
    counts = example.write_collection(Dataset(scored=False), tmp_path / "out")
    assert counts["documents"] == 3 and not (tmp_path / "out" / "run.trec").exists()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "corpus.jsonl.gz",
        "qrels.tsv",
        "queries.jsonl",
    ]
