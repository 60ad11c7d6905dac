"""Relevance as a probability: the fit, the file with the fit, and the threshold on relevance."""

import json
import math
import os
import shutil

import pytest
from click.testing import CliRunner
from open_files import refuse_files_in_use

np = pytest.importorskip("numpy")

from dearlite import Reranker, rerank  # noqa: E402
from dearlite.cli.main import main  # noqa: E402
from dearlite.errors import InvalidInput, ModelFileError, UsageError  # noqa: E402
from dearlite.export.quality.fit import JudgedScores, expected_calibration_error, fit_logistic, fit_margin, sigmoid  # noqa: E402
from dearlite.models.bundle import Bundle  # noqa: E402
from dearlite.models.bundle_writer import add_members  # noqa: E402
from dearlite.models.calibration import Calibration, read_calibration  # noqa: E402
from dearlite.models.registry import find_model  # noqa: E402
from dearlite.stages import band  # noqa: E402

TOPICS = {
    "who invented the light bulb": "Thomas Edison invented the light bulb in 1879",
    "what is the capital of France": "Paris is the capital of France",
    "how tall is Mount Everest": "Mount Everest is 8,849 metres tall",
    "who wrote Hamlet": "Hamlet was written by William Shakespeare",
}


def judged(scores, relevant):
    return JudgedScores(scores, relevant, np.zeros(len(scores), np.int64))


def test_margin_covers_the_requested_share_of_relevant_documents():
    scores = np.array([9.0, 8, 6, 5, 1, 7, 3, 2])
    relevant = np.array([True, False, True, True, False, False, False, True])
    pairs = JudgedScores(scores, relevant, np.array([0, 0, 0, 0, 0, 1, 1, 1]))
    # cut 2: the scores there are 8 and 3, so the relevant ones lie 0, 2, 3 and 1 below
    assert fit_margin(pairs, cut=2, share=1.0) == 3.0
    assert fit_margin(pairs, cut=2, share=0.6) == 2.0
    assert fit_margin(pairs, cut=10) == 0.0
    assert fit_margin(judged(scores, np.zeros(8, bool))) == 0.0


@pytest.mark.parametrize(
    ("cut", "margin", "depth", "count"),
    [
        (2, 3.5, 5, 3),
        (2, 0.0, 5, 2),
        (2, 100.0, 5, 5),
        (2, 100.0, 4, 4),
        (10, 1.0, 5, 5),
        (1, 1.0, 5, 2),
        (2, 4.0, 5, 4),
    ],
)
def test_band_counts_the_documents_within_the_margin_of_the_cut(cut, margin, depth, count):
    assert band([9, 8, 5, 4, 1], cut, margin, depth) == count


def test_error_is_the_gap_of_each_bin_weighted_by_its_pairs():
    assert expected_calibration_error([0.9, 0.9], np.array([True, False])) == pytest.approx(0.4)
    # bins of 15: 0.1 alone is relevant (gap 0.9), three at 0.5 of which one is (gap 0.5 - 1/3)
    error = expected_calibration_error([0.1, 0.5, 0.5, 0.5], np.array([True, True, False, False]))
    assert error == pytest.approx((0.9 + 3 * (0.5 - 1 / 3)) / 4)
    assert expected_calibration_error([1.0, 0.0], np.array([True, False])) == 0.0


def test_fit_recovers_the_curve_that_the_pairs_were_drawn_from():
    rng = np.random.default_rng(3)
    scores = rng.normal(0, 5, 40_000)
    relevant = rng.random(len(scores)) < sigmoid(0.4 * scores - 1.5)
    scale, bias = fit_logistic(judged(scores, relevant))
    assert scale == pytest.approx(0.4, abs=0.02)
    assert bias == pytest.approx(-1.5, abs=0.06)
    fitted = expected_calibration_error(sigmoid(scale * scores + bias), relevant)
    assert fitted < 0.01
    assert expected_calibration_error(sigmoid(scores), relevant) > 0.1


def test_fit_has_the_least_log_loss():
    """No neighbouring point has a lower loss."""
    rng = np.random.default_rng(1)
    scores = rng.normal(0, 3, 300)
    relevant = rng.random(300) < sigmoid(0.7 * scores - 2)
    positives = relevant.sum()
    target = np.where(relevant, (positives + 1) / (positives + 2), 1 / (300 - positives + 2))

    def loss(scale, bias):
        p = sigmoid(scale * scores + bias)
        return -(target * np.log(p) + (1 - target) * np.log(1 - p)).sum()

    scale, bias = fit_logistic(judged(scores, relevant))
    assert all(loss(scale, bias) <= loss(scale + a, bias + b) for a in (-0.01, 0, 0.01) for b in (-0.01, 0, 0.01))


@pytest.mark.parametrize(
    ("relevant", "message"),
    [
        ([True] * 4, "4 of 4 pairs are relevant"),
        ([False] * 4, "0 of 4"),
        ([True, True, False, False], "higher scores are not"),
    ],
)
def test_pairs_that_no_curve_fits_are_refused(relevant, message):
    with pytest.raises(InvalidInput, match=message):
        fit_logistic(judged(np.array([-2.0, -1, 1, 2]), np.array(relevant)))


def test_separable_pairs_still_have_a_fit():
    scale, bias = fit_logistic(judged(np.array([-5.0, -4, 4, 5]), np.array([False, False, True, True])))
    assert math.isfinite(scale) and math.isfinite(bias)
    assert scale > 0


def test_probability_keeps_the_order_and_never_overflows():
    calibration = Calibration(0.5, -1.0)
    assert calibration(2.0) == 0.5
    assert calibration(-1e9) == 0.0
    assert calibration(1e9) == 1.0


@pytest.mark.parametrize(
    ("record", "message"),
    [(0.5, "its calibration is not an object"), ([], "its calibration is not an object"),
     ({"kind": "isotonic"}, "kind 'isotonic': update"),
     ({"kind": "logistic", "scale": 1.0}, "not a scale above 0 and a bias"),
     ({"kind": "logistic", "scale": -1.0, "bias": 0.0}, "not a scale"),
     ({"kind": "logistic", "scale": 1.0, "bias": 0.0, "margin": -1}, "the margin of its calibration is -1"),
     ({"kind": "logistic", "scale": True, "bias": 0.0}, "not a scale")],
)  # fmt: skip
def test_unknown_calibration_is_refused(record, message):
    with pytest.raises(ModelFileError, match=message):
        read_calibration(record, "m.dear")
    assert read_calibration(None, "m.dear") is None


@pytest.fixture(scope="module")
def plain_path(tmp_path_factory, embedded_path):
    """The embedded model without its calibration."""
    path = tmp_path_factory.mktemp("plain") / "plain.dear"
    shutil.copyfile(embedded_path, path)
    add_members(path, {}, calibration=None)
    return path


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A file of the embedded model, calibrated on four questions by the command, and the command's output."""
    folder = tmp_path_factory.mktemp("split")
    texts = list(TOPICS.values())
    (folder / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": f"q{n}", "text": query}) + "\n" for n, query in enumerate(TOPICS))
    )
    (folder / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(texts))
    )
    (folder / "qrels.tsv").write_text("".join(f"q{n} 0 d{n} 1\n" for n in range(4)))
    (folder / "run.trec").write_text(
        "".join(f"q{n} Q0 d{m} {m + 1} {9 - m} bm25\n" for n in range(4) for m in range(4))
    )
    output = folder / "calibrated.dear"
    result = CliRunner().invoke(
        main, ["models", "calibrate", "minilm-l12", str(folder), "--split", "four questions", "-o", str(output)]
    )
    assert result.exit_code == 0, result.output
    return output, result.stdout


def test_model_that_is_loaded_is_replaced_by_its_calibrated_copy(calibrated, plain_path, tmp_path, monkeypatch, cli):
    """As on Windows, where a file that is mapped cannot be replaced."""
    collection, own = calibrated[0].parent, tmp_path / "own.dear"
    shutil.copyfile(plain_path, own)
    arguments = ["models", "calibrate", own, collection, "--split", "four questions", "-o", own]
    refuse_files_in_use(monkeypatch)
    held = Reranker.load(own)
    code, _, err = cli(*arguments)  # another model of this process holds the file
    assert code == 1 and err.splitlines()[-1] == (
        f"dearlite: cannot write {own}: Access is denied: "
        "a program has the file open (a loaded model, a spreadsheet); close it"
    )
    assert Bundle(own).manifest.calibration is None and os.listdir(tmp_path) == ["own.dear"]
    held.close()
    code, _, err = cli(*arguments)
    assert (code, Bundle(own).manifest.calibration) == (0, Bundle(calibrated[0]).manifest.calibration), err
    assert Reranker.load(own).calibrated
    with pytest.raises(UsageError, match="this model was closed: load it again"):
        held.rerank("a", ["b"])


def test_file_of_a_registered_model_is_not_replaced(calibrated, cli):
    own = find_model("minilm-l12")
    code, _, err = cli("models", "calibrate", "minilm-l12", calibrated[0].parent, "--split", "s", "-o", own)
    assert code == 2 and "would overwrite the input MODEL" in err


def test_closed_bundle_leaves_the_arrays_in_use_their_file(plain_path, tmp_path, monkeypatch):
    path = tmp_path / "m.dear"
    shutil.copyfile(plain_path, path)
    refuse_files_in_use(monkeypatch)
    bundle = Bundle(path)
    tensor = bundle.tensors()["pooler.weight"]
    bundle.close()
    assert tensor.shape == (384, 384) and np.abs(tensor.astype(int)).max() == 127
    with pytest.raises(PermissionError):
        os.replace(plain_path, path)
    del tensor
    path.unlink()


def test_file_carries_its_calibration_and_is_the_same_model(calibrated, plain_path):
    path, output = calibrated
    record = Bundle(path).manifest.calibration
    assert (record["fitted_on"], record["pairs"], record["relevant"]) == ("four questions", 16, 4)
    assert "fitted on 16 pairs, 4 of them relevant" in output
    Bundle(path).verify()
    plain, ours = Reranker.load(plain_path), Reranker.load(path)
    docs = list(TOPICS.values())
    for query in TOPICS:
        a, b = plain.rerank(query, docs), ours.rerank(query, docs)
        assert [hit.score for hit in a] == [hit.score for hit in b]
        assert all(hit.relevance is None for hit in a)
        assert [hit.relevance for hit in b] == pytest.approx(
            [1 / (1 + math.exp(-(record["scale"] * hit.score + record["bias"]))) for hit in b]
        )
    assert not plain.calibrated
    assert ours.calibrated
    assert "calibration" in CliRunner().invoke(main, ["models", "show", str(path)]).stdout


def test_relevance_of_a_cascade_is_that_of_the_last_stage_with_a_calibration(calibrated, plain_path):
    path, _ = calibrated
    docs = list(TOPICS.values())
    both = rerank("who wrote Hamlet", docs, model=["minilm-l12", (path, 2)])
    first, last = (rerank("who wrote Hamlet", docs, model=model) for model in ("minilm-l12", path))
    expected = {hit.index: hit.relevance for hit in first} | {hit.index: hit.relevance for hit in last[:2]}
    assert {hit.index: hit.relevance for hit in both} == expected
    ranking = rerank("who wrote Hamlet", docs, model=[plain_path, (path, 2)])
    assert [hit.relevance is None for hit in ranking] == [False, False, True, True]
    assert len(ranking.above(0.0)) == 2


def test_threshold_keeps_likely_documents(calibrated, plain_path):
    path, _ = calibrated
    ranking = rerank("who wrote Hamlet", list(TOPICS.values()), model=path)
    kept = ranking.above(0.5)
    assert [hit.text for hit in kept] == ["Hamlet was written by William Shakespeare"]
    assert kept.total == 4
    assert len(ranking.above(0)) == 4
    for wrong in (-0.1, 1.1, True):
        with pytest.raises(UsageError, match="min_relevance is"):
            ranking.above(wrong)
    with pytest.raises(UsageError, match="has no calibration"):
        rerank("who wrote Hamlet", list(TOPICS.values()), model=plain_path).above(0.5)
    assert len(rerank("q", [], model=path).above(0.5)) == 0


def test_relevance_of_the_embedded_model_separates_an_answer_from_other_documents():
    ranking = rerank("who wrote Hamlet", list(TOPICS.values()))
    assert [hit.text for hit in ranking.above(0.5)] == ["Hamlet was written by William Shakespeare"]
    assert not rerank("how do plumbers unclog a sink", list(TOPICS.values())).above(0.5)


@pytest.fixture
def docs(tmp_path):
    path = tmp_path / "docs.jsonl"
    path.write_text("".join(json.dumps({"id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(TOPICS.values())))
    return str(path)


def test_command_drops_documents_and_reports_their_number(calibrated, docs):
    arguments = [docs, "-m", str(calibrated[0]), "--min-relevance", "0.5"]
    result = CliRunner().invoke(main, ["rerank", "-q", "who wrote Hamlet", *arguments])
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["d3"]
    assert "3 of 4 documents have a relevance below 0.5\n" in result.stderr
    nothing = CliRunner().invoke(main, ["rerank", "-q", "how do plumbers unclog a sink", *arguments])
    assert nothing.exit_code == 0
    assert nothing.stdout == ""
    assert "below 0.5: no document answers the query" in nothing.stderr


def test_command_refuses_an_impossible_threshold(docs, plain_path):
    for options, message in (
        (["--min-relevance", "1.5"], "--min-relevance 1.5: it is a probability from 0 to 1"),
        (["--min-relevance", "0.5", "-m", str(plain_path)], "carries no calibration"),
    ):
        result = CliRunner().invoke(main, ["rerank", "-q", "q", docs, *options])
        assert isinstance(result.exception, UsageError)
        assert message in str(result.exception)


def test_calibration_needs_a_pointwise_model_and_judgements(tmp_path):
    for arguments, message in (
        (["nobody", str(tmp_path)], "no model 'nobody'"),
        (["minilm-l12", str(tmp_path)], "queries"),
    ):
        result = CliRunner().invoke(
            main, ["models", "calibrate", *arguments, "--split", "s", "-o", str(tmp_path / "x.dear")]
        )
        assert isinstance(result.exception, UsageError)
        assert message in str(result.exception)
    assert find_model("minilm-l12").is_file()
    assert not (tmp_path / "x.dear").exists()
