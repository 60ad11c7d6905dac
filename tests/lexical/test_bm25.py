"""BM25 of a list: its scores by the formula, the order of ties, words of scripts without blanks, languages."""

import math
import pickle
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("bm25s", reason="bm25s is not installed (extra first-stage)")

import bm25s

from dearlite import Corpus, InvalidInput, Reranker, UsageError
from dearlite.documents import Document
from dearlite.lexical.bm25 import Bm25, Bm25Index
from dearlite.lexical.languages import check_language, words_of

DOCS = ["Coffee is good", "Edison's bulbs, 1879", "Rain on bulbs and lights", "x y", "Tea is good"]


def reference(texts, query, k1=0.9, b=0.4):
    """Lucene's BM25 by its formula, without stems and stop words."""
    documents = [Counter(re.findall(r"\w\w+", text.lower())) for text in texts]
    lengths = [sum(words.values()) for words in documents]
    mean = sum(lengths) / len(lengths)
    scores = []
    for words, length in zip(documents, lengths, strict=True):
        score = 0.0
        for word in re.findall(r"\w\w+", query.lower()):
            count = sum(word in others for others in documents)
            if words[word]:
                idf = math.log(1 + (len(texts) - count + 0.5) / (count + 0.5))
                score += idf * words[word] / (words[word] + k1 * (1 - b + b * length / mean))
        scores.append(score)
    return scores


WORDS = st.lists(st.sampled_from(["aa", "bb", "cc", "dd", "e"]), min_size=1, max_size=6).map(" ".join)


@given(st.lists(WORDS, min_size=1), WORDS)
def test_scores_are_those_of_the_formula(texts, query):
    index = Bm25Index([Document(text) for text in texts], Bm25(language="none"))
    assert index.scores(query) == pytest.approx(reference(texts, query), abs=1e-5)


SENTENCES = st.lists(
    st.sampled_from(
        ["the", "of", "rain", "rains", "raining", "bulb", "bulbs", "x", "Tea", "été", "東京", "42", "?", "\n"]
    ),
    min_size=1,
    max_size=8,
).map(" ".join)


@given(st.lists(SENTENCES.filter(str.strip), min_size=1, max_size=12), SENTENCES.filter(str.strip))
def test_a_ranking_is_a_permutation_by_the_scores_of_bm25s_with_ties_by_position(texts, query):
    import Stemmer

    ranking = Reranker.load("bm25").rerank(query, Corpus(texts))
    options = {"stopwords": "en", "stemmer": Stemmer.Stemmer("english"), "show_progress": False}
    tokens = bm25s.tokenize([" ".join(words_of(text.lower())) for text in texts], token_pattern=r"\S+", **options)
    scores = np.zeros(len(texts))
    if any(tokens.ids):
        library = bm25s.BM25(k1=0.9, b=0.4, method="lucene")
        library.index(tokens, show_progress=False)
        words = bm25s.tokenize(" ".join(words_of(query.lower())), token_pattern=r"\S+", return_ids=False, **options)[0]
        if known := [word for word in words if word in tokens.vocab]:
            scores = library.get_scores(known)
    assert sorted(hit.index for hit in ranking) == list(range(len(texts)))
    assert [hit.index for hit in ranking] == sorted(range(len(texts)), key=lambda index: -scores[index])
    assert [hit.score for hit in ranking] == [pytest.approx(scores[hit.index], abs=1e-6) for hit in ranking]
    assert [hit.rank for hit in ranking] == list(range(1, len(texts) + 1))


@pytest.mark.parametrize("query", ["the of and", "?!", "\u200bx y", "pears"])
@pytest.mark.parametrize("texts", [["apples"], ["apples"] * 3, ["the of", "?", "x"]])
def test_a_query_without_a_word_of_a_document_leaves_the_order(texts, query):
    ranking = Reranker.load("bm25").rerank(query, Corpus(texts))
    assert [(hit.index, hit.score) for hit in ranking] == [(index, 0.0) for index in range(len(texts))]


def test_a_corpus_may_be_empty_and_its_documents_may_have_one_id(tiny_bundle):
    reranker = Reranker.load([("bm25", 50), tiny_bundle])
    assert len(reranker.rerank("rain", Corpus([]))) == len(reranker.rerank("rain", [])) == 0
    same = Corpus([{"id": "a", "text": "tea"}, {"id": "a", "text": "rain"}])
    ranking = reranker.rerank("rain", same)  # fewer documents than the depth
    assert sorted((hit.id, hit.index) for hit in ranking) == [("a", 0), ("a", 1)]
    assert {hit.index: hit.stages[0].rank for hit in ranking} == {1: 1, 0: 2}


def test_threads_share_a_corpus_which_is_indexed_once(monkeypatch):
    builds, build = [], Bm25Index.__init__
    monkeypatch.setattr(Bm25Index, "__init__", lambda *args, **options: (builds.append(1), build(*args, **options))[1])
    texts = [f"word{number % 97} rain{number} text{number % 13}" for number in range(2000)]
    corpus, reranker = Corpus(texts), Reranker.load("bm25")
    queries = [f"word{number} texts{number % 13} raining" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        rankings = list(pool.map(lambda query: list(reranker.rerank(query, corpus, top_k=9)), queries))
    assert len(builds) == 1
    assert rankings == [list(reranker.rerank(query, corpus, top_k=9)) for query in queries]


def test_documents_without_a_word_of_the_query_are_last_in_the_callers_order():
    ranking = Reranker.load("bm25").rerank("bulbs at night, bulbs", DOCS)
    assert [hit.index for hit in ranking] == [1, 2, 0, 3, 4]
    assert [hit.score for hit in ranking][2:] == [0, 0, 0]
    assert ranking.complete and ranking.unscored == 0
    assert [hit.index for hit in Reranker.load("bm25").rerank("nothing of it", DOCS)] == [0, 1, 2, 3, 4]
    assert [hit.index for hit in Reranker.load("bm25").rerank("?!", DOCS, top_k=2)] == [0, 1]


def test_ties_stay_in_the_callers_order():
    ranking = Reranker.load("bm25").rerank("rain", ["Tea", *["Rain falls"] * 500, "Rain"])
    assert [hit.index for hit in ranking] == [501, *range(1, 501), 0]


def test_forms_of_a_word_are_one_in_the_language():
    hits = Reranker.load("bm25", language="de").rerank("Häusern", ["Die Häuser der Stadt", "Der Baum", "Ein Haus"])
    assert [(hit.index, hit.score > 0) for hit in hits] == [(2, True), (0, True), (1, False)]
    assert Reranker.load("bm25", language="german").identity() == Reranker.load("bm25", language="DE").identity()
    assert Reranker.load("bm25", language="none").rerank("house", ["houses", "house"])[0].index == 1
    assert Reranker.load("bm25").rerank("houses", ["tea", "house"])[0].index == 1
    assert Reranker.load("bm25").identity()["bm25"] == "lucene k1 0.9 b 0.4 english"


def test_words_of_scripts_without_blanks_are_characters_and_pairs():
    assert words_of("ab c 東京都 x 猫dd") == ["ab", "東", "京", "都", "東京", "京都", "猫", "dd"]
    assert Reranker.load("bm25", language="none").rerank("東京の天気", ["大阪の市場", "東京は晴れ", "猫"])[0].index == 1


@given(st.text())
def test_words_of_any_text_have_no_blank(text):
    assert not any(word.isspace() or not word for word in words_of(text.lower()))


@pytest.mark.parametrize(
    ("language", "message"),
    [
        ("klingon", r"no stemmer for the language 'klingon' .*: none takes words as they are"),
        ("germn", r"no stemmer for the language 'germn' \(nearest: german"),
        ("", "no stemmer for the language ''"),
        (7, "the language is 7: give its name"),
    ],
)
def test_a_language_that_the_stemmer_does_not_know(language, message):
    for load in (check_language, lambda language: Reranker.load("bm25", language=language)):
        with pytest.raises(UsageError, match=message):
            load(language)


def test_a_corpus_is_read_and_indexed_once(monkeypatch):
    builds, build = [], Bm25Index.__init__

    def counted(self, *args, **options):
        builds.append(1)
        build(self, *args, **options)

    monkeypatch.setattr(Bm25Index, "__init__", counted)
    corpus, reranker = Corpus(DOCS), Reranker.load("bm25")
    for query in ("bulbs", "coffee", "tea"):
        assert list(reranker.rerank(query, corpus)) == list(Reranker.load("bm25").rerank(query, DOCS))
    assert len(builds) == 4  # one for the corpus, one for each list
    documents = [Document(text) for text in DOCS]
    reranker.rerank_many([(query, documents) for query in ("rain", "lights")])
    assert len(builds) == 5
    assert len(pickle.loads(pickle.dumps(corpus))) == len(DOCS)
    with pytest.raises(InvalidInput, match="document 1 is null"):
        Corpus(["a", None])
    assert not hasattr(corpus, "append")
    assert (repr(corpus), repr(Corpus(["a"]))) == (f"<Corpus: {len(DOCS)} documents>", "<Corpus: 1 document>")


def test_a_title_is_searched():
    ranking = Reranker.load("bm25").rerank("bulb", [{"text": "about tea"}, {"title": "Bulbs", "text": "of Edison"}])
    assert ranking[0].index == 1 and ranking[0].title == "Bulbs"


def test_scores_are_finite_and_not_negative():
    index = Bm25Index([Document("rain " * 1000), Document("rain")], Bm25())
    scores = index.scores("rain rain")
    assert np.isfinite(scores).all() and (scores > 0).all()
