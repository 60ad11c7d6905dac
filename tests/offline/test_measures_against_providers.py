"""Each accepted measure against pytrec_eval or ir-measures, called directly; names and parameters that are refused."""

import math
import shutil
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dearlite.errors import DearliteError, InvalidInput, MissingExtra, UsageError
from dearlite.offline.evaluation.measures import aggregate, check_measures, measure_run

ir_measures = pytest.importorskip("ir_measures", reason="the extra dearlite[eval] is not installed")
pytrec_eval = pytest.importorskip("pytrec_eval")

# measure -> trec_eval's name, relevance level, judged documents only
BY_TREC_EVAL = {
    "P@1": ("P_1", 1, False),
    "P@5": ("P_5", 1, False),
    "P(rel=2)@3": ("P_3", 2, False),
    "P(judged_only=True)@1": ("P_1", 1, True),
    "P(judged_only=True,rel=2)@3": ("P_3", 2, True),
    "RR": ("recip_rank", 1, False),
    "RR(rel=3)": ("recip_rank", 3, False),
    "RR(judged_only=True)": ("recip_rank", 1, True),
    "Rprec": ("Rprec", 1, False),
    "Rprec(rel=2)": ("Rprec", 2, False),
    "AP": ("map", 1, False),
    "AP(rel=2)": ("map", 2, False),
    "AP@3": ("map_cut_3", 1, False),
    "AP(judged_only=True)": ("map", 1, True),
    "nDCG": ("ndcg", 1, False),
    "nDCG@3": ("ndcg_cut_3", 1, False),
    "nDCG@2147483647": ("ndcg_cut_2147483647", 1, False),
    "nDCG(judged_only=True)@3": ("ndcg_cut_3", 1, True),
    "R@3": ("recall_3", 1, False),
    "R(rel=2)@3": ("recall_3", 2, False),
    "R(judged_only=True)@3": ("recall_3", 1, True),
    "Bpref": ("bpref", 1, False),
    "Bpref(rel=2)": ("bpref", 2, False),
    "infAP": ("infAP", 1, False),
    "infAP(rel=2)": ("infAP", 2, False),
    "NumQ": ("num_q", 1, False),
    "NumRet": ("num_ret", 1, False),
    "NumRet(rel=1)": ("num_rel_ret", 1, False),
    "NumRet(rel=2)": ("num_rel_ret", 2, False),
    "NumRel": ("num_rel", 1, False),
    "NumRel(rel=2)": ("num_rel", 2, False),
    "SetAP": ("set_map", 1, False),
    "SetF": ("set_F", 1, False),
    "SetF(beta=0.5)": ("set_F_0.5", 1, False),
    "SetF(beta=2.0,rel=2)": ("set_F_2.0", 2, False),
    "SetP": ("set_P", 1, False),
    "SetP(judged_only=True)": ("set_P", 1, True),
    "SetP(relative=True)": ("set_relative_P", 1, False),
    "SetR": ("set_recall", 1, False),
    "SetR(rel=2)": ("set_recall", 2, False),
    "Success@1": ("success_1", 1, False),
    "Success(rel=2)@5": ("success_5", 2, False),
    "IPrec@0.0": ("iprec_at_recall_0.00", 1, False),
    "IPrec@0.1": ("iprec_at_recall_0.10", 1, False),
    "IPrec(rel=2)@1.0": ("iprec_at_recall_1.00", 2, False),
}
NOT_BY_TREC_EVAL = ["RR@2", "RR(rel=2)@3", "Judged", "Judged@3", "Compat", "Compat(p=0.8)", "nDCG(gains={1:3,2:7})@3"]

documents = st.sampled_from([f"d{number}" for number in range(8)])
grades = st.dictionaries(documents, st.sampled_from([-3, -2, -1, -1, 0, 0, 1, 1, 2, 3]), min_size=1, max_size=8)
scores = st.dictionaries(documents, st.sampled_from([-1.5, 0.0, 0.5, 2.0, 3.25, 8.0]), max_size=8)
distinct = st.lists(documents, unique=True, max_size=8).map(
    lambda names: {name: float(len(names) - rank) for rank, name in enumerate(names)}
)
ids = st.sampled_from(["q1", "q2", "q3", "q4"])
qrels_of_few = st.dictionaries(ids, grades, min_size=1)


def measure_of(name):
    """The measure of ir_measures. Its names are Python expressions; its own parser fails on Python 3.14 (ast.Num)."""
    return eval(name, {"__builtins__": {}}, vars(ir_measures))


def by_trec_eval(run, qrels, name, level, judged_only):
    """pytrec_eval's value of each query that it can take: one with a grade from 0, and with documents in the run.

    Its process ends at a query of negative grades alone; there nothing is relevant, and nothing is counted but results.
    """
    usable = {query_id: entries for query_id, entries in qrels.items() if max(entries.values()) >= 0}
    retrieved = {query_id: entries for query_id, entries in run.items() if entries and query_id in usable}
    expected = dict.fromkeys(qrels, 0.0)
    key = "set_F" if name.startswith("set_F") else name
    if retrieved:
        evaluator = pytrec_eval.RelevanceEvaluator(
            usable, {name}, relevance_level=level, judged_docs_only_flag=judged_only
        )
        expected |= {query_id: values[key] for query_id, values in evaluator.evaluate(retrieved).items()}
    for query_id in qrels.keys() - usable.keys():
        if run.get(query_id) and name in ("num_ret", "num_q"):
            expected[query_id] = float(len(run[query_id])) if name == "num_ret" else 1.0
    return {query_id: 0.0 if math.isnan(value) else value for query_id, value in expected.items()}


@settings(max_examples=150)
@given(qrels=qrels_of_few, run=st.dictionaries(ids, scores, min_size=1))
def test_every_measure_of_trec_eval_on_random_judgements_and_runs(qrels, run):
    measured = measure_run(run, qrels, list(BY_TREC_EVAL), ties="trec_eval")
    assert set(measured) == set(BY_TREC_EVAL)
    for measure, (name, level, judged_only) in BY_TREC_EVAL.items():
        assert measured[measure] == pytest.approx(by_trec_eval(run, qrels, name, level, judged_only), abs=1e-12), (
            measure
        )


@settings(max_examples=60)
@given(qrels=qrels_of_few, run=st.dictionaries(ids, distinct.filter(bool), min_size=1))
def test_the_other_measures_on_random_judgements_and_runs(qrels, run):
    # ir-measures itself ends the process where trec_eval would
    qrels = {
        query_id: entries | ({} if max(entries.values()) >= 0 else {"d0": 0}) for query_id, entries in qrels.items()
    }
    measured = measure_run(run, qrels, NOT_BY_TREC_EVAL)
    for name in NOT_BY_TREC_EVAL:
        measure = measure_of(name)
        expected = {metric.query_id: metric.value for metric in ir_measures.iter_calc([measure], qrels, run)}
        expected = {query_id: expected[query_id] if query_id in run else 0.0 for query_id in qrels}
        assert measured[str(measure)] == pytest.approx(expected, abs=1e-12), name


def test_the_reported_case_of_negative_grades():
    # computed with pytrec_eval and ir-measures from the same files
    qrels, run = {"q1": {"d4": -1, "d2": 0, "d1": 1, "d3": 1}}, {"q1": {"d4": 9.0, "d1": 8.0, "d2": 7.0, "d3": 6.0}}
    for grade in (-1, -2, -100):
        qrels["q1"]["d4"] = grade
        measured = measure_run(run, qrels, "infAP Bpref P(judged_only=True)@1")
        assert [round(values["q1"], 4) for values in measured.values()] == [0.6875, 0.5, 1.0]


def test_measures_beside_each_other_do_not_change():
    # in one call of ir-measures, the order of a set decides if NumRet counts judged documents, and nDCG gets the gains
    names = [
        "P(judged_only=True)@1",
        "NumRet",
        "NumQ",
        "nDCG(gains={1:9})@3",
        "nDCG@3",
        "nDCG(judged_only=True)@3",
        "AP(rel=2)",
    ]
    qrels, run = {"q": {"a": 1, "b": 2, "c": -1}}, {"q": {"x": 5.0, "c": 4.0, "a": 3.0, "b": 2.0}}
    together = measure_run(run, qrels, names)
    assert together == {name: measure_run(run, qrels, name)[name] for name in together}
    assert together["NumRet"] == {"q": 4.0}


def test_ids_of_any_kind():
    odd = ["a b", "a-1", "b-1", "\ud800", "\x00", "x\x00y", "é", "1"]
    plain = {name: f"d{number}" for number, name in enumerate(odd)}
    qrels = {name: {other: position % 3 - 1 for position, other in enumerate(odd)} for name in odd}
    run = {name: {other: float(-position) for position, other in enumerate(reversed(odd))} for name in odd}
    names = ["nDCG@3", "AP", "RR@3", "Judged@3", "Compat", *(["ERR@3"] if shutil.which("perl") else [])]
    measured = measure_run(run, qrels, names, ties="trec_eval")
    renamed = measure_run(
        {plain[q]: {plain[d]: score for d, score in entries.items()} for q, entries in run.items()},
        {plain[q]: {plain[d]: grade for d, grade in entries.items()} for q, entries in qrels.items()},
        names,
    )
    assert measured == {name: {q: renamed[name][plain[q]] for q in odd} for name in measured}
    assert measured["nDCG@3"]["a b"] > 0


@pytest.mark.skipif(not shutil.which("perl"), reason="gdeval needs perl")
def test_measures_of_gdeval_by_hand():
    qrels = {"x-7": {"a": 2, "b": 0, "c": 4, "n": -2}, "y-7": {"a": -1}, "z": {"a": 1}}
    run = {"x-7": {"b": 4.0, "a": 3.0, "n": 2.0, "c": 1.0}, "y-7": {"a": 1.0}}
    measured = measure_run(run, qrels, ["ERR@4", "nDCG(dcg='exp-log2')@4"])
    # (2^2-1)/16 at rank 2, (2^4-1)/16 at rank 4 for those who went on
    err = 3 / 16 / 2 + (1 - 3 / 16) * 15 / 16 / 4
    assert measured["ERR@4"] == pytest.approx({"x-7": err, "y-7": 0.0, "z": 0.0}, abs=1e-5)
    log2 = {2: 1.584962500721156, 4: 2.321928094887362}  # of rank + 1
    ndcg = (3 / log2[2] + 15 / log2[4]) / (15 + 3 / log2[2])
    assert measured["nDCG(dcg='exp-log2')@4"]["x-7"] == pytest.approx(ndcg, abs=1e-5)
    with pytest.raises(
        InvalidInput, match=r"document 'a' of query 'q' has the grade 5, and ERR@4 takes grades up to 4"
    ):
        measure_run({"q": {"a": 1.0}}, {"q": {"a": 5}}, "ERR@4")


def test_counts_are_summed_and_others_averaged():
    run, qrels = {"1": {"a": 2.0, "b": 1.0}, "2": {"a": 1.0}}, {"1": {"a": 1}, "2": {"b": 1}, "3": {"a": 1}}
    for name in ("NumRet", "NumRet(rel=1)", "NumRel", "NumQ", "AP", "Bpref"):
        measure = measure_of(name)
        expected = ir_measures.calc_aggregate([measure], qrels, run)[measure]
        assert aggregate(name, measure_run(run, qrels, name)[name]) == pytest.approx(expected), name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nDCG@0", "nDCG: its cutoff is 0: it must be a whole number from 1, as in nDCG@10"),
        ("P@0", "whole number from 1, as in P@10"),
        ("R@0", "whole number from 1"),
        ("AP@0", "whole number from 1"),
        ("Success@0", "whole number from 1"),
        ("RR@-1", "its cutoff is -1"),
        ("nDCG@10.5", "its cutoff is 10.5"),
        ("nDCG@99999999999999999999", "whole number from 1"),
        ("P", "P needs a cutoff: write P@10"),
        ("ERR", "ERR needs a cutoff: write ERR@10"),
        ("nDCG(dcg='exp-log2')", "needs a cutoff"),
        ("nDCG(dcg='x')@10", "'log2' or 'exp-log2'"),
        ("nDCG(gains={1:0.5})@10", "whole numbers"),
        ("nDCG(gains={0:-1})@10", "gains from 0"),
        ("IPrec@2", "its recall is 2.0: it must be a share from 0 to 1"),
        ("IPrec@0.125", "at most two decimals"),
        ("IPrec", "IPrec needs a recall: write IPrec@0.1"),
        ("SetF(beta=1e-7)", "without an exponent"),
        ("RR(rel=0)", "its rel is 0"),
        ("RR(rel=-1)", "its rel is -1"),
        ("RR(rel='2')", "its rel is '2'"),
        ("P(judged_only=1)@5", "its judged_only is 1: it must be True or False"),
        ("RR(judged_only=True)@10", "no provider of ir-measures takes this judged_only and cutoff together"),
        ("RR(foo=1)", "RR has no parameter 'foo': it takes cutoff, rel, judged_only"),
        ("hits@10", "NumRet has no parameter 'cutoff'"),
        ("f1@10", "SetF has no parameter 'cutoff'"),
        ("INST", "INST needs a max_rel: write INST(max_rel=3)"),
        ("BPM", "write BPM(max_rel=3)@10"),
        ("SDCG@10", "write SDCG(max_rel=3)@10"),
        ("RBP", "RBP needs a rel: write RBP(rel=1)"),
        ("alpha_nDCG@10", "judgements of subtopics"),
        ("StRecall@10", "judgements of subtopics"),
        ("Accuracy", "Success@1 is the share"),
        ("nDCG(10)", "not of the form NAME(rel=2"),
        ("nDCG(**{})@10", "not of the form"),
        ("nDCG(rel=open('x'))@10", "not of the form"),
        ("nDCG@ten", "'ten' after @ is not a number"),
        ("ndcg_cut", "ndcg_cut needs a cutoff: write ndcg_cut_10, or nDCG@10"),
        ("gm_map", "ir-measures has none of that name; nearest: AP"),
        ("hole@10", "nearest: Judged@10"),
        ("nDGC@10", "nearest: nDCG@10"),
        ("ndcg_ct_5", "nearest: nDCG@5"),
    ],
)
def test_a_measure_that_cannot_be_computed_is_told_before_anything_is_scored(name, words):
    with pytest.raises(UsageError) as caught:
        check_measures(name)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UsageError):
        measure_run({"q": {"a": 1.0}}, {"q": {"a": 1}}, name)


def test_a_provider_that_is_not_installed(monkeypatch):
    for provider in ir_measures.DefaultPipeline.providers:
        monkeypatch.setattr(provider, "_is_available", provider.NAME in ("judged", "msmarco"))
    for name, remedy in (
        ("RBP(rel=1)", 'cwl_eval, which is not installed: pip install "ir-measures[cwl_eval]"'),
        ("ERR@20", "gdeval, which is not installed: Install perl"),
        ("AP", "pytrec_eval, which is not installed: pip install"),
    ):
        with pytest.raises(MissingExtra, match="is computed by") as caught:
            check_measures(name)
        assert remedy in str(caught.value) and "\n" not in str(caught.value)


def test_a_provider_that_fails(monkeypatch, tmp_path):
    (tmp_path / "perl").write_text(f"#!{sys.executable}\nimport sys\nsys.exit(25)\n")
    (tmp_path / "perl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    gdeval = next(provider for provider in ir_measures.DefaultPipeline.providers if provider.NAME == "gdeval")
    monkeypatch.setattr(gdeval, "_is_available", True)
    with pytest.raises(UsageError, match=r"ERR@20: ir-measures fails \(.*exit status 25.*\): leave this measure out"):
        check_measures("ERR@20")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("ndcg_cut_10 ndcg_cut.10 ndcg@10 NDCG@10 ndcg_at_10 nDCG@10", "nDCG@10"),
        ("ndcg_cut.5,10 map", "nDCG@5 nDCG@10 AP"),
        ("ndcg_cut.5, map", "nDCG@5 AP"),
        ("P_10 P.10 precision@10 p@10", "P@10"),
        ("recall_100 recall@100 Recall@100 R@100 r@100", "R@100"),
        ("map MAP average_precision", "AP"),
        ("map_cut_10 map@10", "AP@10"),
        ("recip_rank mrr MRR", "RR"),
        ("mrr@10 MRR@10 mrr_at_10", "RR@10"),
        ("rr(rel=2)@10", "RR(rel=2)@10"),
        ("success_10 hit_rate@10 hit@10 hits", "Success@10 NumRet(rel=1)"),
        ("Rprec r-precision r_precision", "Rprec"),
        (
            "bpref infAP set_P set_recall set_map set_F set_relative_P",
            "Bpref infAP SetP SetR SetAP SetF SetP(relative=True)",
        ),
        ("iprec_at_recall_0.10 IPrec@0.1 IPrec@1", "IPrec@0.1 IPrec@1.0"),
        ("num_q num_ret num_rel num_rel_ret", "NumQ NumRet NumRel NumRet(rel=1)"),
    ],
)
def test_names_of_other_tools(names, expected):
    assert check_measures(names) == expected.split()


def test_measures_of_ir_measures_and_lists():
    measures = [ir_measures.nDCG @ 10, "map", ir_measures.RR(rel=2)]
    assert check_measures(measures) == ["nDCG@10", "AP", "RR(rel=2)"]
    assert check_measures(("nDCG@1 RR", "AP")) == ["nDCG@1", "RR", "AP"]
    for wrong in (7, [7], [], ()):
        with pytest.raises(DearliteError):
            check_measures(wrong)


@pytest.mark.parametrize(("name", "grade"), [("nDCG", 10_001), ("nDCG@10", 1_000_001), ("AP", 10**9)])
def test_a_grade_that_would_take_hours(name, grade):
    # trec_eval reserves a cell per grade, and compares all of them with all
    with pytest.raises(
        InvalidInput, match=f"document 'a' of query 'q' has the grade {grade}, and {name} takes grades up to"
    ):
        measure_run({"q": {"a": 1.0}}, {"q": {"a": grade}}, name)
    assert measure_run({"q": {"a": 1.0}}, {"q": {"a": 10_000}}, name)[name] == {"q": 1.0}
