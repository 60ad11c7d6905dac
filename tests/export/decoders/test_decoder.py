"""`dearlite export` of a decoder from end to end: the quality card, the gate, and the files that remain."""

import json

import pytest
from tiny_decoders import checkpoint

from dearlite import Reranker
from dearlite.cli.main import run
from dearlite.export.quality.texts import calibration_rows, card_pairs, pair_rows
from dearlite.models.bundle import Bundle
from dearlite.scores import kendall_tau


def dearlite(*words):
    with pytest.raises(SystemExit) as ended:
        run(list(map(str, words)))
    return ended.value.code


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scorer")
    checkpoint(folder, "llama, 6 heads of 2, its own head size")
    return folder


def test_an_export_keeps_its_comparison_with_fp32(folder, tmp_path, capsys):
    path = tmp_path / "m.dear"
    assert dearlite("export", folder, "-o", path, "--min-tau", 0, "--max-tokens", 48) == 0
    assert "against fp32 on" in capsys.readouterr().out
    card = Bundle(path).card()
    assert card["documents"] == 20 * card["queries"] and card["queries"] >= 3
    assert card["calibration_tokens"] > 1000 and 0 < card["kendall_tau"] <= 1
    assert {"load_s", "score_s", "peak_rss_mb", "mean_error", "max_error", "top10_overlap", "ties"} <= set(card)
    assert "below_floor" not in card
    Bundle(path).verify()
    assert len(Reranker.load(path).rerank("who", ["the bulb", "coffee"])) == 2
    assert dearlite("models", "show", path) == 0
    assert "kendall_tau" in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["m.dear"]


def test_a_file_below_the_floor_is_not_written_unless_it_is_forced(folder, tmp_path, capsys):
    path = tmp_path / "m.dear"
    wanted = ("export", folder, "-o", path, "--min-tau", 1, "--max-tokens", 48)
    assert dearlite(*wanted) == 1
    err = capsys.readouterr().err
    assert "is not written" in err and "Kendall's tau" in err
    assert "below 1.0: take --quant int8-accurate or fp32 (--force keeps it)" in err
    assert list(tmp_path.iterdir()) == []
    assert dearlite(*wanted, "--force") == 0
    assert "kept by --force" in capsys.readouterr().err
    assert "below 1" in Bundle(path).card()["below_floor"]


def test_fp32_agrees_with_its_reference(folder, tmp_path):
    path = tmp_path / "m.dear"
    assert dearlite("export", folder, "-o", path, "--quant", "fp32", "--max-tokens", 48, "--min-tau", 1) == 0
    card = Bundle(path).card()
    assert card["max_error"] <= 0.001 and card["kendall_tau"] == 1 and card["calibration_tokens"] == 0


def test_a_full_disk_leaves_nothing(folder, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dearlite.export.quality.check.add_members", full)
    assert dearlite("export", folder, "-o", tmp_path / "m.dear", "--min-tau", 0, "--max-tokens", 48) == 1
    assert "No space left" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_large_models_get_fewer_rows_but_never_too_few(folder):
    tokenizer = (folder / "tokenizer.json").read_bytes()
    small, large = (card_pairs(tokenizer, "dear", 96, macs) for macs in (1e6, 7e9))
    assert (len(small.rows), len(large.rows)) == (420, 60)
    assert all(row.tokens_used <= 96 for row in pair_rows(tokenizer, "dear", 96, large))
    everything, least = (sum(map(len, calibration_rows(tokenizer, "dear", 96, macs))) for macs in (1e6, 7e9))
    assert 6000 <= least < 6100 < everything


def test_every_line_of_the_calibration_text_is_a_pair():
    from dearlite.export.quality.texts import DATA

    records = [json.loads(line) for line in (DATA / "calibration.jsonl").open(encoding="utf-8")]
    assert len(records) == 120 and len({record["text"] for record in records}) == 120
    assert all(set(record) == {"query", "text"} and record["query"].strip() for record in records)


def test_pairs_that_tie_in_both_rankings_agree():
    assert kendall_tau([1, 1, 2], [3, 3, 4]) == 1
    assert kendall_tau([1, 1], [3, 4]) == 0
