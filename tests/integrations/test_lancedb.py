"""LanceDB: vector, full-text and hybrid search of a table on disk."""

import pytest

lancedb = pytest.importorskip("lancedb", reason="lancedb is not installed")

import pyarrow as pa  # noqa: E402
from integrations.conftest import ORDER, QUERY, TEXTS  # noqa: E402
from lancedb.index import FTS  # noqa: E402

from dearlite import UsageError  # noqa: E402
from dearlite.integrations.lancedb import DearliteReranker  # noqa: E402

VECTOR = [0.0, 1.0]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rows = [{"id": index, "text": text, "vector": [float(index), 1.0]} for index, text in enumerate(TEXTS)]
    table = lancedb.connect(tmp_path_factory.mktemp("lance")).create_table("documents", rows)
    table.create_index("text", config=FTS())
    return table


@pytest.fixture(scope="module")
def own(reranker):
    return DearliteReranker(reranker)


def ids(result):
    return result["id"].to_pylist()


def test_a_vector_search(table, own, relevance):
    result = table.search(VECTOR).limit(4).rerank(own, query_string=QUERY).to_arrow()
    assert ids(result) == ORDER
    assert result.schema.field("_relevance_score").type == pa.float32()
    expected = [relevance[TEXTS[index]] for index in ORDER]
    assert result["_relevance_score"].to_pylist() == pytest.approx(expected, abs=1e-7)
    assert "_distance" not in result.column_names


def test_a_full_text_search(table, own):
    result = table.search("light coffee", query_type="fts").limit(4).rerank(own).to_arrow()
    assert sorted(ids(result)) == [0, 1, 2, 3]
    scores = result["_relevance_score"].to_pylist()
    assert scores == sorted(scores, reverse=True)
    assert "_score" not in result.column_names


@pytest.mark.parametrize("return_score", ["relevance", "all"])
def test_a_hybrid_search_has_each_row_once(table, reranker, return_score):
    own = DearliteReranker(reranker, return_score=return_score)
    search = table.search(query_type="hybrid").vector(VECTOR).text("light bulb").limit(4)
    result = search.rerank(own).to_arrow()
    assert sorted(ids(result)) == [0, 1, 2, 3]
    assert ids(result)[0] == 1
    assert result["vector"].type == table.schema.field("vector").type
    scored = {"_score", "_distance"} & set(result.column_names)
    assert scored == (set() if return_score == "relevance" else {"_score", "_distance"})
    if return_score == "all":
        of_ids = dict(zip(ids(result), result["_score"].to_pylist(), strict=True))
        assert {index for index, score in of_ids.items() if score is not None} == {1, 2}, "those with a word"
        assert None not in result["_distance"].to_pylist()


def test_searches_without_rows(table, own):
    nothing = table.search("zebra", query_type="fts").limit(4).rerank(own).to_arrow()
    assert (len(nothing), nothing.schema.field("_relevance_score").type) == (0, pa.float32())
    hybrid = table.search(query_type="hybrid").vector(VECTOR).text("zebra").limit(4).rerank(own).to_arrow()
    assert sorted(ids(hybrid)) == [0, 1, 2, 3]
    filtered = table.search(query_type="hybrid").vector(VECTOR).text("light").where("id > 9").rerank(own).to_arrow()
    assert len(filtered) == 0


def test_several_vectors(table, own):
    results = [table.search(vector).limit(3).with_row_id(True).to_arrow() for vector in (VECTOR, [3.0, 1.0])]
    assert ids(own.rerank_multivector(results, QUERY, deduplicate=True)) == ORDER


def test_a_search_that_lacks_text_or_query_is_refused(table, reranker):
    with pytest.raises(UsageError, match="have no column 'body' but id, text, vector, _distance: name the text's with"):
        table.search(VECTOR).rerank(DearliteReranker(reranker, column="body"), query_string=QUERY).to_arrow()
    with pytest.raises(UsageError, match="has a vector and no text"):
        DearliteReranker(reranker).rerank_vector(None, pa.table({"text": ["a"]}))
