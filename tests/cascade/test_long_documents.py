"""Long documents: windows that cover the text, the best passage of each document, and stages that hand passages on."""

import json
from itertools import pairwise

import pytest
from click.testing import CliRunner
from llama import need_llama

from dearlite import Reranker, rerank, rerank_run
from dearlite.cli.main import main
from dearlite.cli.options.model import long_of
from dearlite.errors import UsageError
from dearlite.offline.collection.collection import make_collection
from dearlite.options import Long
from dearlite.passages import window_spans_of

QUERY = "Who invented the light bulb?"
ANSWER = "Thomas Edison invented the light bulb in 1879."
FILLER = "Tea is grown in the hills, picked by hand in spring, and dried on wide bamboo trays. "
LONG = FILLER * 14 + ANSWER + " " + FILLER * 14  # some 600 tokens, and the embedded model reads 512
DOCS = [
    FILLER * 28,
    {"id": "long", "title": "Of tea", "text": LONG},
    "Coffee is good for diet",
    "Glass is made of sand.",
]


@pytest.fixture(scope="module")
def reranker():
    return Reranker.load()


@pytest.fixture(scope="module")
def tiny(tiny_bundle):
    return Reranker.load(tiny_bundle)


@pytest.mark.parametrize("tokens", [1, 4, 5, 8, 9, 100, 101])
@pytest.mark.parametrize("size", [1, 2, 4, 16])
def test_windows_cover_the_text_and_overlap(tokens, size):
    offsets = [(2 * n + 1, 2 * n + 3) for n in range(tokens)]  # a space stands before and after all of it
    length = 2 * tokens + 2
    spans = window_spans_of(offsets, size, length)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(spans))
    assert all(b[0] <= a[1] for a, b in pairwise(spans))  # nothing between them is lost
    assert all(end - start <= 2 * size + 2 for start, end in spans)


def test_windows_of_an_example():
    offsets = [(n, n + 1) for n in range(8)]
    assert window_spans_of(offsets, 4, 8) == [(0, 4), (3, 7), (4, 8)]
    assert window_spans_of([], 4, 3) == [(0, 3)]


def test_best_passage_is_the_documents_score(reranker):
    cut, chunked = reranker.rerank(QUERY, DOCS), reranker.rerank(QUERY, DOCS, long=Long("chunk"))
    assert next(hit for hit in cut if hit.id == "long").truncated
    best = chunked[0]
    assert (best.id, best.index, best.truncated) == ("long", 1, False)
    assert ANSWER in best.text[slice(*best.passage)]
    assert best.text == LONG
    assert best.document is DOCS[1]
    assert sorted(hit.index for hit in chunked) == [0, 1, 2, 3]
    assert [hit.rank for hit in chunked] == [1, 2, 3, 4]
    assert chunked.total == 4
    short = next(hit for hit in chunked if hit.index == 3)
    assert short.passage == (0, len(short.text))
    assert short.score == next(hit.score for hit in cut if hit.index == 3)
    alone = reranker.score([(QUERY, {"title": "Of tea", "text": best.text[slice(*best.passage)]})])
    assert best.score == pytest.approx(alone[0], abs=1e-5)


def test_passages_have_the_length_that_is_asked_for(reranker):
    ranking = reranker.rerank(QUERY, [LONG], long=Long("chunk", passage_tokens=40, keep=3))
    assert len(ranking[0].passages) == 3
    start, end = ranking[0].passage
    assert end - start < 300
    assert ranking[0].tokens_total < 40 + 20


@pytest.mark.parametrize(
    ("long", "says"),
    [(Long("chunk", 600), "passages of 600 tokens are longer than the"), (Long("fold"), "no long mode 'fold'"),
     (Long("chunk", 3), "passage_tokens is 3"), (Long("chunk", keep=0), "keep is 0"),
     (Long(passage_tokens=50), "passage_tokens is 50, and long mode truncate reads no passages"),
     (Long("truncate", keep=2), "keep is 2, and long mode truncate reads no passages"),
     (Long("cascade"), "is one stage, and long mode cascade needs a stage before it that picks")],
)  # fmt: skip
def test_what_cannot_be_is_refused(reranker, long, says):
    with pytest.raises(UsageError, match=says):
        reranker.rerank(QUERY, DOCS, long=long)
    with pytest.raises(UsageError, match=says):
        reranker.rerank_many([(QUERY, DOCS)], long=long)


def test_second_stage_reads_the_passages_that_the_first_picked():
    model = Reranker.load(["minilm-l12", "minilm-l12:2"])
    ranking = model.rerank(QUERY, DOCS, long=Long("cascade", keep=1))
    first, second = ranking[0].stages
    assert ranking[0].id == "long"
    assert ANSWER in LONG[slice(*ranking[0].passage)]
    assert first.score == pytest.approx(second.score, abs=1e-5)  # the same model, the same passage
    assert ranking[0].text == LONG
    assert sorted(hit.index for hit in ranking) == [0, 1, 2, 3]
    chunked = model.rerank(QUERY, DOCS, long=Long("chunk"))
    assert chunked[0].id == "long"
    with pytest.raises(UsageError, match="is one stage, and long mode cascade needs a stage before it that picks"):
        Reranker.load(["minilm-l12:3"]).rerank(QUERY, DOCS, long=Long("cascade"))


def test_budget_holds_for_passages_too(tiny):
    ranking = tiny.rerank(QUERY, DOCS, long=Long("chunk"), budget_s=600)
    assert ranking.complete
    assert [hit.index for hit in ranking] == [hit.index for hit in tiny.rerank(QUERY, DOCS, long=Long("chunk"))]


def test_listwise_stage_sees_the_best_passage(tmp_path):
    need_llama()
    from tiny_gguf import write_tiny

    path = write_tiny(tmp_path / "tiny.gguf")
    model = Reranker.load(["minilm-l12", (path, 2)])
    ranking = model.rerank(QUERY, DOCS, long=Long("chunk", 60))
    assert [len(hit.stages) for hit in ranking] == [2, 2, 1, 1]
    tea = next(hit for hit in ranking if hit.id == "long")
    assert tea.tokens_total < 400  # of the passage: the whole has 600
    assert tea.text == LONG
    with pytest.raises(UsageError, match="reads only the beginning of a document"):
        Reranker.load(path).rerank(QUERY, DOCS, long=Long("chunk"))


def test_command_shows_the_span(tmp_path):
    path = tmp_path / "docs.jsonl"
    path.write_text("".join(json.dumps({"text": doc} if isinstance(doc, str) else doc) + "\n" for doc in DOCS))
    found = CliRunner().invoke(main, ["rerank", "-q", QUERY, str(path), "--long", "chunk", "--format", "table"])
    assert f"of {len(LONG):,}]" in " ".join(found.stdout.split())
    rows = CliRunner().invoke(main, ["rerank", "-q", QUERY, str(path), "--long", "chunk", "-k", "1"])
    row = json.loads(rows.stdout)
    assert ANSWER in LONG[slice(*row["passage"])]
    for given, says in (
        (["--long", "cascade"], "--long cascade needs a stage that picks"),
        (["--chunk-tokens", "50"], "--chunk-tokens goes with --long"),
        (["--keep", "1"], "--keep goes with --long cascade"),
        (["--long", "chunk", "--keep", "1"], "--keep goes with --long cascade"),
        (["-m", "minilm-l12", "-m", "minilm-l12:2", "--long", "cascade", "--keep", "0"], "keep is 0"),
        (["--long", "chunk", "--chunk-tokens", "5"], "--chunk-tokens is 5"),
        (["--long", "chunk", "--chunk-tokens", "512"], "longer than the 512 that minilm-l12 reads"),
        (["--adaptive"], "--adaptive is for a cascade, and one model was named"),
    ):
        refused = CliRunner().invoke(main, ["rerank", "-q", QUERY, str(tmp_path / "none.jsonl"), *given])
        assert isinstance(refused.exception, UsageError)
        assert says in str(refused.exception)


def test_command_hands_on_as_many_passages_as_keep_says():
    assert long_of("cascade", None, None) == Long("cascade")
    assert long_of("cascade", None, 2) == Long("cascade", keep=2)


def test_many_queries_of_a_run(tiny, tmp_path):
    documents = {f"d{n}": {"text": doc} if isinstance(doc, str) else doc for n, doc in enumerate(DOCS)}
    collection = make_collection({"1": QUERY, "2": "tea"}, documents, {"1": list(documents), "2": ["d1", "d2"]})
    told = []
    asked = {"model": tiny, "output": tmp_path / "out.trec", "progress": lambda done, of: told.append((done, of))}
    found = rerank_run(collection, long=Long("chunk"), **asked)
    best = tiny.rerank(QUERY, DOCS, long=Long("chunk"))[0]
    assert next(iter(found.run["1"].items())) == (f"d{best.index}", best.score)
    assert found.truncated == 0
    assert told == sorted(told) and told[-1] == (6, 6)
    assert rerank_run(collection, long=Long("chunk"), **asked).resumed == 6
    other = rerank_run(collection, long=Long("chunk", 64), **asked)  # passages of another length are another result
    assert other.resumed == 0
    cut = rerank_run(collection, long=Long(), **asked)
    assert (cut.resumed, cut.truncated) == (0, 3)
    with pytest.raises(UsageError, match="a cache holds scores of whole pairs"):
        rerank_run(collection, long=Long("chunk"), cache=tmp_path / "c.sqlite", **asked)


def test_rerank_takes_it_in_one_call():
    assert rerank(QUERY, DOCS, long=Long("chunk"), top_k=1)[0].id == "long"
