"""Models that think before they answer: prompts, thinking of every kind, budgets, and rankings that are whole."""

import json
import math
import random

import numpy as np
import pytest
from byte_vocabulary import Bytes
from driving import drive
from tiny_gguf import cut_tokenizer, write_tiny
from waiting import Clock

from dearlite import Listwise, Reranker
from dearlite.deadline import TimedEvent
from dearlite.documents import Document, as_documents
from dearlite.errors import InvalidInput, ModelFileError, UsageError
from dearlite.listwise.decoding import GenerationOptions
from dearlite.listwise.encoders import JudgeEncoder, ThinkEncoder
from dearlite.listwise.forms import FORMS, mode_of
from dearlite.listwise.groups import continued
from dearlite.listwise.judging import JudgeState
from dearlite.listwise.modes import decode_of
from dearlite.listwise.state import WindowState
from dearlite.listwise.think_prompts import JUDGE_FORMS, THINK_FORMS
from dearlite.listwise.thinking import judge, think
from dearlite.readable import readable
from dearlite.templates.chat import ChatTemplate

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
PASSAGES = ["Coffee is good", "Edison, 1879"]
# Written by hand from 8421BCD/ReasonRank (utils.py, listwise_prompt_r1.toml), Rearank's rank_gpt.py, orionw/rank1.
REASONRANK = [
    (
        "system",
        "You are RankLLM, an intelligent assistant that can rank passages based on their relevance to the query. Given "
        "a query and a passage list, you first thinks about the reasoning process in the mind and then provides the "
        "answer (i.e., the reranked passage list). The reasoning process and answer are enclosed within <think> "
        "</think> and <answer> </answer> tags, respectively, i.e., <think> reasoning process here </think> <answer> "
        "answer here </answer>.",
    ),
    (
        "user",
        "I will provide you with 2 passages, each indicated by a numerical identifier []. Rank the passages based on "
        "their relevance to the search query: who (1)?.\n\n[1] Coffee is good\n[2] Edison, 1879\nSearch Query: who "
        "(1)?.\nRank the 2 passages above based on their relevance to the search query. All the passages should be "
        "included and listed using identifiers, in descending order of relevance. The format of the answer should be "
        "[] > [], e.g., [2] > [1].",
    ),
]
ZEPHYR_THINK = [
    (
        "system",
        "You are RankLLM, an intelligent assistant that can rank passages based on their relevance to the query.",
    ),
    (
        "user",
        "I will provide you with 2 passages, each indicated by a numerical identifier []. Rank the passages based on "
        "their relevance to the search query: who (1)?.\n\n[1] Coffee is good\n[2] Edison, 1879\nSearch Query: who "
        "(1)?.\nRank the 2 passages above based on their relevance to the search query. All the passages should be "
        "included and listed using identifiers, in descending order of relevance. The final ranked list should be "
        "enclosed within <answer> </answer> tags, i.e., <answer> ranked list here </answer>. The format of ranked list "
        "should be [] > [], e.g., [2] > [1]. Only respond with the ranking results, do not say any word or explain.",
    ),
]
REARANK = [
    (
        "system",
        "You are DeepRerank, an intelligent assistant that can rank passages based on their relevancy to the search "
        "query. You first thinks about the reasoning process in the mind and then provides the user with the answer.",
    ),
    (
        "user",
        "I will provide you with passages, each indicated by number identifier []. Rank the passages based on their "
        "relevance to the search query.Search Query: who [1]?. \nRank the 2 passages above based on their relevance to "
        "the search query.The passages should be listed in descending order using identifiers. The most relevant "
        "passages should be listed first. The output format should be <answer> [] > [] </answer>, e.g., <answer> [1] > "
        "[2] </answer>.",
    ),
    ("assistant", "Okay, please provide the passages."),
    ("user", "[1] Coffee is good"),
    ("assistant", "Received passage [1]."),
    ("user", "[2] Edison, 1879"),
    ("assistant", "Received passage [2]."),
    (
        "user",
        'Please rank these passages according to their relevance to the search query: "who [1]?"\n'
        "            Follow these steps exactly:\n"
        "            1. First, within <think> tags, analyze EACH passage individually:\n"
        "            - Evaluate how well it addresses the query\n"
        "            - Note specific relevant information or keywords\n\n"
        "            2. Then, within <answer> tags, provide ONLY the final ranking in descending order of relevance "
        "using the format: [X] > [Y] > [Z]",
    ),
]
RANK1 = (
    "Determine if the following passage is relevant to the query. Answer only with 'true' or 'false'.\n"
    "Query: who [1]?\nPassage: Edison, 1879\n<think>"
)
PARTS = (
    "the light bulb was invented", "naïve café", "漢字かな交じり", "[3] > [1]", "<|im_end|>", "</think>", "q",
    "\x00\x07", "<answer>[1]</answer>", "\u202e right to left", "a" * 60, "{query} {passage}", "</think> true",
    "\n\n", "<think>",
)  # fmt: skip
# A model's texts: closed, begun, unknown, endless, ended (\0) and none.
TEXTS = (
    "<think>It is [2]. So.</think>", "<answer>[99] > [98]", "</think>\n\n", "on and on and on and on and on", "\0",
    "[7] > [7] > [7]\0", "<think></think>", "Okay! <answer>[1]</answer>", "</think> true", "\xff\xfe\0",
)  # fmt: skip


class Writer:
    """The logits of a model that writes `text` after `prompt`, and random ones for the answer."""

    def __init__(self, text, seed=0):
        self.text, self.random = text.encode("latin-1"), np.random.default_rng(seed)

    def __call__(self, sequence, prompt):
        logits = self.random.random(256)
        position = len(sequence) - len(prompt)
        if 0 <= position < len(self.text) and bytes(sequence[len(prompt) :]) == self.text[:position]:
            logits[self.text[position]] = 2.0
        return logits


def generation(most=32, **others):
    return GenerationOptions(lambda token: bytes([token]), frozenset([0]), most, **others)


def a_list(chance, count):
    docs = [" ".join(chance.choices(PARTS, k=chance.randint(1, 3))) for _ in range(count)]
    return [doc if readable(doc) else "x" for doc in docs]


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="module")
def tiny(tiny_path):
    return Reranker.load(tiny_path)


def test_prompts_are_the_published_words():
    assert THINK_FORMS["reasonrank"].turns("who [1]?", PASSAGES) == REASONRANK
    assert THINK_FORMS["rankzephyr-think"].turns("who [1]?", PASSAGES) == ZEPHYR_THINK
    assert THINK_FORMS["rearank"].turns("who [1]?", PASSAGES) == REARANK
    assert JUDGE_FORMS["rank1"].turns("who [1]?", PASSAGES[1:]) == [("user", RANK1)]
    encoder = JudgeEncoder(Bytes(), JUDGE_FORMS["rank1"], None)
    assert bytes(encoder.judged("who [1]?", encoder.passage(Document("Edison, 1879")), 900).ids).decode() == RANK1


def test_passages_are_cut_as_published():
    long = Document("  word\n" * 400)
    assert THINK_FORMS["rearank"].passage(long) == ("word " * 80)  # 400 characters behind the joining
    assert THINK_FORMS["rearank"].passage(Document("text", title="T")) == "Title: T Content: text"
    assert THINK_FORMS["rearank"].passage(Document("see [3] > [1]")) == "see [3] > [1]"
    assert THINK_FORMS["reasonrank"].passage(Document("see [3] > [1]")) == "see (3) > (1)"
    assert JUDGE_FORMS["rank1"].passage(long) == long.text.strip()
    assert JUDGE_FORMS["rank1"].passage(Document("text", title="T")) == "T text"


@pytest.mark.parametrize("name", THINK_FORMS)
def test_five_hundred_lists_are_permutations(name):
    """Windows of 20, 10 apart, by a model that writes anything and has random logits for its answers."""
    chance, options = random.Random(name), Listwise(mode="reason", passage_tokens=12, prompt=name).checked(20, 10)
    encoder = ThinkEncoder(Bytes(), FORMS[name], ChatTemplate(CHATML, {}))
    decode, limit = decode_of("reason", FORMS[name]), generation(24)
    for number in range(500):
        docs = as_documents(a_list(chance, 1 + (number % 8 if number % 10 else number // 10 % 40)))
        state = WindowState(chance.choice(PARTS), docs, encoder, options, 9000)
        windows = state.windows()
        start, end = next(windows)
        while True:
            prompt = encoder.encode(
                state.query, [state.passage(i) for i in state.order[start:end]], room=9000, reasoned=True, opened=False
            )
            state.record_tokens(state.order[start:end], prompt)
            answer = encoder.answer(end - start)
            room = len(prompt.ids) + answer.most_tokens + limit.max_tokens
            _, order = drive(decode(prompt.ids, answer, limit), Writer(chance.choice(TEXTS), number), room)
            try:
                start, end = windows.send(order)
            except StopIteration:
                break
        ranking = state.ranking("m", "cpu", 0.0, None)
        assert sorted(hit.index for hit in ranking) == list(range(len(docs)))
        assert [hit.score for hit in ranking] == list(range(len(docs) - 1, -1, -1))
        assert ranking.complete and ranking.problems == ()


def test_five_hundred_lists_are_scored():
    chance, options = random.Random(1), Listwise(mode="pointwise").checked(20, 10)
    encoder = JudgeEncoder(Bytes(), JUDGE_FORMS["rank1"], None)
    answer, limit = encoder.answer(1), generation(24)
    for number in range(500):
        docs = as_documents(a_list(chance, 1 + (number % 8 if number % 10 else number // 10 % 40)))
        state = JudgeState(chance.choice(PARTS), docs, encoder, options, 4000, "m")
        for index, prompt in enumerate(state.prompts):
            room = len(prompt.ids) + limit.max_tokens + answer.most_tokens
            writer = Writer(chance.choice(TEXTS), number)
            _, verdict = drive(continued(judge(prompt.ids, answer, limit), []), writer, room)
            state.record(index, math.exp(verdict.scores[0]), verdict.text, hurried=False)
        ranking = state.ranking("m", "cpu", 0.0, None)
        assert sorted(hit.index for hit in ranking) == list(range(len(docs)))
        scores = [hit.score for hit in ranking]
        assert scores == sorted(scores, reverse=True)
        assert all(0.0 <= score <= 1.0 for score in scores)
        assert ranking.complete


@pytest.mark.parametrize(
    ("written", "thought", "answer"),
    [
        ("<think>it is b</think>", "it is b", "<think>it is b</think> <answer> ["),
        ("so b is right <answer>[3] > [99]", "so b is right", "so b is right  </think> <answer> ["),
        ("on and on and on and on and on and on and on", "on and on and on and on and on a",
         "on and on and on and on and on a </think> <answer> ["),
        ("it ends\0", "it ends", "it ends </think> <answer> ["),
        ("\0", "", " </think> <answer> ["),
    ],
)  # fmt: skip
def test_thinking_of_a_window_ends_in_an_order_under_the_mask(written, thought, answer):
    encoder = ThinkEncoder(Bytes(), THINK_FORMS["reasonrank"], ChatTemplate(CHATML, {}))
    prompt = tuple(b"prompt:")
    sequence, order = drive(think(prompt, encoder.answer(12), generation(), picks=False), Writer(written))
    assert sorted(order.positions) == list(range(12))
    assert order.text == thought
    shown = bytes(sequence).decode()
    assert shown.startswith(f"prompt:{answer}")
    names = [str(1 + position) for position in order.positions]
    assert (f"{answer}" + "".join(f"{name}] > [" for name in names)).startswith(shown.removeprefix("prompt:"))


@pytest.mark.parametrize(
    ("written", "thought", "ending"),
    [
        ("It is he. Yes</think>", "It is he. Yes", "It is he. Yes</think>"),
        ("Edison. He made it! And the", "Edison. He made it!", "Edison. He made it!\n</think>"),  # cut by the limit
        ("no sentence\0", "no sentence", "no sentence\n</think>"),
        ("\0", "", "\n</think>"),
    ],
)
def test_rank1_reads_true_or_false_behind_the_thinking(written, thought, ending):
    encoder = JudgeEncoder(Bytes(), JUDGE_FORMS["rank1"], None)
    prompt, most = tuple(b"prompt:"), 21 if "!" not in written else len(written)

    def logits_of(sequence, prompt):
        logits = Writer(written)(sequence, prompt) * 0.0 - 9.0
        position = len(sequence) - len(prompt)
        if position < len(written):
            logits[ord(written[position])] = 5.0
        if bytes(sequence).endswith(b"</think> "):
            logits[ord("t")], logits[ord("f")] = 2.0, 1.0
        return logits

    sequence, order = drive(judge(prompt, encoder.answer(1), generation(most)), logits_of)
    assert bytes(sequence).decode() == f"prompt:{ending} "  # both answers begin with the blank
    assert math.exp(order.scores[0]) == pytest.approx(1 / (1 + math.exp(-1.0)))  # softmax of 2 and 1
    assert order.text == thought


def test_a_token_that_goes_on_behind_the_tag_is_removed():
    texts = {1: b"Yes", 2: b".\n", 3: b"</think>\n\n"}
    encoder = JudgeEncoder(Bytes(), JUDGE_FORMS["rank1"], None)
    answer, written = encoder.answer(1), iter([1, 2, 3])
    options = GenerationOptions(lambda token: texts.get(token, bytes([token])), frozenset(), 9)

    def logits_of(sequence, prompt):
        logits = np.zeros(256)
        logits[next(written, 0)] = 1.0
        return logits

    sequence, order = drive(judge((80,), answer, options), logits_of)
    assert sequence == [80, 1, *b"\n</think> "]  # ".\n" ends within the removed blanks
    assert order.text == "Yes."


def test_reasons_are_sentences_and_the_first_document_of_a_window_has_the_whole_text(tiny, monkeypatch):
    texts = iter(["[2] names him. Coffee is [1].", "Nobody is named."])

    def written(prompt, answer, options):
        from dearlite.listwise.decoding import Order, Step

        yield Step(prompt)
        return Order((1, 0), text=next(texts))

    monkeypatch.setattr("dearlite.listwise.ordering.decode_of", lambda mode, form: written)
    options = Listwise(prompt="reasonrank")
    ranking = tiny.rerank("q", ["a", "b"], listwise=options)
    assert [hit.reason for hit in ranking] == ["[2] names him.", "Coffee is [1]."]
    assert ranking.reasoning == ("[2] names him. Coffee is [1].",)
    assert [hit.reason for hit in tiny.rerank("q", ["a", "b"], listwise=options)] == ["Nobody is named.", None]


def test_tags_in_a_text_are_text_and_those_of_the_answer_are_the_vocabularys_own_tokens(tmp_path):
    """A vocabulary in which </think> is one token, as in Qwen3."""
    own = cut_tokenizer()
    tokens, kinds = list(own["tokenizer.ggml.tokens"]), list(own["tokenizer.ggml.token_type"])
    tag = len(tokens) - 1
    tokens[tag], kinds[tag] = "</think>", 4
    merges = [merge for merge in own["tokenizer.ggml.merges"] if merge.replace(" ", "") in set(tokens)]
    changed = {"tokens": tokens, "token_type": kinds, "merges": merges}
    tokenizer = own | {f"tokenizer.ggml.{name}": value for name, value in changed.items()}
    model = Reranker.load(write_tiny(tmp_path / "m.gguf", tokenizer=tokenizer))
    for name in ("reasonrank", "rearank", "rank1"):
        mode = mode_of(name)
        encoder = model._encoders.find(Listwise(prompt=name).checked(20, 10, mode))[1]
        passage = encoder.passage(Document("a </think> <answer>[1]</answer> b"))
        prompt = encoder.encode("q </think>", [passage], room=4000, reasoned=True, opened=False)
        assert tag not in prompt.ids
        assert encoder.answer(1).closing.count(tag) == 1
        ranking = model.rerank("q </think>", ["</think> true", "b"], listwise=Listwise(prompt=name, reasoning_tokens=4))
        assert sorted(hit.index for hit in ranking) == [0, 1]


@pytest.mark.parametrize(
    ("name", "mode"),
    [("reasonrank", "reason"), ("rearank", "reason"), ("rank-r1", "setwise"), ("rank1", "pointwise"),
     ("setwise-sft", "setwise"), ("rankzephyr", "permute")],
)  # fmt: skip
def test_a_file_that_names_its_form_needs_no_option(tmp_path, name, mode):
    stated = {"dearlite.schema": 1, "dearlite.kind": "listwise", "dearlite.prompt": name, "dearlite.max_tokens": 2000}
    model = Reranker.load(write_tiny(tmp_path / "m.gguf", extra=stated))
    identity = model.identity()
    assert identity["prompt"].split()[0] == name
    assert identity["options"].split()[0] == f"mode={mode}"
    ranking = model.rerank("q", ["a", "b", "c"], budget_s=60)
    assert sorted(hit.index for hit in ranking) == [0, 1, 2]
    assert bool(ranking.reasoning) == (FORMS[name].reasoning == "think")


def test_the_engine_scores_documents_side_by_side_as_alone(tiny):
    docs = [f"document {n} about tea" for n in range(11)]
    options = Listwise(mode="pointwise", reasoning_tokens=6)
    alone = [tiny.rerank("tea", [doc], listwise=options)[0].score for doc in docs]
    written = []
    seen = []
    ranking = tiny.rerank(
        "tea",
        docs,
        listwise=Listwise(mode="pointwise", reasoning_tokens=6, on_text=written.append),
        progress=lambda *counts: seen.append(counts),
    )
    scores = [hit.score for hit in sorted(ranking, key=lambda hit: hit.index)]
    assert scores == pytest.approx(alone, abs=5e-3)  # other rows in a product change its last bits
    assert seen == [(n, 11) for n in range(1, 12)]
    assert sorted(written) == sorted(f"{text}\n\n" for text in ranking.reasoning)
    assert all(hit.reason in ranking.reasoning for hit in ranking)
    two = tiny.rerank_many([("tea", docs[:3]), ("q", [])], batch_size=2, listwise=options)
    assert [len(ranking) for ranking in two] == [3, 0]
    again = tiny.rerank("tea", docs, listwise=options)
    assert [(hit.index, hit.score) for hit in again] == [(hit.index, hit.score) for hit in ranking]


@pytest.fixture
def clock(tiny, monkeypatch):
    """A clock that goes on by a second with each call of the model."""
    clock, read = Clock(), tiny._backend.read
    for module in ("dearlite.anytime", "dearlite.deadline", "dearlite.listwise.decoding", "dearlite.listwise.judging"):
        monkeypatch.setattr(f"{module}.time", clock)

    def counted(batch, complete, cancel=None):
        clock.now += 1.0
        if isinstance(cancel, TimedEvent) and cancel.left_s() <= 0:  # its thread waits by the real clock
            cancel.set()
        read(batch, complete, cancel)

    monkeypatch.setattr(tiny._backend, "read", counted)
    return clock


@pytest.mark.parametrize("name", ["reasonrank", "rearank", "rank-r1", "rank1"])
def test_the_end_of_a_budget_in_the_middle_of_thinking_is_a_whole_ranking(tiny, clock, monkeypatch, name):
    """The model would think for 3,000 tokens: it is stopped so early that the answer is there in time."""
    monkeypatch.setattr(tiny, "_end_tokens", frozenset())
    docs = [f"document {n}" for n in range(6)]
    options = Listwise(prompt=name, reasoning_tokens=3000, passage_tokens=12)
    ranking = tiny.rerank("q", docs, listwise=options, budget_s=150)
    assert clock.now <= 150
    assert sorted(hit.index for hit in ranking) == list(range(6))
    assert not ranking.complete
    assert ranking.reasoning
    assert any(hit.score is not None for hit in ranking)


@pytest.mark.parametrize("count", [1, 6, 30])
def test_a_budget_for_one_document_has_a_result_however_long_the_list_is(tiny, clock, count):
    """Side by side, the prompts of eight documents would be read before the first of them is judged."""
    options = Listwise(prompt="rank1", reasoning_tokens=4)
    docs = [f"document {n} " + "about tea " * 100 for n in range(count)]
    tiny.rerank("tea", docs[:1], listwise=options, budget_s=1000)
    alone_s = clock.now
    ranking = tiny.rerank("tea", docs, listwise=options, budget_s=alone_s)
    assert clock.now <= 2 * alone_s + 1
    assert [hit.index for hit in ranking if hit.score is not None] == [0]
    assert ranking.unscored == count - 1


def test_with_enough_time_all_documents_are_judged_in_rounds_of_the_batch_size(tiny, clock, monkeypatch):
    widths, run = [], tiny._backend.run
    monkeypatch.setattr(
        tiny._backend, "run", lambda decodings, *a, **o: (widths.append(len(decodings)), run(decodings, *a, **o))[1]
    )
    docs = [f"document {n} about tea" for n in range(18)]
    options = Listwise(prompt="rank1", reasoning_tokens=4)
    ranking = tiny.rerank("tea", docs, listwise=options, budget_s=10**6)
    assert widths == [1, 8, 8, 1]
    assert ranking.complete
    scores = [hit.score for hit in tiny.rerank("tea", docs, listwise=options)]
    assert [hit.score for hit in ranking] == pytest.approx(scores, abs=5e-3)


def test_a_time_that_is_enough_does_not_end_thinking(tiny, clock):
    options = Listwise(prompt="reasonrank", reasoning_tokens=20, passage_tokens=12)
    docs = [f"document {n}" for n in range(6)]
    ranking = tiny.rerank("q", docs, listwise=options, budget_s=4000)
    assert ranking.complete and ranking.unscored == 0
    assert [hit.index for hit in ranking] == [hit.index for hit in tiny.rerank("q", docs, listwise=options)]


def test_documents_that_the_time_did_not_reach_follow_those_that_were_judged(tiny, clock, monkeypatch):
    monkeypatch.setattr(tiny, "_end_tokens", frozenset())
    docs = [f"document {n}" for n in range(20)]
    written = []
    options = Listwise(prompt="rank1", reasoning_tokens=30, on_text=written.append)
    monkeypatch.setattr("dearlite.deadline.Deadline.as_event", until(lambda: len(written) >= 5))
    ranking = tiny.rerank("q", docs, listwise=options, budget_s=10**6)
    read = [hit for hit in ranking if hit.score is not None]
    unread = [hit.index for hit in ranking if hit.score is None]
    assert 5 <= len(read) < 20
    assert [hit.score for hit in read] == sorted((hit.score for hit in read), reverse=True)
    assert unread == sorted(unread)
    assert list(ranking)[: len(read)] == read
    assert not ranking.complete and ranking.unscored == len(unread)


def until(over):
    """`Deadline.as_event` of an event that is set when `over()`."""
    from contextlib import contextmanager
    from threading import Event

    class Watched(Event):
        def is_set(self):
            return over()

    @contextmanager
    def as_event(self):
        yield Watched()

    return as_event


@pytest.mark.parametrize(
    "options",
    [Listwise(mode="setwise", passes=2), Listwise(mode="pairwise", passes=2), Listwise(passes=2),
     Listwise(mode="first", passes=2), Listwise(prompt="reasonrank", reasoning_tokens=4, passes=2),
     Listwise(prompt="rearank", reasoning_tokens=4, passes=2), Listwise(prompt="rank-r1", reasoning_tokens=4, passes=2),
     Listwise(prompt="rank1", reasoning_tokens=4, passes=2)],
    ids=lambda options: str(options.prompt or options.mode),
)  # fmt: skip
def test_passes_report_the_agreement_in_every_mode(tiny, options):
    docs = [f"document {n} about {'tea' if n % 2 else 'sand'}" for n in range(7)]
    ranking = tiny.rerank("tea", docs, listwise=options)
    assert sorted(hit.index for hit in ranking) == list(range(7))
    assert -1.0 <= ranking.agreement <= 1.0
    assert tiny.rerank("tea", docs, listwise=options).agreement == ranking.agreement
    if options.prompt == "rank1":
        assert ranking.agreement > 0.9  # but for rounding, a score depends neither on the others nor on their order


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"mode": "first", "prompt": "reasonrank"},
            "thinks before it answers: take --mode reason, or --prompt rankgpt",
        ),
        ({"mode": "reason", "prompt": "rank1"}, "goes with --mode pointwise"),
        ({"mode": "pointwise", "prompt": "chat"}, "not one of mode pointwise: take rank1"),
        ({"mode": "pointwise", "window": 5}, "mode pointwise has no windows"),
        ({"mode": "pointwise", "group_size": 5}, "compares no groups"),
        ({"mode": "pointwise", "reasoning_tokens": 0}, "reasoning_tokens is 0"),
        ({"prompt": "rank1", "sort": "heap"}, "compares no groups"),
        ({"prompt": "rank2"}, "no listwise prompt form 'rank2'"),
        ({"mode": "think"}, "no mode 'think'"),
    ],
)
def test_bad_options_are_refused_in_one_line(tiny, options, words):
    with pytest.raises(UsageError) as refused:
        tiny.rerank("q", ["a", "b"], listwise=Listwise(**options))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_more_reasoning_than_fits_is_refused_before_anything_is_read(tiny, monkeypatch):
    monkeypatch.setattr(tiny._backend, "run", None)
    for name in ("reasonrank", "rank1"):
        with pytest.raises(InvalidInput, match="does not fit"):
            tiny.rerank("q", ["a", "b"], listwise=Listwise(prompt=name, reasoning_tokens=9000))


def test_answers_that_a_tokenizer_cannot_tell_apart_are_refused():
    class Blind(Bytes):
        def encode_after(self, anchor, text):
            return (32,)

    with pytest.raises(ModelFileError, match="cannot tell ' true' and ' false' apart"):
        JudgeEncoder(Blind(), JUDGE_FORMS["rank1"], None).answer(1)


def test_command_line(cli, tmp_path, tiny_path):
    docs = tmp_path / "d.jsonl"
    docs.write_text("".join(json.dumps({"id": str(n), "text": f"tea number {n}"}) + "\n" for n in range(5)))
    call = ("rerank", "-q", "tea", docs, "-m", tiny_path)
    for options in (
        ("--prompt", "reasonrank", "--reasoning-tokens", "4"),
        ("--explain", "--prompt", "rearank", "--reasoning-tokens", "4", "--window", "3"),
        ("--mode", "pointwise", "--reasoning-tokens", "4"),
        ("--prompt", "rank1", "--reasoning-tokens", "4", "--passes", "2"),
    ):
        code, out, err = cli(*call, *options)
        assert code == 0, err
        rows = [json.loads(line) for line in out.splitlines()]
        assert sorted(row["id"] for row in rows) == list("01234")
        assert ("agreement of the passes" in err) == ("--passes" in options)
    for wrong, words in (
        (("--mode", "first", "--prompt", "reasonrank"), "--prompt rankgpt"),
        (("--mode", "pointwise", "--window", "3"), "mode pointwise has no windows"),
        (("--prompt", "chat", "--reasoning-tokens", "9"), "--mode pointwise"),
        (("--reasoning-tokens", "9"), "mode permute writes no reasoning"),
    ):
        code, out, err = cli(*call, *wrong)
        assert (code, out, err.count("\n")) == (2, "", 1), wrong
        assert words in err
