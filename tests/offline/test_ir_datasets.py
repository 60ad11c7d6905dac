"""Datasets of ir_datasets by their ids: a stand-in with the library's own classes, registered in this process."""

import json
from typing import NamedTuple

import pytest

from dearlite import compare, evaluate, rerank_run
from dearlite.errors import FetchError, UsageError
from dearlite.offline.collection.irds import dataset_documents, dataset_queries
from dearlite.offline.collection.source import Source

ir_datasets = pytest.importorskip("ir_datasets", reason="the extra dearlite[ir-datasets] is not installed")
pytest.importorskip("ir_measures", reason="the extra dearlite[eval] is not installed")
from ir_datasets.formats import (  # noqa: E402
    BaseDocs,
    BaseQrels,
    BaseQueries,
    BaseScoredDocs,
    GenericQuery,
    GenericScoredDoc,
    TrecQrel,
)

NAME = "irds:dearlite-standin/test"
TEXTS = {"d1": "Edison's light bulb of 1879 gave light.", "d2": "Cats sleep all day.", "d3": "A lamp needs a bulb."}


class TitledDoc(NamedTuple):
    doc_id: str
    title: str
    body: str

    def default_text(self) -> str:
        return f"{self.title} {self.body}"


class Docs(BaseDocs):
    def docs_iter(self):
        return (TitledDoc(name, f"Title {name}", text) for name, text in TEXTS.items())

    def docs_cls(self):
        return TitledDoc

    def docs_store(self):
        return self

    def get_many_iter(self, names):
        return (document for document in self.docs_iter() if document.doc_id in set(names))


class Queries(BaseQueries):
    def queries_iter(self):
        return iter([GenericQuery("1", "who made the light bulb?"), GenericQuery("2", "what do cats do?")])


class Qrels(BaseQrels):
    def qrels_iter(self):
        return iter([TrecQrel("1", "d1", 2, "0"), TrecQrel("1", "d3", 1, "0"), TrecQrel("2", "d2", 1, "0")])

    def qrels_defs(self):
        return {}


class Scored(BaseScoredDocs):
    def scoreddocs_iter(self):
        rows = [("1", "d2", 1.5), ("1", "d1", 0.5), ("1", "d3", 1.0), ("2", "d3", 2.0), ("2", "d2", 1.0)]
        return (GenericScoredDoc(*row) for row in rows)


class Failing(BaseQrels):
    def qrels_iter(self):
        raise OSError("Failed to resolve 'host.example'\nmore")


@pytest.fixture(scope="module", autouse=True)
def standin():
    names = {
        "dearlite-standin/test": ir_datasets.Dataset(Docs(), Queries(), Qrels(), Scored()),
        "dearlite-standin/no-run": ir_datasets.Dataset(Docs(), Queries(), Qrels()),
        "dearlite-standin/fails": ir_datasets.Dataset(Failing()),
    }
    for name, dataset in names.items():
        ir_datasets.registry.register(name, dataset)
    yield
    for name in names:
        del ir_datasets.registry._registered[name]


def test_an_id_gives_queries_documents_judgements_and_the_published_run():
    collection = Source(source=NAME).open()
    assert collection.queries == {"1": "who made the light bulb?", "2": "what do cats do?"}
    assert collection.run == {"1": {"d2": 1.5, "d3": 1.0, "d1": 0.5}, "2": {"d3": 2.0, "d2": 1.0}}
    assert (collection.documents["d1"].title, collection.documents["d1"].text) == ("Title d1", TEXTS["d1"])
    assert list(Source(source=NAME, depth=1).open().run["1"]) == ["d2"]


def test_the_command_reranks_and_measures_a_dataset(cli, tmp_path):
    code, out, err = cli("eval", NAME, "--measures", "RR", "--no-journal", "--json", "-")
    assert code == 0, err
    systems = {system["name"]: system["values"]["RR"] for system in json.loads(out)["systems"]}
    assert systems == {"first stage": 0.5, "minilm-l12": 1.0}
    run = tmp_path / "out.trec"
    code, _, err = cli("batch", NAME, "-o", run, "--quiet")
    assert code == 0 and run.read_text().startswith("1 Q0 d1 1 "), err
    code, out, err = cli("eval", NAME, run, "--baseline", f"bm25={NAME}", "--measures", "RR")
    assert code == 0 and "bm25" in out and "out.trec" in out, err
    code, out, err = cli("eval", "--qrels", NAME, run, "--measures", "RR")
    assert code == 0 and "1.0000" in out, err


def test_the_librarys_objects_in_python():
    dataset = ir_datasets.load("dearlite-standin/test")
    reranked = rerank_run(dataset, journal=False)
    assert next(iter(reranked.run["2"])) == "d2"
    evaluation = compare(dataset, {"bm25": dataset, "ours": reranked.run}, measures="RR")
    assert evaluation.values == {"bm25": {"RR": 0.5}, "ours": {"RR": 1.0}}
    assert compare(dataset.qrels_iter(), {"bm25": dataset.scoreddocs_iter()}, measures="RR").values["bm25"]["RR"] == 0.5
    assert evaluate(dataset, scored=reranked.run, measures="RR").values["first stage"]["RR"] == 0.5


def test_a_first_stage_by_words_reads_all_documents(cli, tmp_path):
    """The dataset publishes no run, and its index by ids is not asked."""
    pytest.importorskip("bm25s", reason="bm25s is not installed (extra first-stage)")
    name = "irds:dearlite-standin/no-run"
    code, out, err = cli("eval", name, "--first", "bm25:2", "--measures", "RR", "--no-journal", "--json", "-")
    assert code == 0, err
    systems = {system["name"]: system["values"]["RR"] for system in json.loads(out)["systems"]}
    assert systems == {"first stage": 1.0, "minilm-l12": 1.0}
    run = tmp_path / "out.trec"
    code, _, err = cli("batch", NAME, "--first", "bm25:1", "-o", run, "--quiet")
    assert [line.split()[2] for line in run.read_text().splitlines()] == ["d1", "d2"], err
    code, _, err = cli("batch", NAME, "--first", "bm25:1", "--run", run)
    assert code == 2 and "--run names a first stage, and bm25:1" in err
    code, _, err = cli("batch", NAME, "--first", "bm25:1", "--corpus", run)
    assert code == 2 and "holds queries and documents itself: leave out corpus" in err
    code, _, err = cli("batch", "irds:dearlite-standin/fails", "--first", "bm25:1")
    assert code == 2 and "has no queries in ir_datasets" in err


def test_a_run_of_ones_own(cli, tmp_path):
    run = tmp_path / "bm25.trec"
    run.write_text("1 Q0 d2 1 3 x\n1 Q0 d1 2 2 x\n9 Q0 d1 1 1 x\n")
    collection = Source(source="irds:dearlite-standin/no-run", run=str(run)).open()
    assert list(collection.run) == ["1"] and "left out 1 query of the run" in collection.notes[-1]
    code, _, err = cli("batch", "irds:dearlite-standin/no-run")
    assert (
        code == 2
        and "has no run (scored documents) in ir_datasets: name one with --run, or make it with --first bm25:100" in err
    )
    run.write_text("1 Q0 d9 1 3 x\n")
    code, _, err = cli("batch", "irds:dearlite-standin/no-run", "--run", run)
    assert code == 1 and "names 1 documents ('d9' of query '1' first) that irds:dearlite-standin/no-run lacks" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["irds:beir/nfcorpus/tst"], "ir_datasets has no 'beir/nfcorpus/tst' (nearest: beir/nfcorpus/test"),
        ([NAME, "--corpus", "x.jsonl"], f"{NAME} holds queries and documents itself: leave out corpus"),
    ],
)
def test_wrong_names_are_one_line(cli, arguments, message):
    code, _, err = cli("batch", *arguments)
    assert code == 2 and message in err and len(err.strip().splitlines()) == 1, err


def test_a_failed_download_is_one_line():
    with pytest.raises(FetchError, match=r"irds:dearlite-standin/fails: ir_datasets cannot provide it \(Failed to"):
        compare("irds:dearlite-standin/fails", {"a": {"1": {"d1": 1.0}}})
    with pytest.raises(UsageError, match="has no queries in ir_datasets"):
        dataset_queries("irds:dearlite-standin/fails")


def test_documents_of_every_type_have_a_text():
    """A type without a known field gives all its text; one of the title alone gives the title."""

    class Odd(NamedTuple):
        doc_id: str
        abstract: str

        def default_text(self):
            return self.abstract

    class Store(Docs):
        def get_many_iter(self, names):
            return iter([Odd("a", "An abstract."), TitledDoc("b", "Only a title", "")])

    documents, notes = dataset_documents(ir_datasets.Dataset(Store()), {"a", "b"})
    assert (documents["a"].title, documents["a"].text) == ("", "An abstract.") and not notes
    assert documents["b"].text.strip() == "Only a title"
