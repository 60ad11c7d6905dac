"""Published scores: the table of them, and `dearlite models verify` with the embedded model and with small ones."""

from types import SimpleNamespace

import pytest

pytest.importorskip("onnx", reason="the extra `export` is not installed")

from dearlite import Reranker
from dearlite.errors import ModelFileError, UsageError
from dearlite.export import golden, verify
from dearlite.export.decoders import published_scores
from dearlite.export.golden import GoldenSet, StatedError
from dearlite.models.registry import load_registry

# shared facts, section 3.1: sentence-transformers' test of ms-marco-MiniLM-L12-v2, and the query and documents
QUERY = "Which planet is known as the Red Planet?"
PUBLISHED = {"Venus": -7.15625, "Mars": 9.5, "Jupiter": 5.71875, "Saturn": 6.84375}


def entry_of_tiny(home, **changes):
    values = {
        "kind": '"pointwise"',
        "repository": '"x/y"',
        "architecture": '"bert"',
        "prompt": '"plain"',
        "pooling": '"first-token"',
        "max_tokens": 64,
        "licence": '"MIT"',
        "size_mb": 1,
        "memory_mb": 2,
        "golden": '"tiny-scores"',
    }
    lines = [f"{key} = {value}" for key, value in (values | changes).items()]
    home.mkdir(exist_ok=True)
    (home / "models.toml").write_text("[tiny]\n" + "\n".join(lines), encoding="utf-8")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DEARLITE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("name", golden.golden_names())
def test_each_set_has_a_value_for_each_document(name):
    for published in golden.golden_sets(name):
        assert len(published.values) == len(published.documents) > 0
        assert published.query and published.source
        assert published.tolerance > 0
        assert not published.probability or all(0 <= value <= 1 for value in published.values)


def test_each_model_names_scores_that_are_there(home):
    named = {entry.golden for entry in load_registry().values() if entry.golden}
    assert named <= {*golden.golden_names(), *published_scores.SCORES}
    assert {"bge-reranker-large", "zerank-2", "ettin-reranker-32m-v1", "ms-marco-MiniLM-L12-v2"} < named


def test_embedded_model_is_as_far_from_the_published_scores_as_it_says(cli, home):
    code, out, err = cli("models", "verify", "minilm-l12")
    assert (code, err) == (0, "")
    rows = {row[0].rstrip(","): row for row in map(str.split, out.splitlines()) if row}
    scores = Reranker.load("minilm-l12").score([(QUERY, text) for text in golden.golden_sets(_L12)[0].documents])
    for (name, published), score in zip(PUBLISHED.items(), scores, strict=True):
        shown, own, difference, allowed = map(float, rows[name][-4:])
        assert (shown, own) == (pytest.approx(published, abs=5e-4), pytest.approx(score, abs=5e-4))
        assert difference == pytest.approx(score - published, abs=6e-4)
        assert abs(difference) < allowed == 0.9
    assert "is the known one: largest difference 0.864, up to 0.9" in out
    assert "the publisher's int8 weights, their limit of pairs and int8 activations together" in out
    assert max(len(line.rstrip()) for line in out.splitlines()[1:-1]) <= 80


_L12 = "ms-marco-MiniLM-L12-v2"


def test_difference_that_nothing_states_is_refused(cli, home, monkeypatch):
    monkeypatch.setattr(golden, "stated_error", lambda path, entry: StatedError(0.178, "its quality card"))
    code, out, err = cli("models", "verify", "minilm-l12")
    assert (code, err.count("\n")) == (1, 1)
    assert "does not give the published scores 'ms-marco-MiniLM-L12-v2': -8.020 for \"Venus" in err
    assert "allowed 0.428 (for the file's weights: 0.178 by its quality card)" in err
    assert "-0.864" in out
    assert verify("minilm-l12").reproduced is False


@pytest.fixture
def tiny(tiny_bundle, home, monkeypatch):
    """verify(tiny.dear) against values that lie `shift` from its own."""
    documents = ("a cat", "a dog")
    scores = Reranker.load(tiny_bundle, device="cpu").score([("cat", text) for text in documents])

    def compare(shift, *, probability=False, tolerance=0.01, card=0.0):
        values = [golden._PLAIN(score) if probability else score for score in scores]
        published = GoldenSet(
            query="cat",
            documents=documents,
            values=tuple(value + shift for value in values),
            probability=probability,
            tolerance=tolerance,
            source="here",
        )
        monkeypatch.setattr(golden, "golden_sets", lambda name: (published,))
        monkeypatch.setattr("dearlite.export.verification.golden_sets", lambda name: (published,))
        monkeypatch.setattr("dearlite.export.verification.golden_names", lambda: ("tiny-scores",))
        monkeypatch.setattr(golden, "stated_error", lambda path, entry: StatedError(card, "its quality card"))
        return verify(tiny_bundle)

    entry_of_tiny(home)
    return compare


@pytest.mark.parametrize(("shift", "card", "reproduced"), [(0.009, 0, True), (0.02, 0, False), (0.02, 0.015, True)])
def test_scores_may_differ_by_the_source_and_by_the_card(tiny, shift, card, reproduced):
    outcome = tiny(shift, card=card)
    assert outcome.reproduced is reproduced
    assert [score.difference for score in outcome.scores] == pytest.approx([-shift, -shift])
    assert [score.allowed for score in outcome.scores] == pytest.approx([0.01 + card] * 2)


def test_probabilities_are_compared_as_such(tiny):
    outcome = tiny(0.005, probability=True, card=0.1)
    assert outcome.reproduced is True
    for score in outcome.scores:
        assert 0 < score.own < 1
        # an error of 0.1 in the logit is one of p (1 - p) x 0.1 in the probability
        assert score.allowed == pytest.approx(0.01 + score.own * (1 - score.own) * 0.1, abs=1e-3)
    assert tiny(0.05, probability=True).reproduced is False


def test_name_that_no_scores_have_is_refused_with_those_that_they_have(cli, tiny_bundle, home):
    entry_of_tiny(home, golden='"nothing"')
    code, _, err = cli("models", "verify", tiny_bundle)
    assert (code, err.count("\n")) == (2, 1)
    assert "no published scores are called 'nothing'" in err
    assert "8b-ce" in err
    assert "bge-reranker-base" in err
    with pytest.raises(UsageError, match="no published scores are called 'x'"):
        golden.golden_sets("x")


def test_model_with_a_template_is_no_reader_of_pairs():
    manifest = SimpleNamespace(prompt="qwen3-reranker", pooling="last-token", builds=())
    with pytest.raises(ModelFileError, match="reads the prompt qwen3-reranker, and the published scores '8b-ce' are"):
        published_scores.readings(SimpleNamespace(manifest=manifest, path="m.dear"), "8b-ce")
