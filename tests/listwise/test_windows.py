"""Windows: from the end of the list to its head, which is always covered."""

import pytest

from dearlite import Listwise
from dearlite.errors import UsageError
from dearlite.listwise.windows import window_spans


@pytest.mark.parametrize(
    ("count", "window", "stride", "spans"),
    [
        (0, 20, 10, []),
        (1, 20, 10, [(0, 1)]),
        (3, 20, 10, [(0, 3)]),
        (20, 20, 10, [(0, 20)]),
        (21, 20, 10, [(1, 21), (0, 20)]),
        (25, 20, 10, [(5, 25), (0, 20)]),  # published code skips the head here
        (30, 20, 10, [(10, 30), (0, 20)]),
        (100, 20, 10, [(start, start + 20) for start in range(80, -1, -10)]),
        (7, 3, 3, [(4, 7), (1, 4), (0, 3)]),
    ],
)
def test_window_spans(count, window, stride, spans):
    assert window_spans(count, window, stride) == spans


@pytest.mark.parametrize("window", [2, 5, 20])
@pytest.mark.parametrize("stride", [1, 2, 5, 20])
def test_every_document_is_seen_and_the_head_is_last(window, stride):
    if stride > window:
        return
    for count in range(1, 60):
        spans = window_spans(count, window, stride)
        assert set().union(*(range(*span) for span in spans)) == set(range(count))
        assert spans[-1] == (0, min(window, count))
        assert all(end - start <= window for start, end in spans)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "magic"}, "permute, first, reason, generate"),
        ({"window": 1}, "2 or more"),
        ({"window": 0}, "window is 0"),
        ({"window": True}, "window is True"),
        ({"stride": 21}, "would be skipped"),
        ({"stride": 0}, "stride is 0"),
        ({"passage_tokens": 3}, "passage_tokens is 3"),
        ({"reasoning_tokens": 0}, "reasoning_tokens is 0"),
        ({"reasoning_tokens": 9}, "reasoning_tokens is 9, and mode permute writes no reasoning: use mode reason"),
        ({"reasoning_tokens": 9, "mode": "generate"}, "and mode generate writes no reasoning"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        Listwise(**options).checked(20, 10)


def test_a_window_without_a_stride_gets_half_of_it():
    assert Listwise().checked(20, 10).span == (20, 10)
    assert Listwise(window=8).checked(20, 10).span == (8, 4)
    assert Listwise(stride=5).checked(20, 10).span == (20, 5)
