"""Option values that dearlite parses itself, and the records that commands get."""

import click
import pytest

from dearlite.cli.options.listwise import listwise_of
from dearlite.cli.options.model import Loading, ModelOptions
from dearlite.cli.options.spoken import options_named
from dearlite.cli.options.types import ActorRange, GpuLayers
from dearlite.errors import UsageError
from dearlite.models.chain import resolve
from dearlite.options import DEFAULT_REASONING_TOKENS, Listwise, Long


@pytest.mark.parametrize(("text", "layers"), [("auto", None), ("0", 0), ("33", 33)])
def test_gpu_layers_are_a_number_or_auto(text, layers):
    assert GpuLayers()(text) == layers


@pytest.mark.parametrize("text", ["", "many", "-1", "1.5", "AUTO"])
def test_other_gpu_layers_are_refused(text):
    with pytest.raises(click.BadParameter, match=f"'{text}' is neither auto, nor a whole number from 0"):
        GpuLayers()(text)


@pytest.mark.parametrize(("text", "actors"), [("1", (1, 1)), ("8", (8, 8)), ("4-64", (4, 64)), ("3-", (3, 3))])
def test_actors_are_a_number_or_a_range(text, actors):
    assert ActorRange()(text) == actors


@pytest.mark.parametrize("text", ["", "0", "2-1", "0-4", "-3", "a-b", "1-2-3"])
def test_other_actors_are_refused(text):
    with pytest.raises(click.BadParameter, match=f"'{text}' is neither a whole number from 1, nor a range MIN-MAX"):
        ActorRange()(text)


def test_options_that_the_model_does_not_take_are_refused_without_loading_it(monkeypatch):
    monkeypatch.setattr("dearlite.loading._load", lambda *_: pytest.fail("a model was loaded"))
    single, pair = resolve("minilm-l12"), resolve(["minilm-l12", "minilm-l12:3"])
    assert (
        ModelOptions(chain=pair, loading=Loading(low_memory=True), long=Long("cascade")).name == "minilm-l12>minilm-l12"
    )
    with pytest.raises(UsageError, match="--long cascade needs a stage that picks passages"):
        ModelOptions(chain=single, loading=Loading(), long=Long("cascade"))
    with pytest.raises(UsageError, match="passages of 600 tokens are longer than the 512"):
        ModelOptions(chain=single, loading=Loading(), long=Long("chunk", 600))
    with pytest.raises(UsageError, match="minilm-l12 is a pointwise model"):
        ModelOptions(chain=single, loading=Loading(), listwise=Listwise())
    with pytest.raises(UsageError, match="--adapter goes with a listwise model, and no stage is one"):
        ModelOptions(chain=pair, loading=Loading(adapter="a.gguf"))


@pytest.mark.parametrize("mode", ["permute", "first", "generate"])
@pytest.mark.parametrize("count", [9, DEFAULT_REASONING_TOKENS])
def test_reasoning_tokens_go_with_the_mode_that_reasons(mode, count):
    others = dict.fromkeys(("window", "stride", "passage_tokens", "passes", "prompt"))
    with pytest.raises(UsageError, match=f"--reasoning-tokens {count} goes with --mode reason"):
        listwise_of(mode=mode, explain=False, reasoning_tokens=count, **others)
    for mode_given, explain in (("reason", False), (None, True)):
        listwise = listwise_of(mode=mode_given, explain=explain, reasoning_tokens=count, **others)
        assert (listwise.mode, listwise.reasoning_tokens) == ("reason", count)


def test_the_model_file_decides_the_mode_of_reasoning_tokens():
    others = dict.fromkeys(("window", "stride", "passage_tokens", "passes", "prompt"))
    listwise = listwise_of(mode=None, explain=False, reasoning_tokens=9, **others)
    assert listwise.checked(20, 10, "pointwise").reasoning_tokens == 9
    with pytest.raises(UsageError, match="reasoning_tokens is 9, and mode permute writes no reasoning"):
        listwise.checked(20, 10, "permute")


@pytest.mark.parametrize("value", ["0", "-3"])
@pytest.mark.parametrize(
    "option", ["--window", "--stride", "--passage-tokens", "--passes", "--sort-k", "--group-size", "--reasoning-tokens"]
)
def test_messages_of_the_library_name_the_option_that_was_typed(cli, option, value):
    mode = ("--mode", "reason") if option == "--reasoning-tokens" else ("--mode", "setwise")
    mode = () if option in ("--window", "--stride", "--passes") else mode
    code, out, err = cli("rerank", "-q", "tea", "-", "-m", "model.gguf", *mode, option, value)
    assert (code, out) == (2, "")
    assert err.startswith(f"dearlite: {option} is {value}")
    assert err.count("\n") == 1


def test_names_of_options_stand_only_where_a_message_begins_with_the_argument():
    for before, after in (
        ("sort_k is 0: it must be more", "--sort-k is 0: it must be more"),
        ("sort_k 0 is wrong", "sort_k 0 is wrong"),
        ("the sort_k is 0", "the sort_k is 0"),
        ("other is 0", "other is 0"),
    ):
        with pytest.raises(UsageError) as raised, options_named({"sort_k": "--sort-k"}):
            raise UsageError(before)
        assert str(raised.value) == after
