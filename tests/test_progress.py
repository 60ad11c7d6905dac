"""`progress=True` in every call: a bar on a terminal, a line elsewhere."""

import io
import sys

import pytest

from dearlite import Reranker, UsageError, rerank
from dearlite.progress import shown
from dearlite.render import bar

DOCS = ["Coffee is good for diet", "Edison's bulb, 1879"]
CALLS = {
    "rerank": lambda progress: rerank("bulb", DOCS, progress=progress),
    "rerank_many": lambda progress: Reranker.load().rerank_many([("bulb", DOCS)], progress=progress),
    "score": lambda progress: Reranker.load().score([("bulb", text) for text in DOCS], progress=progress),
}


ERASED = "\x1b[2K"  # the line of the bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("call", CALLS)
def test_true_writes_a_line_where_there_is_no_terminal(call, capsys):
    CALLS[call](True)
    assert f"2 of 2 {'pairs' if call == 'score' else 'documents'}, " in capsys.readouterr().err


@pytest.mark.parametrize("call", CALLS)
def test_other_values_are_refused_and_false_is_none(call, capsys):
    CALLS[call](False)
    assert capsys.readouterr().err == ""
    for value in (5, "yes", 1):
        with pytest.raises(UsageError, match=f"progress is {value!r}: it must be True, or a function"):
            CALLS[call](value)


def test_a_terminal_gets_a_bar_that_is_gone_after_the_call(monkeypatch):
    monkeypatch.setattr(bar, "_SHOW_AFTER_S", 1e-9)
    monkeypatch.setattr(bar, "_REFRESH_S", 0.0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with shown(True) as callback:
        callback(1, 4)
        callback(2, 4)
    assert "2/4" in sys.stderr.getvalue()
    assert sys.stderr.getvalue().endswith(ERASED)


def test_a_task_may_show_its_progress(capsys):
    import asyncio

    from dearlite import arerank

    assert len(asyncio.run(arerank("bulb", DOCS, progress=True))) == 2
    assert "2 of 2 documents" in capsys.readouterr().err
