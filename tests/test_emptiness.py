"""A document or query that gives the model nothing to read is an empty one, at every entry point."""

import json
from pathlib import Path

import pytest

from dearlite import InvalidInput, Listwise, Long, Reranker, make_collection, rerank, rerank_run
from dearlite.documents import Document
from dearlite.pointwise.tokens import PairEncoder

CASES = Path(__file__).parent / "data" / "cases"
GOOD = "Rain falls on hills."
# Nothing by their characters; `tokenless` is nothing by its tokens.
NOTHING = ["\u200b", "\ufeff \u00ad", "\0\x1b", "\ud83d", "\ue000", " \u0301", "\u3164"]


@pytest.fixture(scope="module")
def tokenless():
    """A readable text of which the tokenizer makes no token. BERT's own drops no such character: it drops this one."""
    snowman, make = "\u2603", PairEncoder.__init__

    def dropping(self, tokenizer_json, **options):
        tokenizer = json.loads(tokenizer_json)
        drop = {"type": "Replace", "pattern": {"String": snowman}, "content": ""}
        tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [drop, tokenizer["normalizer"]]}
        make(self, json.dumps(tokenizer).encode(), **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PairEncoder, "__init__", dropping)
        yield snowman * 2


@pytest.fixture(scope="module")
def reranker(tokenless):
    return Reranker.load(threads=1)


@pytest.fixture(scope="module")
def cascade(tokenless):
    return Reranker.load(["minilm-l12", ("minilm-l12", 2)], threads=1)


CALLS = {
    "rerank": lambda model, query, docs: model.rerank(query, docs),
    "rerank_many": lambda model, query, docs: model.rerank_many([("rain", [GOOD]), (query, docs)]),
    "rerank within a budget": lambda model, query, docs: model.rerank(query, docs, budget_s=60),
    "passages": lambda model, query, docs: model.rerank(query, docs, long=Long("chunk", 16)),
    "score": lambda model, query, docs: model.score([(query, document) for document in docs]),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("kind", ["reranker", "cascade"])
def test_python_refuses_nothing_by_name(request, call, kind, tokenless):
    model = request.getfixturevalue(kind)
    if kind == "cascade" and call is CALLS["score"]:
        pytest.skip("a cascade has no scores")
    for nothing in (*NOTHING, tokenless):
        for document in (nothing, {"text": nothing}, {"title": nothing, "text": nothing}):
            with pytest.raises(
                InvalidInput, match=r"document.* 1 (has nothing to read|is empty for)|pair 1 has nothing"
            ):
                call(model, "rain", [GOOD, document])
        with pytest.raises(InvalidInput, match=r"the query (has nothing to read|is empty for)"):
            call(model, nothing, [GOOD])
    call(model, "rain", [GOOD, {"title": "Hills", "text": NOTHING[0]}, "🙂"])  # a title, and a token for the unknown


def test_a_stream_refuses_a_document_without_a_token(reranker, tokenless):
    with pytest.raises(InvalidInput, match="document 'd2' is empty for"):
        list(reranker.stream([("rain", Document(GOOD, "d1")), ("rain", Document(tokenless, "d2"))]))


def test_the_reported_case(cli):
    rc, out, err = cli("rerank", "-q", "rain", CASES / "p01-invisible" / "docs.jsonl")
    assert (rc, out) == (1, "")
    assert "docs.jsonl:1 has nothing to read, only characters that show nothing (U+200B): remove it" in err
    with pytest.raises(InvalidInput, match="document 0 has nothing to read"):
        rerank("rain", ["\u200b", GOOD, "Ships carry grain."])


@pytest.fixture
def files(tmp_path, tokenless):
    """Document files with two empty documents among three."""
    rows = [{"id": "a", "text": "\u200b"}, {"id": "b", "text": GOOD}, {"id": "c", "text": tokenless}]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (tmp_path / "d.csv").write_text("id,text\n" + "".join(f"{r['id']},{r['text']}\n" for r in rows), "utf-8")
    return tmp_path


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv"])
@pytest.mark.parametrize("options", [(), ("--min-relevance", "0"), ("--long", "chunk"), ("--budget", "60s"),
                                     ("-m", "minilm-l12", "-m", "minilm-l12:2")])  # fmt: skip
def test_rerank_skips_and_counts_empty_documents_if_asked(cli, files, name, options):
    assert cli("rerank", "-q", "rain", files / name, *options)[0] == 1
    rc, out, err = cli("rerank", "-q", "rain", files / name, *options, "--skip-bad")
    assert (rc, [json.loads(line)["id"] for line in out.splitlines()]) == (0, ["b"])
    assert err.count("skipped: ") == 2
    assert "document 'c' is empty for" in err


def test_a_line_of_invisible_characters_is_blank(cli, tmp_path):
    (tmp_path / "d.txt").write_text(f"\u200b\n{GOOD}\n \ufeff\n", "utf-8")
    rc, out, _ = cli("rerank", "-q", "rain", tmp_path / "d.txt")
    assert (rc, len(out.splitlines())) == (0, 1)


def test_a_query_of_nothing_is_a_usage_error(cli, files, tokenless):
    for query in ("\u200b", tokenless):
        rc, out, err = cli("rerank", "-q", query, files / "d.jsonl", "--skip-bad")
        assert (rc, out) == (2, "")
        assert "the query" in err
        (files / "query.txt").write_text(query, "utf-8")
        assert cli("rerank", files / "query.txt", files / "d.jsonl", "--skip-bad")[0] == 2


@pytest.fixture
def folder(tmp_path, tokenless):
    """A collection with an empty document of each kind."""
    folder = tmp_path / "collection"
    folder.mkdir()
    rows = [("a", "\u200b"), ("b", GOOD), ("c", tokenless), ("d", "Ships carry grain.")]
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"_id": i, "text": t}) + "\n" for i, t in rows), "utf-8")
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "rain"}\n', "utf-8")
    (folder / "run.trec").write_text("".join(f"q Q0 {i} {n} {9 - n} t\n" for n, (i, _) in enumerate(rows, 1)), "utf-8")
    (folder / "qrels.tsv").write_text("q\t0\tb\t1\n", "utf-8")
    return folder


@pytest.mark.parametrize("command", ["batch", "eval"])
def test_runs_skip_and_count_empty_documents_if_asked(cli, folder, command):
    if command == "eval":
        pytest.importorskip("ir_measures")
    out = folder.parent / "out.trec"
    rc, _, err = cli(command, folder, "-o", out)
    assert rc == 1
    assert "corpus.jsonl:1 has nothing to read" in err
    rc, _, err = cli(command, folder, "-o", out, "--skip-bad")
    assert rc == 0
    assert "skipped: corpus.jsonl:1 has nothing to read" in err
    assert "left out 1 empty documents, the first: document 'c' is empty for" in err
    assert [line.split()[2] for line in out.read_text().splitlines()] == ["b", "d"]


def test_python_runs_refuse_or_leave_out_empty_documents(folder, reranker, tokenless):
    collection = make_collection({"q": "rain"}, {"b": GOOD, "c": tokenless}, {"q": ["c", "b"]})
    with pytest.raises(InvalidInput, match="document 'c' is empty for"):
        rerank_run(collection, model=reranker, journal=False)
    reranked = rerank_run(collection, model=reranker, journal=False, skip_bad=True)
    assert (list(reranked.run["q"]), len(reranked.notes)) == (["b"], 1)
    with pytest.raises(InvalidInput, match="nothing to read"):
        make_collection({"q": "rain"}, {"b": "\u200b"}, {"q": ["b"]})
    with pytest.raises(InvalidInput, match="query 'q' is empty for"):
        rerank_run(make_collection({"q": tokenless}, {"b": GOOD}, {"q": ["b"]}), model=reranker, journal=False)
    with pytest.raises(InvalidInput, match="nothing to read"):
        make_collection({"q": "\u200b"}, {"b": GOOD}, {"q": ["b"]})


def test_a_listwise_model_refuses_nothing(tmp_path):
    tiny_gguf = pytest.importorskip("tiny_gguf")
    model = Reranker.load(tiny_gguf.write_tiny(tmp_path / "tiny.gguf"), threads=1)
    for nothing in NOTHING:
        with pytest.raises(InvalidInput, match="document 1 has nothing to read"):
            model.rerank("rain", [GOOD, nothing], listwise=Listwise())
        with pytest.raises(InvalidInput, match="the query has nothing to read"):
            model.rerank(nothing, [GOOD])
