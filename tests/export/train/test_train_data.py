"""What training reads: settings, groups and what is wrong with them, mined records, and the plan of batches."""

import dataclasses
import json
import random
from collections import Counter

import noveleval
import pytest

from dearlite.errors import InvalidInput, UsageError
from dearlite.export.train.batches import plan_batches
from dearlite.export.train.config import ListwiseConfig, PointwiseConfig, read_config
from dearlite.export.train.records.groups import read_groups
from dearlite.export.train.records.mine import MiningOptions, mine, parse_depths

FILES = ("queries.jsonl", "corpus.jsonl.gz", "qrels.tsv", "run_bm25.trec")


def passage(name, score=None):
    row = {"docid": name, "title": "", "text": f"text of {name}"}
    return row if score is None else row | {"teacher_score": score}


def record(**changes):
    row = {"query_id": "1", "query": "who?", "positives": [passage("a", 2.0)], "negatives": [passage("b", -1.5)]}
    return row | changes


def written(tmp_path, *rows):
    path = tmp_path / "train.jsonl"
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def test_groups_with_and_without_scores(tmp_path):
    tevatron = {"query_id": 7, "query": "q", "positive_passages": [passage("a")], "negative_passages": [passage("b")]}
    (group,), skipped = read_groups([written(tmp_path, tevatron)])
    assert (group.query_id, group.scored, skipped) == ("7", False, 0)
    (group,), _ = read_groups([written(tmp_path, record())])
    assert group.scored and group.positives[0].teacher_score == 2.0 and group.negatives[0].document.id == "b"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([record(positives=[])], r"train\.jsonl:1: query '1' has no positives"),
        ([record(), record(query_id="2", negatives=[])], r"train\.jsonl:2: query '2' has no negatives"),
        ([{"text": "x"}], r"train\.jsonl:1: a training record has a query"),
        ([record(query=" ")], r"train\.jsonl:1: .*query"),
        (["{"], r"train\.jsonl:1 is not JSON"),
        ([record(negatives=[{"docid": "b"}])], r"negatives.* has no text"),
        ([record(negatives=["b"])], r"a passage is an object"),
        ([record(negatives=[passage("b", "high")])], r"teacher_score is 'high', not a number"),
        ([record(negatives=[passage("b", True)])], r"teacher_score is True, not a number"),
        (
            [record(), record(query_id="2", negatives=[passage("b")])],
            r"train\.jsonl:2: 1 of 4 passages have no teacher",
        ),
        ([], r"nothing to train on"),
    ],
)
def test_bad_records_are_one_line(tmp_path, rows, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        read_groups([written(tmp_path, *rows)])
    assert "\n" not in str(caught.value)


def test_bad_records_may_be_left_out(tmp_path):
    groups, skipped = read_groups([written(tmp_path, record(positives=[]), record(), "{")], skip_bad=True)
    assert (len(groups), skipped) == (1, 2)


def test_a_sample_is_a_positive_and_different_negatives(tmp_path):
    negatives = [passage(name) for name in "bcdef"]
    (group,), _ = read_groups([written(tmp_path, record(positives=[passage("a")], negatives=negatives))])
    taken = group.sample(4, random.Random(1))
    names = [one.document.id for one in taken]
    assert (
        names[0] == "a" and len(set(names)) == 4 and names == [o.document.id for o in group.sample(4, random.Random(1))]
    )
    assert len(group.sample(99, random.Random(1))) == 6


def test_a_plan_has_every_group_once_an_epoch_and_like_lengths_together(tmp_path):
    rows = [record(query_id=str(n), negatives=[passage("b" * (1 + n % 50 * 20), 1.0)]) for n in range(64)]
    groups, _ = read_groups([written(tmp_path, *rows)])
    order = plan_batches(groups, 4, 32, seed=1)
    assert Counter(order) == {(index, epoch): 1 for index in range(64) for epoch in (0, 1)}
    assert order == plan_batches(groups, 4, 32, seed=1) != plan_batches(groups, 4, 32, seed=2)
    assert plan_batches(groups, 4, 40, seed=1)[:128] == order

    def padding(indices):
        lengths = [len(groups[index].negatives[0].document.text) for index, _ in indices]
        return sum(max(lengths[at : at + 4]) * 4 for at in range(0, len(lengths), 4)) / sum(lengths)

    mixed = list(order[:64])
    random.Random(0).shuffle(mixed)
    assert padding(order[:64]) < 1.1 < padding(mixed)


def test_settings_are_the_published_ones_and_files_stand_beside_them(tmp_path):
    path = tmp_path / "stage1.toml"
    path.write_text('base = "meta/x"\ndata = "train.jsonl"\noutput = "out"\nlearning_rate = 1\n')
    config = read_config(path, PointwiseConfig, ["batch=8", 'lora_targets=["q_proj"]', "rank_loss=ce", "alpha=0.5"])
    assert (config.base, config.data, config.output) == (
        "meta/x",
        (str(tmp_path / "train.jsonl"),),
        str(tmp_path / "out"),
    )
    assert (config.batch, config.lora_targets, config.rank_loss, config.alpha) == (8, ("q_proj",), "ce", 0.5)
    # arXiv 2508.16998: LoRA r 32, alpha 64, dropout 0.1; T 2, alpha 0.1; 2 epochs, 2 passages, 228 tokens
    assert (config.lora_r, config.lora_alpha, config.lora_dropout, config.learning_rate) == (32, 64, 0.1, 1.0)
    assert (config.temperature, config.epochs, config.passages, config.accumulation) == (2.0, 2.0, 2, 2)
    assert config.max_tokens == 228
    stage2 = ListwiseConfig(base="x", data=("y",), output="z")
    assert (stage2.lora_r, stage2.max_tokens, stage2.scheduler, stage2.warmup) == (16, 5000, "cosine", 0.1)
    assert (stage2.batch, stage2.accumulation, stage2.learning_rate) == (2, 4, 1e-4)


def test_one_file_in_place_of_a_tuple_is_refused():
    with pytest.raises(UsageError, match=r"data is 'train.jsonl': it must be a tuple of strings"):
        PointwiseConfig(base="x", data="train.jsonl", output="z")


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ('base = "b"\ndata = "d"', [], "names no output"),
        ('base = "b"\ndata = "d"\noutput = "o"\nalhpa = 1', [], r"no setting 'alhpa' \(nearest: alpha\)"),
        ('base = "b"\ndata = "d"\noutput = "o"', ["batch=two"], "batch is 'two': it must be a whole number"),
        (
            'base = "b"\ndata = "d"\noutput = "o"',
            ["batch=2", "batch=4"],
            "--set batch=… is given 2 times: give it once",
        ),
        ('base = "b"\ndata = "d"\noutput = "o"', ["batch"], "--set batch: it must be key=value"),
        ('base = "b"\ndata = [1]\noutput = "o"', [], "data is"),
        ('base = "b"\ndata = "d"\noutput = "o"\nskip_bad = 1', [], "skip_bad is 1: it must be true or false"),
        ("base = ", [], "is not TOML"),
    ],
)
def test_wrong_settings_are_told(tmp_path, text, overrides, message):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_config(path, PointwiseConfig, overrides)


def test_depths():
    assert parse_depths("1-10,11-30") == ((1, 10), (11, 30)) and parse_depths("5") == ((5, 5),)
    for wrong in ("0-3", "5-2", "", "a"):
        with pytest.raises(UsageError, match="--depths"):
            parse_depths(wrong)


def test_options_of_mining_are_checked():
    for options in ({"negatives": 0}, {"positives": 0}, {"limit": 0}, {"depths": ()}, {"depths": ((5, 2),)}):
        with pytest.raises(UsageError, match=next(iter(options))):
            MiningOptions(**options)


def test_mining_keeps_true_negatives_with_the_teachers_scores(tmp_path, capfd, tiny_bundle):
    queries, corpus, qrels, run = (noveleval.DATA / name for name in FILES)
    files = {"queries": queries, "corpus": corpus, "qrels": qrels, "run": run, "model": tiny_bundle}
    options = MiningOptions(negatives=3, positives=2, depths=((1, 5), (6, 20)), limit=6)
    counts = []
    mined = mine(
        **files, options=options, output=tmp_path / "mined.jsonl", progress=lambda *count: counts.append(count)
    )
    grades = {tuple(line.split()[::2]): int(line.split()[3]) for line in qrels.open()}
    assert mined.records and len(mined.records) + mined.without_positive + mined.without_negative == 6
    for row in mined.records:
        scores = [one["teacher_score"] for one in row["positives"]]
        assert scores == sorted(scores, reverse=True) and 1 <= len(scores) <= 2
        assert all(one["teacher_score"] < scores[0] for one in row["negatives"])
        assert 1 <= len(row["negatives"]) <= 3
        for one in row["negatives"]:
            assert grades.get((row["query_id"], one["docid"]), 0) <= 0
    groups, _ = read_groups([tmp_path / "mined.jsonl"])
    assert len(groups) == len(mined.records) and all(group.scored for group in groups)
    assert counts[-1][0] == counts[-1][1] > 0 and (tmp_path / "mined.jsonl.journal").exists()
    wide = mine(**files, options=dataclasses.replace(options, margin=1e9))
    assert not wide.records and wide.without_negative == len(mined.records) + mined.without_negative
    assert capfd.readouterr() == ("", "")  # the library reports through its callback alone


def test_the_command_writes_what_the_function_writes(tmp_path, cli, tiny_bundle):
    queries, corpus, qrels, run = (noveleval.DATA / name for name in FILES)
    options = MiningOptions(negatives=2, positives=1, depths=((1, 9),), limit=3, seed=7, listwise=True)
    files = {"queries": queries, "corpus": corpus, "qrels": qrels, "run": run, "model": tiny_bundle}
    mine(**files, options=options, output=tmp_path / "function.jsonl")
    code, _, err = cli(
        *("train", "mine", "--queries", queries, "--corpus", corpus, "--qrels", qrels, "--run", run, "--listwise"),
        *("--negatives", 2, "--positives", 1, "--depths", "1-9", "--limit", 3, "--seed", 7),
        *("-m", tiny_bundle),
        *("-o", tmp_path / "command.jsonl"),
    )
    assert code == 0, err
    assert (tmp_path / "command.jsonl").read_bytes() == (tmp_path / "function.jsonl").read_bytes() != b""
    assert "records; left out:" in err
