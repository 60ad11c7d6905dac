"""Measures against trec_eval itself (pytrec_eval, used directly), and what is counted how."""

from pathlib import Path

import noveleval
import pytest

from dearlite.errors import UsageError
from dearlite.files.trec import read_qrels, read_run
from dearlite.offline.evaluation.measures import DEFAULT_MEASURES, mean, measure_run, parse_measures

pytrec_eval = pytest.importorskip("pytrec_eval")
SHARED = Path(__file__).parents[3] / "shared" / "data"
# The first stage's nDCG@10 as each collection's own page states it, and the run that it is of.
FIRST_STAGE = {
    "noveleval/run_bm25.trec": 0.5577,
    "noveleval/run.trec": 0.6503,
    "nq_utd/run.trec": 0.8008,
    "adi/run.trec": 0.4802,
    "beir_scifact/run.trec": 0.6762,
    "beir_nfcorpus/run.trec": 0.3181,
    "dl19/run.trec": 0.5058,
}
TREC_NAMES = {"nDCG@1": "ndcg_cut_1", "nDCG@5": "ndcg_cut_5", "nDCG@10": "ndcg_cut_10", "AP": "map"} | {
    "R@10": "recall_10",
    "R@100": "recall_100",
}


def files(name):
    folder = noveleval.DATA if name == "noveleval/run_bm25.trec" else SHARED / Path(name).parent
    if not folder.exists():
        pytest.skip(f"{Path(name).parent} is not on this machine: it is no part of the project")
    return read_run(folder / Path(name).name)[0], read_qrels(folder / "qrels.tsv")


def trec_eval(run, qrels):
    """Each measure by pytrec_eval, queries without documents as zeros; RR@10 from the first ten alone."""
    measures = {"ndcg_cut.1,5,10", "map", "recall.10,100", "recip_rank"}
    reference = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    table = {
        ours: {q: reference[q][theirs] if q in reference else 0.0 for q in qrels} for ours, theirs in TREC_NAMES.items()
    }
    reciprocal = {q: reference[q]["recip_rank"] if q in reference else 0.0 for q in qrels}
    return table | {"RR@10": {q: value if value > 0.0999 else 0.0 for q, value in reciprocal.items()}}


@pytest.mark.parametrize("name", FIRST_STAGE)
@pytest.mark.parametrize("ties", ["rank", "trec_eval"])
def test_every_query_is_as_trec_eval_has_it(name, ties):
    run, qrels = files(name)
    # by rank: the scores replaced by the order that the file's lines have; as trec_eval: the scores as they are
    lines = {q: {d: float(len(ids) - position) for position, d in enumerate(ids)} for q, ids in run.items()}
    expected = trec_eval(lines if ties == "rank" else run, qrels)
    measured = measure_run(run, qrels, DEFAULT_MEASURES, ties=ties)
    assert set(measured) == set(expected) == set(DEFAULT_MEASURES)
    for measure, values in measured.items():
        assert values == pytest.approx(expected[measure], abs=1e-6), measure


@pytest.mark.parametrize(("name", "figure"), FIRST_STAGE.items())
def test_first_stages_are_as_published(name, figure):
    run, qrels = files(name)
    assert round(mean(measure_run(run, qrels, ["nDCG@10"])["nDCG@10"]), 4) == figure


def test_equal_scores_by_rank_or_by_id():
    run, qrels = {"q": {"a": 1.0, "b": 1.0}}, {"q": {"a": 1}}
    assert measure_run(run, qrels, ["RR"])["RR"] == {"q": 1.0}
    assert measure_run(run, qrels, ["RR"], ties="trec_eval")["RR"] == {"q": 0.5}  # falling id: b stands first


def test_queries_that_a_run_lacks_count_as_zero():
    qrels = {"1": {"a": 1}, "2": {"a": 1}, "3": {"a": 1}, "4": {"a": 0}}
    measured = measure_run({"1": {"a": 1.0}, "3": {}, "9": {"a": 1.0}}, qrels, ["nDCG@10", "AP"])
    for values in measured.values():
        assert values == {"1": 1.0, "2": 0.0, "3": 0.0, "4": 0.0}
    assert measure_run({}, qrels, ["AP"])["AP"] == {"1": 0.0, "2": 0.0, "3": 0.0, "4": 0.0}


def test_grades_below_zero_are_no_relevance():
    run = {"1": {"a": 3.0, "b": 2.0, "c": 1.0}, "2": {"a": 1.0}}
    qrels = {"1": {"a": -1, "b": 2, "c": 1}, "2": {"a": -2}}
    measured = measure_run(run, qrels, ["nDCG@3", "AP", "RR@10", "R@1"])
    # gains 2 at rank 2 and 1 at rank 3, over 2 at rank 1 and 1 at rank 2
    ndcg = (2 / 1.584962500721156 + 1 / 2) / (2 + 1 / 1.584962500721156)
    assert measured["nDCG@3"] == pytest.approx({"1": ndcg, "2": 0.0})
    assert measured["AP"] == pytest.approx({"1": (1 / 2 + 2 / 3) / 2, "2": 0.0})
    assert measured["RR@10"] == {"1": 0.5, "2": 0.0}
    assert measured["R@1"] == {"1": 0.0, "2": 0.0}


def test_names_of_measures_with_commas_within():
    names = [str(measure) for measure in parse_measures("nDCG@10, RR(rel=2)@10 AP(rel=2),Success@1 nDCG@10")]
    assert names == ["nDCG@10", "RR(rel=2)@10", "AP(rel=2)", "Success@1"]
    assert [str(measure) for measure in parse_measures(["nDCG(dcg='exp-log2', judged_only=True)@10"])] == [
        "nDCG(dcg='exp-log2',judged_only=True)@10"
    ]


@pytest.mark.parametrize("name", ["nDGC@10", "foo", "nDCG@", "nDCG@@10", "__import__('os')", ""])
def test_no_measure_is_named(name):
    with pytest.raises(UsageError) as caught:
        parse_measures(name)
    assert "\n" not in str(caught.value) and (repr(name) in str(caught.value) or not name)
