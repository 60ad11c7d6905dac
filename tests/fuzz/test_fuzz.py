"""A short run over all targets: each input ends in a result or in a DearliteError of one line.

`python tests/fuzz/run.py --target NAME --first NUMBER --inputs 1` reads a faulty input again.
"""

import logging

import pytest
from fuzzing import Fault, Target, TooLong, by_bytes, input_of, outcome_of
from targets import TARGETS

from dearlite.errors import InvalidInput


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_ends_in_a_result_or_an_error_of_one_line(name, tmp_path):
    target = TARGETS[name]
    for module in target.needs:
        pytest.importorskip(module)
    lasting, folder = tmp_path / "seeds", tmp_path / "inputs"
    lasting.mkdir()
    folder.mkdir()
    seeds, kinds = target.seeds(lasting), set()
    logging.disable(logging.CRITICAL)
    try:
        for number in range(target.short):
            data = input_of(target, seeds, number)
            outcome = outcome_of(target, data, folder, must_read=number < len(seeds))
            assert outcome.kind != "fault", f"{name} {number}: {outcome.text}"
            kinds.add(outcome.kind)
    finally:
        logging.disable(logging.NOTSET)
    assert "result" in kinds  # inputs that are never read would show nothing


def fails(data, folder):
    raise {
        b"error": InvalidInput("one line"),
        b"empty": InvalidInput(" "),
        b"value": ValueError("x"),
        b"fault": Fault("x"),
        b"exit": SystemExit(1),
        b"late": TooLong("x"),
        b"memory": MemoryError(),
        b"depth": RecursionError("x"),
    }[data]


@pytest.mark.parametrize("data", ["empty", "value", "fault", "exit", "late", "memory", "depth"])
def test_any_other_end_is_a_fault(tmp_path, data):
    target = Target(name="t", read=fails, seeds=lambda folder: [b"error"])
    assert outcome_of(target, data.encode(), tmp_path).kind == "fault"
    assert outcome_of(target, b"error", tmp_path).kind == "error"
    assert outcome_of(target, b"error", tmp_path, must_read=True).kind == "fault"


def test_a_file_that_stays_open_is_a_fault(tmp_path):
    def leaks(data, folder):
        open(folder / "x", "wb")

    outcome = outcome_of(Target(name="t", read=leaks, seeds=lambda folder: []), b"", tmp_path)
    assert outcome.kind == "fault" and "unclosed file" in outcome.text


def test_an_input_is_made_of_the_name_and_the_number_alone():
    target = Target(name="t", read=fails, seeds=lambda folder: [], make=by_bytes)
    seeds = [b"snow falls on hills", b"rain"]
    inputs = [input_of(target, seeds, number) for number in range(100)]
    assert inputs == [input_of(target, seeds, number) for number in range(100)]
    assert inputs[:2] == seeds
    assert len({*inputs}) > 80
