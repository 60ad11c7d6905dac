"""One hit on a terminal and in a notebook: its fields, one a row."""

from __future__ import annotations

from html import escape

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from dearlite.ranking import Hit
from dearlite.render.snippet import plain, snippet

_TEXT_CHARACTERS = 600


def hit_table(hit: Hit) -> Table:
    """A rich Table of the fields of `hit` that have a value."""
    table = Table(box=SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _fields(hit):
        table.add_row(name, Text(value))
    return table


def hit_html(hit: Hit) -> str:
    """An HTML table of the fields of `hit` that have a value. All texts are escaped."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{name}</th><td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in _fields(hit)
    )
    return f"<table>{rows}</table>"


def _fields(hit: Hit) -> list[tuple[str, str]]:
    stages = ", ".join(f"{stage.rank} by {stage.model} ({stage.score:.3f})" for stage in hit.stages)
    total = f"at least {hit.tokens_total}" if hit.tokens_total_is_bound else f"{hit.tokens_total}"
    values = {
        "rank": f"{hit.rank}",
        "score": "not scored" if hit.score is None else f"{hit.score:.3f}",
        "relevance": "" if hit.relevance is None else f"{hit.relevance:.3f}",
        "id": plain(hit.id or ""),
        "title": plain(hit.title),
        "text": snippet(plain(hit.text), set(), _TEXT_CHARACTERS),
        "nearest query": plain(hit.best_query or ""),
        "reason": plain(hit.reason or ""),
        "stages": stages if len(hit.stages) > 1 else "",
        "passage": "" if hit.passage is None else "characters {} to {}".format(*hit.passage),
        "tokens": f"read {hit.tokens_used} of {total}" if hit.truncated else "",
    }
    return [(name, value) for name, value in values.items() if value]
