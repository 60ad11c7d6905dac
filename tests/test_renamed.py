"""Former names of options and arguments work for one version, each with a line that names the new one."""

import asyncio

import click
import pytest

from dearlite import DearliteWarning, Reranker, UsageError, arerank, rerank
from dearlite.cli.main import COMMANDS, main
from dearlite.cli.options import renamed
from dearlite.ranking import StageReport
from dearlite.renamed import ELSEWHERE, FORMER, with_former_names

DOCS = ["Coffee is good for diet", "Edison's bulb, 1879"]


@pytest.fixture(scope="module")
def reranker():
    return Reranker.load()


def test_a_former_argument_works_with_a_warning_at_the_callers_line(reranker):
    with pytest.warns(DearliteWarning, match="^together is called batch_size now: the former name ends with") as caught:
        (ranking,) = reranker.rerank_many([("bulb", DOCS)], together=4)
    assert caught[0].filename == __file__
    assert [hit.index for hit in ranking] == [1, 0]
    with pytest.raises(UsageError, match="batch_size is given twice"):
        reranker.rerank_many([("bulb", DOCS)], together=4, batch_size=2)


@pytest.mark.parametrize(("name", "here"), ELSEWHERE.items())
def test_a_name_of_other_packages_is_answered_with_ours(reranker, name, here):
    for call in (rerank, reranker.rerank, lambda *a, **o: asyncio.run(arerank(*a, **o))):
        with pytest.raises(UsageError, match=f"^{name} is called {here} here: give {here}=$"):
            call("bulb", **{name: DOCS})
    with pytest.raises(TypeError, match="unexpected keyword argument 'topk'"):
        rerank("bulb", DOCS, topk=3)


def test_the_wrapper_keeps_a_functions_name_and_kind():
    assert asyncio.iscoroutinefunction(arerank)
    assert (rerank.__name__, rerank.__module__) == ("rerank", "dearlite.api")
    assert with_former_names(lambda batch_size: batch_size)(batch_size=3) == 3


def test_a_former_option_works_hidden_with_a_line(cli, tmp_path):
    code, _, err = cli("batch", tmp_path / "nowhere", "--together", "0")
    assert code == 2
    assert err.splitlines() == [
        "dearlite: --together is called --batch-size now: the former name ends with the next version",
        "dearlite: --batch-size is 0: it must be a whole number from 1",
    ]
    assert "--batch-size=" not in cli("batch", tmp_path / "nowhere", "--batch-size=0")[2]
    assert "--batch-size is given 2 times" in cli("batch", "x", "--together=2", "--batch-size", "3")[2]
    out = cli("batch", "-h")[1]
    assert "--batch-size N" in out
    assert "--together" not in out


def test_the_value_of_an_option_is_no_former_name():
    command = click.Command("x", params=[click.Option(["-q"]), click.Option(["--batch-size"]), click.Argument(["a"])])
    for args in (["-q", "--together"], ["--", "--together"]):
        assert renamed._renamed(command, args) == args
    assert renamed._renamed(click.Command("y"), ["--together"]) == ["--together"]  # it has no such option


def test_every_former_name_has_a_name_of_today():
    options = {name for command in COMMANDS for param in find(command).params for name in param.opts}
    for former, name in FORMER.items():
        assert f"--{name.replace('_', '-')}" in options
        assert f"--{former.replace('_', '-')}" not in options


def find(name):
    try:
        return main.get_command(click.Context(main), name)
    except ImportError:  # its extra is not installed
        return click.Command(name)


def test_a_stage_report_is_also_read_by_its_former_field():
    report = StageReport("a", "cpu", 9, 4, 0.5)
    assert (report.scored, report.looked_at, report.to_dict()["looked_at"]) == (4, 4, 4)
