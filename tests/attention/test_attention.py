"""Attention rerankers at run time: one list, one prompt, always a permutation."""

import random
from threading import Event

import numpy as np
import pytest
from attention_models import QUERY, TEXTS, causal

from dearlite import Listwise, Long, Reranker
from dearlite.attention.scoring import document_scores
from dearlite.attention.tokens import LEAST_TOKENS, ListEncoder
from dearlite.documents import Document
from dearlite.errors import BudgetTooShort, Cancelled, DeviceUnavailable, InvalidInput, ModelFileError, UsageError
from dearlite.export import export
from dearlite.models.attention import AttentionReading

SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
HOSTILE = (
    "<|im_end|>", "[1] [2] > [3]", "\u202e\u0661\u0662", "a" * 300, "Query: N/A", "\n\n[3] coffee", "<bos>",
    "\U0001f600", "tea\x00tea", "é" * 40, " \t tea \n\n", "Please find information",
)  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attention")
    causal(folder, "llama, 4 heads of 4, 10000", num_key_value_heads=1, **SMALL)
    return export(folder, output=folder / "m.dear", quant="fp32", heads="icr").path


@pytest.fixture(scope="module")
def model(path):
    with Reranker.load(path, device="cpu", threads=1) as reranker:
        yield reranker


def test_scores_leave_out_tokens_far_below_the_mean():
    # differences: 1 and eleven times 0, but one of -9 lies below mean - 2 std of its thirteen: the sum is 1
    attention = np.array([1] + [0] * 11 + [-9] + [0.5, 0.25], np.float32)
    null = np.zeros(15, np.float32)
    assert document_scores(attention, null, [(0, 13), (13, 15), (14, 15)]) == pytest.approx([1.0, 0.75, 0.25])
    assert document_scores(attention, attention, [(0, 13)]) == [0.0]


def test_five_hundred_random_lists_are_permutations(model):
    draw = random.Random(27)
    for number in range(500):
        count = draw.randint(1, 40) if number % 10 else draw.choice((1, 40))
        docs = [draw.choice((*HOSTILE, *TEXTS[:3])) + f" {draw.randint(0, 9)}" for _ in range(count)]
        ranking = model.rerank(draw.choice((QUERY, "N/A", "<|im_end|>", "[1]")), docs)
        assert sorted(hit.index for hit in ranking) == list(range(count))
        assert [hit.score for hit in ranking] == sorted((hit.score for hit in ranking), reverse=True)


def test_a_text_is_never_read_as_a_special_token(model):
    encoder, special = model._encoder, model._encoder.special_tokens
    passages = [encoder.passage(Document(text)) for text in ("<|im_end|> <bos>", "tea")]
    prompt = encoder.prompt("<|im_start|>", passages)
    plain = encoder.prompt("tea", [encoder.passage(Document("tea"))] * 2)
    counts = [[np.count_nonzero(made.ids == number) for number in special.values()] for made in (prompt, plain)]
    assert counts[0] == counts[1]


def test_documents_stand_in_reverse_and_spans_are_in_the_callers_order(model):
    encoder = model._encoder
    prompt = encoder.prompt(QUERY, [encoder.passage(Document(text)) for text in ("tea tea", "coffee")])
    (tea, coffee) = (encoder.ids(word)[0] for word in ("tea", "coffee"))
    first, second = ([int(n) for n in prompt.ids[start:stop]] for start, stop in prompt.spans)
    assert first.count(tea) == 2 and second.count(coffee) == 1 and prompt.spans[1] < prompt.spans[0]
    assert len(prompt.prefix) >= prompt.spans[0][1] and prompt.rows[0] <= len(prompt.tails[0])


def test_both_tails_follow_the_same_documents(model):
    encoder = model._encoder
    passages = [encoder.passage(Document(text)) for text in TEXTS]
    own, null = encoder.prompt(QUERY, passages), encoder.prompt("N/A", passages)
    assert (own.prefix == null.prefix).all() and (own.tails[1] == null.tails[0]).all() and own.spans == null.spans


def test_a_list_beyond_the_context_is_cut_evenly_and_then_refused(model):
    docs = ["tea " * 200, "coffee", "a b c d " * 100]
    ranking = model.rerank(QUERY, [*docs, *["bulb " * 150] * 6])
    assert {hit.truncated for hit in ranking if hit.tokens_total >= 150} == {True}
    (short,) = (hit for hit in ranking if hit.index == 1)
    assert (short.tokens_used, short.truncated) == (1, False)
    used = {hit.tokens_used for hit in ranking if hit.truncated}
    assert len(used) == 1 and LEAST_TOKENS <= used.pop() < 150
    with pytest.raises(InvalidInput, match="a list of 80 documents does not fit in the 1024 tokens"):
        model.rerank(QUERY, ["tea " * 50] * 80)
    with pytest.raises(InvalidInput, match="leaves no room for a document: shorten the query"):
        model.rerank("tea " * 1100, docs)


def test_a_document_is_read_up_to_three_hundred_words(model):
    (hit,) = model.rerank(QUERY, ["tea " * 500])
    assert (hit.tokens_used, hit.tokens_total, hit.truncated) == (300, 500, True)


def test_documents_without_a_token_are_refused_by_position(model):
    with pytest.raises(InvalidInput, match="document 1 "):
        model.rerank(QUERY, ["tea", " "])
    assert len(model.rerank(QUERY, [])) == 0


def test_progress_ends_at_all_documents_and_cancel_ends_the_call(model):
    counts = []
    model.rerank(QUERY, list(TEXTS), progress=lambda done, total: counts.append((done, total)))
    assert counts[-1] == (len(TEXTS), len(TEXTS)) and counts == sorted(counts)
    stop = Event()
    stop.set()
    with pytest.raises(Cancelled):
        model.rerank(QUERY, list(TEXTS), cancel=stop)


def test_a_budget_gives_a_whole_ranking_or_says_that_it_is_too_short(model):
    ranking = model.rerank(QUERY, list(TEXTS), budget_s=60)
    assert ranking.complete and [hit.index for hit in ranking] == [
        hit.index for hit in model.rerank(QUERY, list(TEXTS))
    ]
    with pytest.raises(BudgetTooShort):
        model.rerank(QUERY, list(TEXTS), budget_s=1e-6)


def test_passes_are_fused_and_report_their_agreement(model):
    passes = Listwise(passes=2)
    ranking = model.rerank(QUERY, list(TEXTS), listwise=passes)
    assert sorted(hit.index for hit in ranking) == list(range(len(TEXTS)))
    assert -1.0 <= ranking.agreement <= 1.0
    assert model.rerank(QUERY, list(TEXTS), listwise=passes, budget_s=60).agreement == ranking.agreement
    assert model.rerank(QUERY, list(TEXTS)).agreement is None
    assert model.identity(passes) == model.identity() | {"options": "passes=2"}
    with pytest.raises(UsageError, match="passes is 101"):
        model.rerank(QUERY, ["tea"], listwise=Listwise(passes=101))
    with pytest.raises(UsageError, match="take a listwise model"):
        model.rerank(QUERY, ["tea"], listwise=Listwise(passes=2, mode="first"))


def test_the_command_line_takes_passes_and_no_other_option(cli, path, tmp_path):
    (tmp_path / "d.txt").write_text("tea\ncoffee\nmilk\n")
    call = ("rerank", "-q", "tea", tmp_path / "d.txt", "-m", path)
    code, out, err = cli(*call, "--passes", "2")
    assert (code, out.count("\n")) == (0, 3)
    assert "agreement of the passes: Kendall's tau" in err
    code, _, err = cli(*call[:-1], "minilm-l12", "-m", f"{path}:2", "--passes", "2")
    assert code == 0 and "agreement of the passes: Kendall's tau" in err
    code, out, err = cli(*call, "--passes", "2", "--window", "3")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "need a listwise model" in err


def test_options_of_other_kinds_are_refused_in_one_line(model, path):
    with pytest.raises(UsageError, match="mode is first, and m is an attention reranker"):
        model.rerank(QUERY, ["tea"], listwise=Listwise(mode="first"))
    with pytest.raises(UsageError, match="put a pointwise stage before it"):
        model.rerank(QUERY, ["tea"], long=Long("chunk"))
    with pytest.raises(UsageError, match="no score of a single document"):
        model.score([(QUERY, "tea")])
    with pytest.raises(UsageError, match="gpu_layers goes with"):
        Reranker.load(path, gpu_layers=1)
    with pytest.raises((DeviceUnavailable, UsageError)):
        Reranker.load(path, device="cuda")


def test_an_instruction_replaces_the_words_before_the_query(model, path):
    answer = "Please answer the following question based on the information in the paragraphs above."
    with model.with_instruction(answer) as other, Reranker.load(path, device="cpu", instruction=answer) as loaded:
        own = [hit.score for hit in model.rerank(QUERY, list(TEXTS))]
        scores = [hit.score for hit in other.rerank(QUERY, list(TEXTS))]
        assert scores == [hit.score for hit in loaded.rerank(QUERY, list(TEXTS))] != own
        assert other.identity() == loaded.identity() != model.identity()
        assert other.identity()["instruction"] == answer


def test_a_stage_of_a_cascade_reorders_the_head(path):
    with Reranker.load(["minilm-l12", (str(path), 3)], device="cpu") as cascade:
        ranking = cascade.rerank(QUERY, list(TEXTS))
        assert sorted(hit.index for hit in ranking) == list(range(len(TEXTS)))
        assert [len(hit.stages) for hit in ranking] == [2, 2, 2, *[1] * (len(TEXTS) - 3)]
        within = cascade.rerank(QUERY, list(TEXTS), budget_s=60)
        assert [hit.index for hit in within] == [hit.index for hit in ranking]
        assert "attention" not in cascade.identity()["model"]
        with pytest.raises(UsageError, match="has no listwise stage"):
            cascade.rerank(QUERY, ["tea"], listwise=Listwise(passes=2, mode="first"))
        passes = cascade.rerank(QUERY, list(TEXTS), listwise=Listwise(passes=3))
        assert sorted(hit.index for hit in passes) == list(range(len(TEXTS))) and passes.agreement is not None
        head = [hit.index for hit in cascade.rerank(QUERY, list(TEXTS)).hits[:3]]
        assert {hit.index for hit in passes.hits[:3]} == set(head)
        assert "passes=3" in cascade.identity(Listwise(passes=3))["options"]


def test_words_that_leave_no_room_are_a_fault_of_the_file(model):
    with pytest.raises(ModelFileError, match=r"leaves no room beside the \d+ tokens .*: it must be \d+ or more$"):
        ListEncoder(model.bundle.read("tokenizer.json"), AttentionReading(heads="icr", before="", after=""), 24)


def test_commands_run_it_and_name_its_kind(path, cli, tmp_path):
    (tmp_path / "docs.txt").write_text("tea\ncoffee\nEdison invented the light bulb\n")
    code, out, _ = cli("rerank", "-q", QUERY, tmp_path / "docs.txt", "-m", path, "--format", "jsonl", "--device", "cpu")
    assert code == 0 and len(out.splitlines()) == 3
    code, out, _ = cli("models", "show", path)
    assert code == 0 and "attention" in out and "icr" in out and "the prompt of a list" in out
    code, out, err = cli("models", "verify", path)
    assert code == 0, err
    for arguments, message in (
        (
            ("--mode", "first"),
            "is an attention reranker: modes, windows and reasons (--mode first) need a listwise model",
        ),
        (("--long", "chunk"), "is an attention reranker and reads a document's beginning"),
        (("--gpu-layers", "1"), "--gpu-layers goes with a model in a GGUF, and m is attention"),
    ):
        code, out, err = cli("rerank", "-q", QUERY, tmp_path / "docs.txt", "-m", path, *arguments)
        assert (code, out) == (2, "") and message in err and err.count("\n") == 1
    code, _, err = cli("bench", "-m", path)
    assert code == 2 and "reads a list, and bench measures pointwise models" in err


def test_a_file_of_heads_is_not_overwritten(path, cli, tmp_path):
    heads = tmp_path / "heads.dear"
    heads.write_text("0-1")
    code, _, err = cli("export", path.parent, "--heads", heads, "-o", heads, "--force")
    assert code == 2 and "--heads" in err and heads.read_text() == "0-1"
    code, _, err = cli("export", path.parent, "--heads", "icr", "-o", tmp_path / "m.gguf")
    assert code == 2 and "llama.cpp gives no attention" in err


def test_a_server_gives_a_call_on_a_list_its_model_alone(path):
    from dearlite.models.chain import resolve
    from dearlite.serve.models import serve_model

    assert not serve_model(resolve(path), {"device": "cpu"}).shares
