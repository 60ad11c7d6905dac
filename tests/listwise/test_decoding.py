"""Decoding modes driven by tables instead of a model: tokens read, choices and scores."""

import itertools
import math
import random

import numpy as np
import pytest

from dearlite.listwise.decoding import Answer, GenerationOptions, first, generate, permute, reason

# One token per character: "[" 1, "]" 2, " > [" as the three tokens 3 4 1, digits from 10 on. 0 ends a turn.
SIZE, END = 64, 0
TEXT = {1: "[", 2: "]", 3: " >", 4: " ", 5: "\n", 6: "word ", 7: "</think>", **{10 + d: str(d) for d in range(10)}}
PROMPT = (6, 6, 1)


def answer(count, start=1):
    names = tuple(str(n) for n in range(start, start + count))
    return Answer((5, 1), tuple((*(10 + int(d) for d in name), 2, 3, 4, 1) for name in names), names)


def options(most=30, on_text=None):
    return GenerationOptions(lambda token: TEXT.get(token, "?").encode(), frozenset({END}), most, on_text)


def drive(decoding, model):
    """The decoding's result, its steps and the tokens read; `model` maps the tokens so far to logits."""
    read, steps = [], []
    try:
        step = next(decoding)
        while True:
            steps.append(step)
            assert step.tokens
            assert 0 <= step.drop <= len(read)
            del read[len(read) - step.drop :]
            read += step.tokens
            step = decoding.send(model(tuple(read)))
    except StopIteration as done:
        return done.value, steps, read


def noise(tokens):
    """Random logits that depend on the tokens only."""
    return np.random.default_rng(abs(hash(tokens)) % 2**32).standard_normal(SIZE).astype(np.float32)


def scripted(text_tokens, after=noise):
    """A model that writes `text_tokens` after PROMPT; anywhere else its logits are those of `after`."""

    def model(tokens):
        written = len(tokens) - len(PROMPT)
        if tokens[len(PROMPT) :] == tuple(text_tokens[:written]) and written < len(text_tokens):
            logits = np.zeros(SIZE, np.float32)
            logits[text_tokens[written]] = 9.0
            return logits
        return after(tokens)

    return model


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 20, 30, 99])
@pytest.mark.parametrize("start", [0, 1])
def test_permute_is_always_a_permutation(count, start):
    order, steps, _ = drive(permute(PROMPT, answer(count, start)), noise)
    assert sorted(order.positions) == list(range(count))
    assert len(steps) < 2 * count + 1  # one choice per identifier, two for identifiers of two digits
    assert order.scores is None


def test_permute_takes_the_best_unused_identifier_each_time():
    logits = np.zeros(SIZE, np.float32)
    logits[[12, 13, 11]] = 3, 2, 1  # 2, then 3, then 1
    logits[20] = 99  # no identifier: masked
    order, steps, read = drive(permute(PROMPT, answer(3)), lambda _: logits)
    assert order.positions == (1, 2, 0)
    # Tokens without an alternative are read with the next choice; the last identifier is no choice and is not read.
    assert [step.tokens for step in steps] == [PROMPT, (12, 2, 3, 4, 1)]
    assert read == [*PROMPT, 12, 2, 3, 4, 1]


def test_permute_reads_a_fork_inside_an_identifier():
    def model(tokens):
        logits = np.zeros(SIZE, np.float32)
        logits[11] = 5.0  # prefers identifiers that begin with 1
        logits[10] = 1.0  # and 0 after "1"
        return logits

    order, steps, _ = drive(permute(PROMPT, answer(10)), model)
    assert order.positions[0] == 9  # "10"
    assert [step.tokens for step in steps[:3]] == [PROMPT, (11,), (10, 2, 3, 4, 1)]


def test_one_document_reads_nothing():
    for mode in (permute, first):
        order, steps, _ = drive(mode(PROMPT, answer(1)), noise)
        assert (order.positions, steps) == ((0,), [])


def test_first_scores_are_the_identifiers_probabilities_under_the_mask():
    count = 25
    order, steps, _ = drive(first(PROMPT, answer(count)), noise)
    expected = []
    for path in answer(count).paths:  # by hand: at each depth, softmax over the tokens that some identifier has there
        score = 0.0
        for depth in range(len(path)):
            same = [other for other in answer(count).paths if other[:depth] == path[:depth]]
            allowed = sorted({other[depth] for other in same})
            if len(allowed) > 1:
                logits = noise((*PROMPT, *path[:depth])).astype(np.float64)
                score += logits[path[depth]] - math.log(sum(math.exp(logits[token]) for token in allowed))
        expected.append(score)
    assert order.scores == pytest.approx(expected, abs=1e-6)
    assert sum(math.exp(score) for score in order.scores) == pytest.approx(1.0)
    assert order.positions == tuple(sorted(range(count), key=lambda position: -expected[position]))
    assert len(steps) == 3  # the prompt, "1" and "2": nothing else forks
    assert sum(len(step.tokens) for step in steps) == len(PROMPT) + 2


def test_first_of_single_tokens_is_one_pass_in_the_order_of_their_logits():
    order, steps, _ = drive(first(PROMPT, answer(9)), noise)
    logits = noise(PROMPT)[11:20]
    assert len(steps) == 1
    assert order.positions == tuple(np.argsort(-logits, kind="stable"))
    differences = [a - b for a, b in itertools.pairwise(order.scores)]
    assert differences == pytest.approx([float(a - b) for a, b in itertools.pairwise(logits)], abs=1e-5)


@pytest.mark.parametrize(
    ("written", "text", "kept"),
    [
        ([6, 6, END], "word word", 2),  # the model ends its turn
        ([6, 1, 12, 2, 6, 6, 7, 6], "word [2]word word", 7),  # </think>
        ([6, 6, 1, 12, 2, 3, 4, 1, 11], "word word", 2),  # an order begun by the model is removed
        ([6] * 40, " ".join(["word"] * 30), 30),  # the limit
    ],
)
def test_reason_keeps_the_reasoning_and_decides_under_the_mask(written, text, kept):
    streamed = []
    model = scripted(written)
    order, _, read = drive(reason(PROMPT, answer(12), options(on_text=streamed.append)), model)
    assert order.text == text
    assert sorted(order.positions) == list(range(12))
    assert tuple(read[: len(PROMPT) + kept]) == (*PROMPT, *written[:kept])
    assert tuple(read[len(PROMPT) + kept :][:2]) == (5, 1)  # the answer's lead follows the kept reasoning
    assert "".join(streamed).startswith(text.split("[")[0].strip())


@pytest.mark.parametrize("seed", range(30))
def test_reason_is_a_permutation_whatever_is_written(seed):
    chance = random.Random(seed)
    written = [chance.choice([1, 2, 3, 4, 5, 6, 7, 11, 12, 13, END]) for _ in range(40)]
    order, _, _ = drive(reason(PROMPT, answer(15), options(20)), scripted(written))
    assert sorted(order.positions) == list(range(15))


def test_generate_parses_strictly_and_reports_problems():
    written = [1, 13, 2, 3, 4, 1, 11, 2, 3, 4, 1, 13, 2, 3, 4, 1, 19, 2, END]  # [3] > [1] > [3] > [9]
    order, _, _ = drive(generate(PROMPT, answer(4), options()), scripted(written))
    assert order.positions == (2, 0, 1, 3)  # the named documents, then the others in input order
    assert order.problems == ("[3] twice", "[9] unknown", "[2] missing", "[4] missing")
    assert order.text == "[3] > [1] > [3] > [9]"


def test_a_character_of_several_tokens_is_streamed_whole():
    streamed = []
    halves = {30: "é".encode()[:1], 31: "é".encode()[1:]}
    split = GenerationOptions(lambda token: halves.get(token, b"x"), frozenset({END}), 9, streamed.append)
    order, _, _ = drive(generate(PROMPT, answer(2), split), scripted([30, 31, 6, END]))
    assert streamed == ["é", "x"]
    assert order.text == "éx"
