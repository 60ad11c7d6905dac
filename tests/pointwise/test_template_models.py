"""A model with a template prompt through the API and the command line: instructions, probability, long texts."""

import json
import math
import pickle

import pytest

pytest.importorskip("onnx", reason="onnx is not installed (extra export)")

from tiny_template import write_template_bundle

from dearlite import Long, Reranker, make_collection, rerank, rerank_run
from dearlite.errors import InvalidInput, ModelFileError, UsageError
from dearlite.models.bundle import Bundle
from dearlite.models.bundle_writer import add_members
from dearlite.ranking import hit_fields
from dearlite.templates.families import FAMILIES
from dearlite.templates.template import Template

QUERY, DOCS = "who invented the light bulb", ["Edison's bulb, 1879", "Coffee is good for diet", "tea " * 400]


def template_of(name):
    family = FAMILIES[name]
    return Template(parts=family.parts, instructed=family.instructed, instruction=family.instruction)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("template")
    activation = {"scale": 0.2, "bias": -0.5}
    return write_template_bundle(folder / "tiny.dear", template_of("qwen3-reranker"), activation=activation)


@pytest.fixture(scope="module")
def reranker(path):
    return Reranker.load(path, threads=1)


def test_the_manifest_has_schema_2_and_the_words(path):
    manifest = json.loads(Bundle(path).read("manifest.json"))
    assert manifest["schema"] == 2
    assert manifest["template"]["parts"] == list(FAMILIES["qwen3-reranker"].parts)
    assert Bundle(path).manifest.template == template_of("qwen3-reranker")


def test_a_title_stands_before_its_text(reranker):
    titled = reranker.score([(QUERY, {"title": "Bulb", "text": "Edison, 1879"}), (QUERY, "Bulb Edison, 1879")])
    assert titled[0] == titled[1]


def test_relevance_is_the_makers_probability_and_says_so(reranker):
    ranking = reranker.rerank(QUERY, DOCS)
    assert reranker.calibrated
    for hit in ranking:
        assert hit.relevance == pytest.approx(1 / (1 + math.exp(-(0.2 * hit.score - 0.5))))
        assert hit.relevance_from == "activation"
    assert {row["relevance_from"] for row in ranking.to_dicts()} == {"activation"}
    assert len(ranking.above(0.0)) == 3


def test_a_calibration_takes_the_place_of_the_makers_probability(path, tmp_path):
    fitted = tmp_path / "fitted.dear"
    fitted.write_bytes(path.read_bytes())
    add_members(fitted, {}, calibration={"kind": "logistic", "scale": 1.0, "bias": 0.25})
    (hit,) = Reranker.load(fitted, threads=1).rerank(QUERY, DOCS[:1])
    assert hit.relevance == pytest.approx(1 / (1 + math.exp(-(hit.score + 0.25))))
    assert hit.relevance_from == "calibration"
    assert "relevance_from" not in hit_fields(hit)


def test_an_instruction_changes_scores_and_identity(path, reranker):
    other = Reranker.load(path, threads=1, instruction="  Find inventors ")
    assert other.identity() == reranker.identity() | {"instruction": "Find inventors"}
    assert reranker.identity()["instruction"] == FAMILIES["qwen3-reranker"].instruction
    assert other.score([(QUERY, DOCS[0])]) != reranker.score([(QUERY, DOCS[0])])
    (hit,) = rerank(QUERY, DOCS[:1], model=path, instruction="Find inventors")
    assert [hit.score] == other.score([(QUERY, DOCS[0])])
    assert pickle.loads(pickle.dumps(other)).identity() == other.identity()


def test_a_journal_of_another_instruction_is_not_used(path, tmp_path):
    source = make_collection({"q": QUERY}, {"a": DOCS[0]}, {"q": {"a": 1.0}})
    scores = [
        rerank_run(source, model=path, journal=tmp_path / "j", instruction=text).run["q"]["a"] for text in (None, "x")
    ]
    assert scores[0] != scores[1]
    again = rerank_run(source, model=path, journal=tmp_path / "j", instruction="x")
    assert (again.resumed, again.run["q"]["a"]) == (1, scores[1])
    with pytest.raises(UsageError, match="load the Reranker with it"):
        rerank_run(source, model=Reranker.load(path, threads=1), instruction="x")


def test_an_instruction_in_a_cascade_goes_to_the_models_that_take_one(path, tiny_bundle):
    cascade = Reranker.load([tiny_bundle, (path, 2)], threads=1, instruction="Find inventors")
    assert cascade.identity()["instruction"] == "- > Find inventors"
    assert len(cascade.rerank(QUERY, DOCS)) == 3
    assert pickle.loads(pickle.dumps(cascade)).identity() == cascade.identity()


def test_another_instruction_shares_the_loaded_model(path):
    reranker, expected = Reranker.load(path, threads=1), Reranker.load(path, threads=1, instruction="Find inventors")
    other = reranker.with_instruction(" Find inventors ")
    assert other._backend is reranker._backend
    assert other.identity() == expected.identity() != reranker.identity()
    pair = [(QUERY, DOCS[0])]
    assert other.score(pair) == expected.score(pair) != reranker.score(pair)
    unpickled = pickle.loads(pickle.dumps(other))  # not the first of those that share the model
    assert unpickled.identity() == other.identity()
    assert unpickled._backend is other._backend
    reranker.close()
    with pytest.raises(UsageError, match="was closed"):
        reranker.with_instruction("Find tea")
    assert other.score(pair) == expected.score(pair)


def test_another_instruction_of_a_cascade_goes_to_the_models_that_take_one(path, tiny_bundle):
    cascade = Reranker.load([tiny_bundle, (path, 2)], threads=1)
    expected = Reranker.load([tiny_bundle, (path, 2)], threads=1, instruction="Find inventors")
    with cascade.with_instruction("Find inventors") as other:
        assert other.identity() == expected.identity() != cascade.identity()
        assert other._stages[1].loaded._backend is cascade._stages[1].loaded._backend
        assert [hit.score for hit in other.rerank(QUERY, DOCS)] == [hit.score for hit in expected.rerank(QUERY, DOCS)]
        assert pickle.loads(pickle.dumps(other)).identity() == other.identity()
    assert len(cascade.rerank(QUERY, DOCS)) == 3  # its models are open


def test_another_instruction_is_refused_where_none_is_read_or_it_is_too_long(path, tiny_bundle):
    for model in (tiny_bundle, [tiny_bundle, (tiny_bundle, 2)]):
        with pytest.raises(UsageError, match=r"takes no instruction: leave it out"):
            Reranker.load(model, threads=1).with_instruction("x")
    for load in (Reranker.load(path, threads=1).with_instruction, lambda text: Reranker.load(path, instruction=text)):
        with pytest.raises(UsageError, match=r"of the 512 tokens that the model reads, .*: shorten the instruction"):
            load("tea " * 600)
        with pytest.raises(UsageError, match="it must be a text"):
            load(" ")


@pytest.mark.parametrize("value", ["", "  ", 3, ["x"]])
def test_an_instruction_that_is_no_text_is_refused(path, value):
    with pytest.raises(UsageError, match=r"the instruction is .*: it must be a text, or be left out"):
        Reranker.load(path, instruction=value)


def test_a_model_that_takes_no_instruction_refuses_one(tiny_bundle, tmp_path, cli):
    plain = write_template_bundle(tmp_path / "plain.dear", template_of("bge-v2-gemma"))
    for model in (tiny_bundle, plain, [tiny_bundle, (plain, 1)]):
        with pytest.raises(UsageError, match="no instruction: leave it out"):
            Reranker.load(model, instruction="x")
    docs = tmp_path / "d.txt"
    docs.write_text("tea\n")
    code, out, err = cli("rerank", "-q", "x", docs, "-m", tiny_bundle, "--instruction", "x")
    assert (code, out) == (2, "")
    assert err.startswith("dearlite: tiny takes no instruction: leave it out") and err.count("\n") == 1


def test_a_query_that_fills_the_window_is_refused(reranker):
    with pytest.raises(InvalidInput, match=r"take \d+ of the 512 tokens .* no room for a document: shorten the query"):
        reranker.rerank("who invented it " * 400, DOCS[:1])


def test_a_long_document_is_cut_or_read_in_passages(reranker):
    (hit,) = reranker.rerank(QUERY, DOCS[2:])
    assert (hit.truncated, hit.tokens_used) == (True, 512)
    (hit,) = reranker.rerank(QUERY, DOCS[2:], long=Long("chunk", passage_tokens=64))
    assert not hit.truncated and len(hit.passages) == 1


def test_the_command_line_takes_the_instruction_and_shows_the_words(path, tmp_path, cli):
    docs = tmp_path / "d.jsonl"
    docs.write_text('{"text": "Edison"}\n')
    code, out, _ = cli("rerank", "-q", QUERY, docs, "-m", path, "--format", "jsonl", "--instruction", "Find inventors")
    row = json.loads(out)
    assert code == 0
    expected = Reranker.load(path, threads=1, instruction="Find inventors").score([(QUERY, "Edison")])
    assert row["score"] == pytest.approx(expected[0])
    assert row["relevance_from"] == "activation"
    code, out, _ = cli("models", "show", path)
    assert code == 0
    assert "<Instruct>: {instruction}" in out
    assert "the makers' own probability, sigmoid(0.2 x score -0.5)" in out


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"activation": {"scale": 0, "bias": 0}}, "its activation is not a scale above 0"),
        ({"activation": {"scale": 1}}, "its activation is not a scale and a bias"),
        ({"max_tokens": 40}, "leaves no room beside the"),
    ],
)
def test_a_damaged_fact_is_refused(path, tmp_path, facts, message):
    damaged = tmp_path / "damaged.dear"
    damaged.write_bytes(path.read_bytes())
    add_members(damaged, {}, **facts)
    with pytest.raises(ModelFileError, match=message):
        Reranker.load(damaged)


def test_an_instruction_is_valid_text(reranker):
    """JSON may hold half a surrogate pair, which no tokenizer accepts; so may an argument of the command line."""
    other, same = reranker.with_instruction("find \ud800 bulbs"), reranker.with_instruction("find \ufffd bulbs")
    assert [hit.score for hit in other.rerank(QUERY, DOCS)] == [hit.score for hit in same.rerank(QUERY, DOCS)]
    with pytest.raises(UsageError, match="the instruction is None: it must be a text"):
        reranker.with_instruction(None)
