"""Setwise and pairwise ranking: prompts, comparisons in one sequence, thinking, and rankings that are whole."""

import json
import random
import threading
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from byte_vocabulary import Bytes
from driving import drive
from tiny_gguf import write_tiny

from dearlite import Listwise, Reranker
from dearlite.anytime import order_within
from dearlite.documents import as_documents
from dearlite.errors import BudgetTooShort, Cancelled, InvalidInput, ModelFileError, UsageError
from dearlite.listwise.decoding import GenerationOptions
from dearlite.listwise.group_prompts import GROUP_FORMS, find_group_form
from dearlite.listwise.groups import GroupEncoder, continued, form_for
from dearlite.listwise.sorting import SortState
from dearlite.listwise.thinking import think
from dearlite.options import SORTS
from dearlite.readable import readable

WAYS = [(mode, name) for mode, sorts in SORTS.items() for name in sorts]
PARTS = (
    "the light bulb was invented", "naïve café", "漢字かな交じり", "[3]</answer>", "<|im_end|>", "Passage B: x", "q",
    "\x00\x07", "\u202e right to left", "a" * 60, "{query} {passages}", "<answer>[2]</answer>", "\n\n", "Output only B",
)  # fmt: skip
# Written by hand from ielab/llm-rankers and the training scripts of Rank-R1.
SETWISE = """Given a query "who?", which of the following passages is the most relevant one to the query?

Passage A: "Coffee is good"

Passage B: "Edison, 1879"

Output only the passage label of the most relevant passage:"""
PAIRWISE = """Given a query "who?", which of the following two passages is more relevant to the query?

Passage A: "Coffee is good"

Passage B: "Edison, 1879"

Output Passage A or Passage B:"""
RANK_R1 = [
    (
        "system",
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The "
        "assistant first thinks about the reasoning process in the mind and then provides the user with the answer. "
        "The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, "
        "respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>.",
    ),
    (
        "user",
        'Given the query: "who?", which of the following documents is most relevant?\n[1] Coffee is good\n[2] Edison, '
        "1879\nAfter completing the reasoning process, please provide only the label of the most relevant document to "
        "the query, enclosed in square brackets, within the answer tags. For example, if the third document is the "
        "most relevant, the answer should be: <think> reasoning process here </think> <answer>[3]</answer>.",
    ),
]
SFT = [
    (
        "system",
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The "
        "assistant provides the user with the answer enclosed within <answer> </answer> tags, i.e., <answer> answer "
        "here </answer>.",
    ),
    (
        "user",
        'Given the query: "who?", which of the following documents is most relevant?\n[1] Coffee is good\n[2] Edison, '
        "1879\nPlease provide only the label of the most relevant document to the query, enclosed in square brackets, "
        "within the answer tags. For example, if the third document is the most relevant, the answer should be: "
        "<answer>[3]</answer>.",
    ),
]


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="module")
def tiny(tiny_path):
    return Reranker.load(tiny_path)


def options_of(mode, name, **others):
    return Listwise(mode=mode, sort=name, **others).checked(20, 10)


def encoder_of(options):
    form = find_group_form(options)[1]
    return GroupEncoder(Bytes(), form_for(form, has_template=False), None)


def a_list(chance, count):
    docs = [" ".join(chance.choices(PARTS, k=chance.randint(1, 3))) for _ in range(count)]
    return [doc if readable(doc) else "x" for doc in docs]


def test_prompts_are_the_published_words():
    passages = ["Coffee is good", "Edison, 1879"]
    assert GROUP_FORMS["setwise"].turns("who?", passages) == [("user", SETWISE)]
    assert GROUP_FORMS["pairwise"].turns("who?", passages) == [("user", PAIRWISE)]
    assert GROUP_FORMS["rank-r1"].turns("who?", passages) == RANK_R1
    assert GROUP_FORMS["setwise-sft"].turns("who?", passages) == SFT
    prior = GROUP_FORMS["setwise-prior"].turns("who?", passages)[0][1]
    assert prior.startswith(SETWISE.partition("Output")[0])
    assert prior.endswith("output A.\n\nOutput only the passage label of the most relevant passage:")


@pytest.mark.parametrize("name", GROUP_FORMS)
def test_a_slots_name_in_a_text_stays_text(name):
    shown = GROUP_FORMS[name].turns("{passages}", ["{query} {i}", "{passage}"])[-1][1]
    assert all(text in shown for text in ("{passages}", "{query} {i}", "{passage}"))


@pytest.mark.parametrize("mode", SORTS)
def test_five_hundred_lists_are_permutations(mode):
    """A judge of random logits in place of a model; most lists by the algorithms that ask least."""
    chance, random_logits = random.Random(mode), np.random.default_rng(0)
    for number in range(500):
        name = SORTS[mode][0 if number % 10 else 1 + number // 10 % 2]
        options = options_of(
            mode,
            name,
            sort_k=chance.randint(1, 4 if mode == "setwise" else 2),
            passage_tokens=12,
            **({"group_size": chance.randint(2, 9)} if mode == "setwise" else {}),
            **({"shuffle_seed": number} if mode == "setwise" and number % 3 else {}),
        )
        docs = as_documents(a_list(chance, 1 + number % 40 if number % 10 else 1 + number // 13))
        encoder = encoder_of(options)
        counts = []
        state = SortState(chance.choice(PARTS), docs, encoder, options, 4000, "m")
        room = state.prompt_room + encoder.answer_tokens(options.group_size)
        decoding = state.decoding(GenerationOptions(bytes, frozenset(), 1), lambda: counts.append(state.done))  # noqa: B023
        drive(decoding, lambda *_: random_logits.standard_normal(256), room)
        ranking = state.ranking("m", "cpu", 0.0, None)
        assert sorted(hit.index for hit in ranking) == list(range(len(docs)))
        assert [hit.score for hit in ranking] == list(range(len(docs) - 1, -1, -1))
        assert ranking.complete and ranking.problems == ()
        assert counts == sorted(counts) and counts[-1] == len(docs)


@pytest.mark.parametrize(("mode", "name"), WAYS)
def test_lists_of_the_engine_are_permutations(tiny, mode, name):
    chance = random.Random(name)
    jobs = [(chance.choice(PARTS[:4]), a_list(chance, count)) for count in (1, 2, 5, 12)]
    options = Listwise(mode=mode, sort=name, passage_tokens=12, sort_k=3)
    for (query, docs), ranking in zip(jobs, tiny.rerank_many(jobs, batch_size=3, listwise=options), strict=True):
        assert sorted(hit.index for hit in ranking) == list(range(len(docs)))
        assert (ranking.query, ranking.complete, ranking.unscored) == (query, True, 0)
        assert all(0 < hit.tokens_used <= 12 for hit in ranking)
    again = tiny.rerank(*jobs[-1], listwise=options)
    assert [hit.index for hit in again] == [hit.index for hit in tiny.rerank(*jobs[-1], listwise=options)]
    assert len(tiny.rerank("q", [], listwise=options)) == 0


@pytest.mark.parametrize(("mode", "name"), WAYS)
def test_a_judge_that_knows_the_best_gets_it_first(mode, name):
    """The logits favour the label of the passage with the largest number, wherever it is shown."""
    options = options_of(mode, name, sort_k=4)
    values = random.Random(5).sample(range(10, 99), 23)

    def logits_of(sequence, _):
        text = bytes(sequence).decode()
        shown = {line[8]: int(line[12:14]) for line in text.splitlines() if line.startswith("Passage ")}
        logits = np.zeros(256)
        if text.endswith("Passage: "):
            logits[ord(max(shown, key=shown.get))] = 1.0
        return logits

    state = SortState("q", as_documents([f"{value}" for value in values]), encoder_of(options), options, 4000, "m")
    drive(state.decoding(GenerationOptions(bytes, frozenset(), 1), lambda: None), logits_of)
    order = [int(hit.text) for hit in state.ranking("m", "cpu", 0.0, None)]
    assert order[:4] == sorted(values, reverse=True)[:4]


def test_a_pair_whose_orders_disagree_keeps_its_places():
    options = options_of("pairwise", "sliding", sort_k=4)
    always_first = np.zeros(256)
    always_first[ord("A")] = 1.0
    state = SortState("q", as_documents(["a", "b", "c", "d"]), encoder_of(options), options, 4000, "m")
    drive(state.decoding(GenerationOptions(bytes, frozenset(), 1), lambda: None), lambda *_: always_first)
    assert state.order == [0, 1, 2, 3]


def test_prompts_are_read_whole_and_their_common_beginning_once(monkeypatch):
    options = options_of("setwise", "heap", sort_k=5)
    encoder = encoder_of(options)
    prompts, sizes, logits = [], [], np.random.default_rng(1)
    compare = encoder.compare
    monkeypatch.setattr(encoder, "compare", lambda *args: prompts.append(compare(*args).ids) or compare(*args))
    state = SortState("q", as_documents([f"document {n}" for n in range(20)]), encoder, options, 4000, "m")
    assert state.prompt_room
    del prompts[:]
    decoding = state.decoding(GenerationOptions(bytes, frozenset(), 1), lambda: None)
    read = 0

    def logits_of(sequence, _):
        assert tuple(sequence[: len(prompts[-1])]) == prompts[-1]
        return logits.standard_normal(256)

    def counted():
        nonlocal read
        step = next(decoding)
        while True:
            read += len(step.tokens)
            sizes.append(len(step.tokens))
            sent = yield step
            try:
                step = decoding.send(sent)
            except StopIteration:
                return

    drive(counted(), logits_of)
    head = encoder.form.turns("q", ["", ""])[0][1].index('A: "') + 4
    assert read <= sum(map(len, prompts)) - head * (len(prompts) - 1) + 4 * len(prompts)


def test_a_continued_prompt_has_the_logits_of_one_that_is_read_alone(tiny):
    options = options_of("setwise", "heap")
    encoder = tiny._encoders.find(options)[1]
    documents = as_documents([f"document {n} about rivers and tea" for n in range(8)])
    passages = [encoder.passage(document) for document in documents]
    prompts = [encoder.compare("rivers?", passages[part], 4000).ids for part in (slice(0, 4), slice(0, 8, 2))]
    generation = GenerationOptions(bytes, frozenset(), 1)

    def both():
        held = []
        yield from continued(encoder.decide(prompts[0], 4, generation), held)
        assert len(set(held[:60]) & set(prompts[1])) > 1
        return (yield from continued(encoder.decide(prompts[1], 4, generation), held))

    (after,) = tiny._backend.run([both()], 4000)
    (alone,) = tiny._backend.run([encoder.decide(prompts[1], 4, generation)], 4000)
    assert after.scores == pytest.approx(alone.scores, abs=2e-2)
    assert sum(np.exp(after.scores)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("written", "thought", "label"),
    [
        ("<think>it is b</think>", "it is b", "</think> <answer>["),
        ("so b is right <answer>[7]", "so b is right", " </think> <answer>["),  # an answer of its own, not shown
        ("on and on and on and on and on and on and on", "on and on and on and on and on a", " </think> <answer>["),
        ("it ends\0", "it ends", " </think> <answer>["),
        ("<think></think>", "", "</think> <answer>["),
    ],
)
def test_thinking_ends_in_a_label_whatever_the_model_writes(written, thought, label):
    encoder = GroupEncoder(Bytes(), form_for(GROUP_FORMS["rank-r1"], True), object())
    answer = encoder.answer(12)
    prompt, tokens = tuple(b"prompt:"), written.encode()
    generation = GenerationOptions(lambda token: bytes([token]), frozenset([0]), 32)

    def logits_of(sequence, _):
        logits = np.zeros(256)
        position = len(sequence) - len(prompt)
        if position < len(tokens) and bytes(sequence[len(prompt) :]) == tokens[:position]:
            logits[tokens[position]] = 2.0
        elif sequence[-1] == ord("["):
            logits[ord("7")] = 1.0
        return logits

    sequence, order = drive(think(prompt, answer, generation, picks=True), logits_of)
    assert order.positions[0] == 6
    assert order.text == thought
    assert bytes(sequence).decode().partition(":")[2].startswith(written[:7])
    assert label in bytes(sequence).decode()
    assert bytes(sequence).decode().count("<answer>") == 1


def test_reasons_belong_to_the_documents_of_their_comparison(tiny, monkeypatch):
    from dearlite.listwise.decoding import Order, Step

    def decide(self, prompt, count, generation):
        yield Step(prompt)
        generation.on_text("streamed")
        return Order((1, 0), (0.0, 0.0), text="[2] names him. Coffee is [1].")

    monkeypatch.setattr(GroupEncoder, "decide", decide)
    written = []
    options = Listwise(mode="setwise", prompt="rank-r1", shuffle_seed=1, on_text=written.append)
    ranking = tiny.rerank("q", ["a", "b"], listwise=options)
    assert [hit.reason for hit in ranking] == ["[2] names him.", "Coffee is [1]."]
    assert ranking.reasoning == ("[2] names him. Coffee is [1].",)
    assert written == ["streamed", "\n\n"]


def test_shuffled_comparisons_are_the_same_in_every_run_and_differ_by_seed():
    def shown(seed):
        options = options_of("setwise", "heap", shuffle_seed=seed)
        state = SortState("q", as_documents(list("abcdefgh")), encoder_of(options), options, 4000, "m")
        return [state._orders(members) for members in ((0, 1, 2, 3), (3, 2, 1, 0), (4, 5, 6, 7))]

    assert shown(929) == shown(929) != shown(1)
    first, same, _ = shown(929)
    assert first == same  # an equal set of documents is asked once
    assert [GROUP_FORMS[name].seed for name in ("setwise", "setwise-sft", "rank-r1")] == [None, 929, 929]


@contextmanager
def stopped(event):
    yield event


class StubDeadline:
    """A deadline that ends when `event` is set."""

    budget_s, left_s, timed_out, over = 1.0, 0.0, True, False

    def __init__(self, event):
        self.event = event

    def as_event(self):
        return stopped(self.event)


def test_the_end_of_a_budget_in_the_middle_of_thinking_leaves_a_whole_ranking(tiny):
    stop, texts = threading.Event(), []

    def on_text(text):
        texts.append(text)
        if texts.count("\n\n") == 2:  # two comparisons are over, and the third thinks
            stop.set()

    options = Listwise(mode="setwise", prompt="rank-r1", reasoning_tokens=200, passage_tokens=12, on_text=on_text)
    docs = as_documents([f"document {n}" for n in range(12)])
    ranking, read = order_within(tiny, "q", docs, options, StubDeadline(stop), lambda done, total: None, first=True)
    assert sorted(hit.index for hit in ranking) == list(range(12))
    assert not ranking.complete
    assert 4 <= len(read) <= 8
    assert {hit.index for hit in ranking if hit.score is not None} == read


def test_a_budget_of_the_call_and_cancelling_have_the_order_so_far(tiny):
    docs = [f"document {n}" for n in range(12)]
    options = Listwise(mode="setwise", sort="bubble")
    ranking = tiny.rerank("q", docs, listwise=options, budget_s=60)
    assert (ranking.complete, ranking.unscored) == (True, 0)
    assert [hit.index for hit in ranking] == [hit.index for hit in tiny.rerank("q", docs, listwise=options)]
    cancel = threading.Event()
    with pytest.raises(Cancelled) as ended:
        tiny.rerank("q", docs, listwise=options, cancel=cancel, progress=lambda done, total: cancel.set())
    partial = ended.value.partial
    assert sorted(hit.index for hit in partial) == list(range(12))
    assert not partial.complete and 0 < partial.unscored < 12


def test_the_end_of_a_budget_before_allpair_decides_is_an_error_and_no_ranking(tiny):
    """Its comparisons count at its end only: an order of documents in comparisons would be the given one."""
    stop, asked, decide = threading.Event(), [], GroupEncoder.decide

    def counted(encoder, prompt, *args):
        asked.append(prompt)
        if len(asked) == 5:
            stop.set()
        return decide(encoder, prompt, *args)

    docs = as_documents([f"document {n}" for n in range(12)])
    options = Listwise(mode="pairwise", sort="allpair")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GroupEncoder, "decide", counted)
        with pytest.raises(BudgetTooShort, match="had not ended after"):
            order_within(tiny, "q", docs, options, StubDeadline(stop), lambda done, total: None, first=True)
    assert 5 <= len(asked) < 132


def test_passes_are_fused(tiny):
    ranking = tiny.rerank("q", [f"document {n}" for n in range(6)], listwise=Listwise(mode="setwise", passes=3))
    assert sorted(hit.index for hit in ranking) == list(range(6))
    assert ranking.agreement is not None


def test_a_group_larger_than_the_list_is_the_list(tiny, monkeypatch):
    """Labels are made for the documents that there are, not for billions."""
    counts, encode = [], GroupEncoder._encode_answer
    monkeypatch.setattr(
        GroupEncoder, "_encode_answer", lambda self, count: (counts.append(count), encode(self, count))[1]
    )
    docs = [f"document {n}" for n in range(7)]
    for prompt in ("setwise-sft", "rank-r1"):
        options = Listwise(mode="setwise", prompt=prompt, group_size=2**31, shuffle_seed=5, passage_tokens=12)
        ranking = tiny.rerank(
            "q", docs, listwise=replace(options, reasoning_tokens=4) if prompt == "rank-r1" else options
        )
        assert sorted(hit.index for hit in ranking) == list(range(7))
    assert counts and max(counts) == 7
    with pytest.raises(UsageError, match="group_size is 27, and this prompt form labels passages by letters"):
        tiny.rerank("q", docs, listwise=Listwise(mode="setwise", group_size=27))


def test_identity_names_what_decides_the_order(tiny):
    plain = tiny.identity()["options"]
    assert plain == "mode=permute window=20 stride=10 passage_tokens=None reasoning_tokens=512 passes=1"
    ways = [
        Listwise(mode="setwise"), Listwise(mode="setwise", shuffle_seed=1), Listwise(mode="setwise", group_size=3),
        Listwise(mode="setwise", sort_k=3), Listwise(mode="setwise", sort="bubble"), Listwise(mode="pairwise"),
        Listwise(mode="setwise", prompt="setwise-sft"), Listwise(mode="pairwise", sort="allpair"),
    ]  # fmt: skip
    identities = [tiny.identity(way) for way in ways]
    assert len({(each["prompt"], each["options"]) for each in identities}) == len(ways)
    assert identities[0] == tiny.identity(Listwise(mode="setwise", group_size=4, sort="heap", sort_k=10))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "setwise", "group_size": 1}, "group_size is 1: it must be a whole number from 2"),
        ({"mode": "setwise", "group_size": 27}, "at most 26"),
        ({"mode": "setwise", "sort": "allpair"}, "one of heap, bubble, insertion"),
        ({"mode": "setwise", "window": 5}, "mode setwise has no windows"),
        ({"mode": "setwise", "sort_k": 0}, "sort_k is 0"),
        ({"mode": "setwise", "prompt": "chat"}, "not one of mode setwise"),
        ({"mode": "setwise", "prompt": "pairwise"}, "not one of mode setwise"),
        ({"mode": "setwise", "reasoning_tokens": 9}, "asks for no reasoning"),
        ({"mode": "pairwise", "group_size": 3}, "compares two documents"),
        ({"mode": "pairwise", "reasoning_tokens": 9}, "writes no reasoning"),
        ({"mode": "permute", "sort": "heap"}, "compares no groups"),
        ({"mode": "permute", "prompt": "rank-r1"}, "goes with --mode setwise"),
        ({"mode": "reason", "prompt": "rank-r1"}, "take that mode in place of --mode reason or --explain"),
        ({"mode": "pairwise", "prompt": "setwise"}, "not one of mode pairwise: take pairwise"),
        ({"mode": ["setwise"]}, "no mode ['setwise']: it is one of"),
        ({"prompt": ["rank-r1"]}, "no listwise prompt form ['rank-r1']: it is one of"),
        ({"mode": "reason", "reasoning_tokens": None}, "reasoning_tokens is None: it must be a whole number from 1"),
        ({"passes": None}, "passes is None: it must be a whole number from 1"),
        ({"on_text": 3}, "on_text is 3: it must be a function"),
    ],
)
def test_bad_options_are_refused_in_one_line(tiny, options, words):
    with pytest.raises(UsageError) as refused:
        tiny.rerank("q", ["a", "b"], listwise=Listwise(**options))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_labels_that_a_tokenizer_cannot_tell_apart_are_refused():
    class Blind(Bytes):
        def encode_after(self, anchor, text):
            return (32, 65) if len(text) == 2 else tuple(self.encode(text))  # every letter is "A"

    encoder = GroupEncoder(Blind(), form_for(GROUP_FORMS["setwise"], False), None)
    with pytest.raises(ModelFileError, match="cannot tell 4 labels apart, from A to D"):
        encoder.answer(4)


def test_a_group_that_does_not_fit_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    model = Reranker.load(write_tiny(tmp_path / "small.gguf", context=256))
    monkeypatch.setattr(model._backend, "run", None)
    with pytest.raises(InvalidInput, match="a smaller --group-size"):
        model.rerank("q", ["word " * 30] * 20, listwise=Listwise(mode="setwise", group_size=20))


@pytest.mark.parametrize(
    ("count", "options", "remedy"),
    [
        (3, {"mode": "setwise", "group_size": 3}, "take a smaller --group-size or a shorter query"),
        (2, {"mode": "setwise"}, "take a shorter query"),
        (3, {"mode": "pairwise"}, "take a shorter query"),
        (3, {"prompt": "rank-r1"}, "take a smaller --group-size, fewer --reasoning-tokens or a shorter query"),
        (2, {"prompt": "rank-r1"}, "take fewer --reasoning-tokens or a shorter query"),
        (3, {"prompt": "rank1"}, "take fewer --reasoning-tokens or a shorter query"),
        (3, {"mode": "permute"}, "take a smaller --window or a shorter query"),
        (2, {"mode": "reason"}, "take fewer --reasoning-tokens or a shorter query"),
    ],
)
def test_a_prompt_that_does_not_fit_is_told_what_makes_room(tiny, count, options, remedy):
    with pytest.raises(InvalidInput, match=f"leave no room for them; {remedy}$"):
        tiny.rerank("q " * 9000, ["a"] * count, listwise=Listwise(**options))


def test_a_model_without_a_template_is_asked_in_plain_text(tmp_path):
    model = Reranker.load(write_tiny(tmp_path / "m.gguf", chat_template=" "))
    model._encoders._source = None
    ranking = model.rerank("q", ["a", "b", "c"], listwise=Listwise(mode="setwise"))
    assert sorted(hit.index for hit in ranking) == [0, 1, 2]
    with pytest.raises(ModelFileError, match="--prompt setwise"):
        model.rerank("q", ["a", "b", "c"], listwise=Listwise(mode="setwise", prompt="rank-r1"))


def test_command_line(cli, tmp_path, tiny_path):
    docs = tmp_path / "d.jsonl"
    docs.write_text("".join(json.dumps({"id": str(n), "text": f"tea number {n}"}) + "\n" for n in range(6)))
    call = ("rerank", "-q", "tea", docs, "-m", tiny_path)
    for options in (
        ("--mode", "setwise", "--group-size", "3", "--sort", "insertion", "--sort-k", "2"),
        ("--mode", "setwise", "--prompt", "rank-r1", "--reasoning-tokens", "4", "--shuffle-seed", "3"),
        ("--mode", "pairwise", "--sort", "sliding"),
    ):
        code, out, err = cli(*call, *options)
        assert code == 0, err
        assert sorted(json.loads(line)["id"] for line in out.splitlines()) == list("012345")
    for wrong, words in (
        (("--mode", "setwise", "--group-size", "1"), "--group-size is 1"),
        (("--group-size", "3"), "use mode setwise"),
        (("--mode", "setwise", "--sort", "allpair"), "heap, bubble, insertion"),
        (("--mode", "setwise", "--reasoning-tokens", "9"), "--prompt rank-r1"),
    ):
        code, out, err = cli(*call, *wrong)
        assert (code, out, err.count("\n")) == (2, "", 1), wrong
        assert words in err
