"""BM25 of a list: its scores by the formula, the order of ties, words of scripts without blanks, languages."""

import math
import pickle
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("bm25s", reason="bm25s is not installed (extra first-stage)")

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
